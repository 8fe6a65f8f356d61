"""Pictures in one call: tokenizer, transformer and policy, in the manner of diffusers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self, overload

import torch
from natgen import (
    NAT,
    DecodingPolicy,
    NoiseSource,
    StaticSchedule,
    TextEncoder,
    autonat_l8,
    generate,
    maskgit,
    published,
)
from PIL import Image
from policyrl import GaussianPolicy, PolicySession
from torch import Tensor
from vqtok import Tokenizer

from adanat.checkpoints import atomic_write_json, read_json
from adanat.errors import AdanatError
from adanat.generation import cast_networks
from adanat.metrics import to_uint8
from adanat.pipeline_inputs import GuidedSchedule, initial_tokens
from adanat.run import Run, load_model
from adanat.schedule_points import tuned_point
from adanat.text import load_text_encoder

PolicyName = Literal["adaptive", "static", "maskgit", "autonat"]
INDEX_FILE = "model_index.json"
"""Tells the folder of a saved pipeline from others."""
_PARTS = ("tokenizer", "generator", "policy")
_DEFAULT_STEPS = 8


class NATPipeline:
    """Draws images after class labels or captions.

    Args:
        tokenizer: turns codes into images.
        generator: the transformer, on classes or on text.
        policy: a learned policy for `policy="adaptive"`; None where there is none.
        schedule: values (T, 4) for `policy="static"` at T steps, in the order of
            `natgen.COMPONENTS`; otherwise, and where it is None, the published schedule serves.
        text_encoder: for `prompt`, where the transformer is conditioned on text.
        encoder_source: the encoder's name and number of tokens, as `load_text_encoder` takes them:
            what `save_pretrained` writes in its place.

    Raises:
        ValueError: the parts do not fit one another.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        generator: NAT,
        policy: GaussianPolicy | None = None,
        *,
        schedule: Tensor | None = None,
        text_encoder: TextEncoder | None = None,
        encoder_source: tuple[str, int] | None = None,
    ) -> None:
        if tokenizer.codebook_size != generator.config.codebook_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.codebook_size} codes, the transformer "
                f"{generator.config.codebook_size}: they were not trained together"
            )
        if tokenizer.grid_size != generator.grid_size:
            raise ValueError(
                f"the tokenizer's grid is {tokenizer.grid_size}, the transformer's "
                f"{generator.grid_size}: they were not trained together"
            )
        if (text_encoder is None) == (generator.config.context_dim is not None):
            raise ValueError("a transformer on text, and no other, comes with a text encoder")
        self.tokenizer = tokenizer.eval()
        self.generator = generator.eval()
        self.policy = None if policy is None else policy.eval()
        self.schedule = schedule
        self.text_encoder = text_encoder
        self._encoder_source = encoder_source

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.generator.parameters()).device

    def to(self, target: torch.device | str | torch.dtype) -> Self:
        """Move the networks, or cast the transformer and the picture decoder; returns the pipeline.

        `pipeline.to("cuda").to(torch.bfloat16)`: what takes the time runs in bfloat16, the policy
        and the draw stay in float32.
        """
        if isinstance(target, torch.dtype):
            cast_networks(self.generator, self.tokenizer, target)
            return self
        self.tokenizer.to(target)
        self.generator.to(target)
        if self.policy is not None:
            self.policy.to(target)
        return self

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """The trained parts of a run, with the policy of its first seed and its tuned schedule.

        Both may still be missing: the published schedule draws as soon as there is a transformer.

        Raises:
            StageError: the tokenizer or the transformer is not finished, or the folder holds work
                of other settings.
        """
        text, seed = run.recipe.text, run.recipe.policy.seeds[0]
        is_tuned = run.stages.schedule.is_done()
        return cls(
            run.tokenizer(),
            run.nat(),
            run.policy(seed) if run.stages.policies[seed].is_done() else None,
            schedule=tuned_point(run).schedule().values if is_tuned else None,
            text_encoder=None if text.encoder is None else run.text_encoder,
            encoder_source=None if text.encoder is None else (text.encoder, text.num_tokens),
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote.

        Raises:
            AdanatError: the folder is none of a pipeline, or a part is missing or damaged.
        """
        root = Path(folder)
        if not (root / INDEX_FILE).is_file():
            raise AdanatError(f"{root} holds no pipeline: {INDEX_FILE} is missing")
        index = read_json(root / INDEX_FILE)
        if not isinstance(index, dict) or index.get("pipeline") != cls.__name__:
            raise AdanatError(f"{root / INDEX_FILE} is that of another library's pipeline")
        encoder = index["text_encoder"]
        source = None if encoder is None else (str(encoder["name"]), int(encoder["num_tokens"]))
        return cls(
            load_model(Tokenizer.from_pretrained, root / "tokenizer"),
            load_model(NAT.from_pretrained, root / "generator"),
            load_model(GaussianPolicy.from_pretrained, root / "policy")
            if index["policy"]
            else None,
            schedule=None if index["schedule"] is None else torch.tensor(index["schedule"]),
            text_encoder=None if source is None else load_text_encoder(*source),
            encoder_source=source,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `tokenizer/`, `generator/`, `policy/` and `model_index.json`.

        The text encoder is written by its name alone.

        Raises:
            ValueError: the text encoder came without its source.
        """
        if self.text_encoder is not None and self._encoder_source is None:
            raise ValueError("give encoder_source, or the text encoder could not be found again")
        root = Path(folder)
        for name, part in zip(_PARTS, (self.tokenizer, self.generator, self.policy), strict=True):
            if part is not None:
                part.save_pretrained(root / name)
        source = self._encoder_source
        atomic_write_json(
            root / INDEX_FILE,
            {
                "pipeline": type(self).__name__,
                "policy": self.policy is not None,
                "schedule": None if self.schedule is None else self.schedule.tolist(),
                "text_encoder": None
                if source is None
                else {"name": source[0], "num_tokens": source[1]},
            },
        )

    @overload
    def __call__(
        self,
        class_labels: Sequence[int] | None = ...,
        prompt: str | Sequence[str] | None = ...,
        *,
        num_steps: int | None = ...,
        policy: PolicyName | DecodingPolicy | None = ...,
        guidance_scale: float | None = ...,
        generator: torch.Generator | None = ...,
        images: Tensor | Sequence[Image.Image] | None = ...,
        mask: Tensor | None = ...,
        output_type: Literal["pil"] = ...,
    ) -> list[Image.Image]: ...

    @overload
    def __call__(
        self,
        class_labels: Sequence[int] | None = ...,
        prompt: str | Sequence[str] | None = ...,
        *,
        num_steps: int | None = ...,
        policy: PolicyName | DecodingPolicy | None = ...,
        guidance_scale: float | None = ...,
        generator: torch.Generator | None = ...,
        images: Tensor | Sequence[Image.Image] | None = ...,
        mask: Tensor | None = ...,
        output_type: Literal["tensor"],
    ) -> Tensor: ...

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int] | None = None,
        prompt: str | Sequence[str] | None = None,
        *,
        num_steps: int | None = None,
        policy: PolicyName | DecodingPolicy | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        images: Tensor | Sequence[Image.Image] | None = None,
        mask: Tensor | None = None,
        output_type: Literal["pil", "tensor"] = "pil",
    ) -> list[Image.Image] | Tensor:
        """Draw one image for each label or caption.

        Args:
            class_labels: in [0, number of classes), for a transformer on classes.
            prompt: captions, for a transformer on text.
            num_steps: decoding steps; by default the policy's own, or 8.
            policy: `adaptive` (learned; the default where there is one), `static` (the tuned
                schedule at its number of steps, else the published one; the default otherwise),
                `maskgit`, `autonat` (8 steps), or any decoding policy.
            guidance_scale: in place of the policy's: the same at every step.
            generator: source of the seed of the noise; the same state gives the same images.
                None: torch's global one.
            images: to edit, (B, 3, H, W) in [0, 1] or pictures of the tokenizer's size.
            mask: what of `images` to draw anew: (B, h, w) or (h, w) bool over the token grid.
            output_type: `pil` for a list of pictures, `tensor` for (B, 3, H, W) in [0, 1].

        Raises:
            ValueError: not exactly one condition, one that the transformer does not take, a label
                out of range, a number of steps that the policy does not decode in, an unknown
                policy, or images and mask that do not fit.
        """
        if output_type not in ("pil", "tensor"):
            raise ValueError(f"output_type must be 'pil' or 'tensor', got {output_type!r}")
        condition = self._condition(class_labels, prompt)
        decoding = self.decoding_policy(policy, num_steps)
        if isinstance(decoding, GaussianPolicy):  # alone it forgets what action smoothing needs
            decoding = PolicySession(decoding)
        if guidance_scale is not None:
            decoding = GuidedSchedule(decoding, guidance_scale)
        source = torch.default_generator if generator is None else generator
        seed = int(torch.randint(2**62, (), generator=source, device=source.device))
        tokens = generate(
            self.generator,
            decoding,
            condition,
            sample_indices=torch.arange(len(condition), device=self.device),
            noise=NoiseSource(seed),
            initial_tokens=initial_tokens(
                self.tokenizer, images, mask, len(condition), self.generator.mask_token_id
            ),
        ).tokens
        decoded = self.tokenizer.decode(tokens.unflatten(1, self.tokenizer.grid_size))
        if output_type == "tensor":
            return decoded.float()
        pixels = to_uint8(decoded).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(picture) for picture in pixels]

    def _condition(
        self, class_labels: Sequence[int] | None, prompt: str | Sequence[str] | None
    ) -> Tensor:
        if (class_labels is None) == (prompt is None):
            raise ValueError("give exactly one of class_labels and prompt")
        num_classes = self.generator.config.num_classes
        if prompt is not None:
            if self.text_encoder is None:
                raise ValueError("this transformer takes classes: give class_labels, not prompt")
            captions = [prompt] if isinstance(prompt, str) else list(prompt)
            if not captions:
                raise ValueError("prompt is empty: give at least one caption")
            return self.text_encoder(captions)[0].to(self.device)
        labels = list(class_labels or ())
        if num_classes is None:
            raise ValueError("this transformer takes text: give prompt, not class_labels")
        wrong = [label for label in labels if not 0 <= label < num_classes]
        if wrong or not labels:
            raise ValueError(
                f"class_labels must be at least one in [0, {num_classes - 1}], "
                f"got {wrong or labels}"
            )
        return torch.tensor(labels, device=self.device)

    def decoding_policy(
        self, policy: str | DecodingPolicy | None, num_steps: int | None
    ) -> DecodingPolicy:
        """What decodes under these arguments of a call.

        Raises:
            ValueError: there is no such policy, or it does not decode in that number of steps.
        """
        if policy is None:
            policy = "static" if self.policy is None else "adaptive"
        found = self._named(policy, num_steps) if isinstance(policy, str) else policy
        if num_steps is not None and found.num_steps != num_steps:
            raise ValueError(
                f"the policy {policy if isinstance(policy, str) else type(policy).__name__!r} "
                f"decodes in {found.num_steps} steps, got num_steps={num_steps}: leave it out, or "
                "take 'static' or 'maskgit', which decode in any number"
            )
        return found

    def _named(self, name: str, num_steps: int | None) -> DecodingPolicy:
        if name == "adaptive":
            if self.policy is None:
                raise ValueError(
                    "this pipeline has no learned policy: take 'static' or 'maskgit', or finish "
                    "`adanat train-policy` and export the run again"
                )
            return self.policy
        if name == "autonat":
            return autonat_l8()
        if name == "maskgit":
            return maskgit(num_steps or _DEFAULT_STEPS)
        if name == "static":
            if self.schedule is not None and num_steps in (None, len(self.schedule)):
                return StaticSchedule(self.schedule)
            return published(num_steps or _DEFAULT_STEPS)
        raise ValueError(f"there is no policy {name!r}: take adaptive, static, maskgit or autonat")
