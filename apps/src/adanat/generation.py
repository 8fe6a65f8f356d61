"""From sample indices to pictures: the NAT, a decoding policy and the tokenizer joined."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from natgen import (
    NAT,
    DecodingPolicy,
    FinishedSample,
    FirstStepCache,
    Generation,
    NoiseSource,
    decode_behind,
    generate,
    generate_continuously,
)
from policyrl import GaussianPolicy, PolicySession
from torch import Tensor
from vqtok import Tokenizer

from adanat.metrics import to_uint8

_FIRST_STEP_BYTES = 2**29
"""Memory for the network's answers to the empty grid, one a class, where the batch is refilled."""
_PIXELS_AT_ONCE = 2**22
"""Of pictures that are decoded together, 64 of 256 pixels, for which the published tokenizer takes
11 GB in float32."""


Precision = Literal["fp32", "bf16"]
"""Of the weights that drawing takes; see `cast_networks`."""
DTYPES: Mapping[Precision, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "bf16": torch.bfloat16}
)


def cast_networks(nat: NAT, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    """Cast, in place, what takes the time: the transformer and the picture decoder.

    The tokenizer's encoder and codebook stay, so that codes mean what they meant; policies decide
    in float32 whatever the features' type, and so do guidance and draw.
    """
    nat.to(dtype)
    tokenizer.decoder.to(dtype)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255.0)


def decode_grids(tokenizer: Tokenizer, grids: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] of token grids (B, h, w), not too many at once."""
    at_once = max(1, _PIXELS_AT_ONCE // tokenizer.config.image_size**2)
    return torch.cat([tokenizer.decode(chunk) for chunk in grids.split(at_once)])


def balanced_labels(indices: Tensor, num_classes: int) -> Tensor:
    """The label plan of training and evaluation: sample i has class i mod num_classes."""
    return indices.remainder(num_classes)


class Batch(NamedTuple):
    """Pictures of consecutive sample indices."""

    images: Tensor
    """(B, 3, H, W) uint8."""
    labels: Tensor
    """(B,) int64."""
    generation: Generation


class Pictures(NamedTuple):
    """Pictures of consecutive sample indices, and the decoding steps that each of them took."""

    images: Tensor
    """(B, 3, H, W) uint8."""
    num_steps: Tensor
    """(B,) int64."""


@dataclass
class Cost:
    """What generating took, added up over batches."""

    images: int = 0
    seconds: float = 0.0
    passes: float = 0.0
    """Sample passes through the network, both branches of guidance counted."""

    def add(self, images: int, seconds: float, passes_per_image: float) -> None:
        self.images += images
        self.seconds += seconds
        self.passes += passes_per_image * images

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else float("nan")

    @property
    def passes_per_image(self) -> float:
        return self.passes / self.images if self.images else float("nan")


@dataclass
class Generator:
    """Draws images.

    The same sample index under the same seed has the same label and noise, whatever the policy
    and the batching.
    """

    nat: NAT
    tokenizer: Tokenizer
    label_plan: Callable[[Tensor], Tensor]
    """Sample indices (B,) to labels (B,)."""
    batch_size: int
    cost: Cost = field(default_factory=Cost)

    def batches(
        self,
        policy: DecodingPolicy,
        *,
        seed: int,
        num_samples: int,
        start: int = 0,
    ) -> Iterator[Batch]:
        """Yield the pictures of sample indices `start` to `start + num_samples - 1` in order.

        Args:
            policy: any decoding policy; its `num_steps` is the number of steps.
            seed: key of the noise.
            num_samples: how many images in all.
            start: first sample index.
        """
        end = start + num_samples
        for first in range(start, end, self.batch_size):
            yield self.draw(policy, (first, min(first + self.batch_size, end)), seed=seed)

    def draw(self, policy: DecodingPolicy, span: tuple[int, int], *, seed: int) -> Batch:
        """The pictures of sample indices `span[0]` to `span[1] - 1`, in one batch."""
        began = time.perf_counter()
        indices = torch.arange(*span, device=self._device)
        generation = self._generate(_decoding(policy), indices, NoiseSource(seed))
        images = to_uint8(self.decode(generation.tokens)).cpu()  # waits for the device
        self.cost.add(len(images), time.perf_counter() - began, generation.num_passes)
        return Batch(images, self.label_plan(indices).cpu(), generation)

    def pictures(
        self, policy: DecodingPolicy, spans: Sequence[tuple[int, int]], *, seed: int
    ) -> Iterator[Pictures]:
        """The pictures of spans of sample indices, in all the policy's steps.

        On a GPU a batch becomes pictures while the next one is drawn (`natgen.decode_behind`).

        Args:
            policy: any decoding policy.
            spans: (start, end) of each `Pictures`, in the order in which they are yielded.
            seed: key of the noise.
        """
        deciding, noise = _decoding(policy), NoiseSource(seed)
        passes: list[float] = []

        def tokens() -> Iterator[Tensor]:
            for span in spans:
                generation = self._generate(
                    deciding, torch.arange(*span, device=self._device), noise
                )
                passes.append(generation.num_passes)
                yield generation.tokens

        decoded = decode_behind(lambda drawn: to_uint8(self.decode(drawn)), tokens())
        for number in range(len(spans)):
            began = time.perf_counter()
            images = next(decoded)
            self.cost.add(len(images), time.perf_counter() - began, passes[number])
            yield Pictures(images, torch.full((len(images),), policy.num_steps))

    def stream(
        self, policy: DecodingPolicy, spans: Sequence[tuple[int, int]], *, seed: int
    ) -> Iterator[Pictures]:
        """The pictures of spans of sample indices, each in no more steps than it needs.

        They are those of `draw`, up to rounding: samples that are complete give their places to
        those of later spans (`natgen.generate_continuously`).

        Args:
            policy: its choices must not depend on the step before: no action smoothing.
            spans: (start, end) of each `Pictures`, in the order in which they are yielded.
            seed: key of the noise.
        """
        finished = generate_continuously(
            FirstStepCache(self.nat, max_bytes=_FIRST_STEP_BYTES),
            policy,
            self._samples(spans),
            batch_size=self.batch_size,
            noise=NoiseSource(seed),
        )
        early: dict[int, FinishedSample] = {}
        for start, end in spans:
            began = time.perf_counter()
            while not all(index in early for index in range(start, end)):
                sample = next(finished)
                early[sample.sample_index] = sample
            samples = [early.pop(index) for index in range(start, end)]
            images = to_uint8(self.decode(torch.stack([s.tokens for s in samples]))).cpu()
            passes = sum(sample.num_passes for sample in samples) / len(samples)
            self.cost.add(len(images), time.perf_counter() - began, passes)
            yield Pictures(images, torch.tensor([sample.num_steps for sample in samples]))

    def _samples(self, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[Tensor, int]]:
        for span in spans:
            indices = torch.arange(*span, device=self._device)
            yield from zip(self.label_plan(indices), indices.tolist(), strict=True)

    def _generate(
        self, policy: DecodingPolicy, indices: Tensor, noise: NoiseSource, *, record: bool = False
    ) -> Generation:
        labels = self.label_plan(indices)
        return generate(
            self.nat, policy, labels, sample_indices=indices, noise=noise, record=record
        )

    @property
    def _device(self) -> torch.device:
        return next(self.nat.parameters()).device

    def parameters(self, policy: DecodingPolicy, *, seed: int, num_samples: int) -> Tensor:
        """(N, T, 4) that `policy` chooses for samples 0 to N - 1, without their pictures."""
        policy, noise = _decoding(policy), NoiseSource(seed)
        indices = torch.arange(num_samples, device=self._device).split(self.batch_size)
        return torch.cat([self._generate(policy, part, noise).parameters for part in indices])

    def record(self, policy: DecodingPolicy, *, seed: int, num_samples: int) -> Generation:
        """Every decoding step of samples 0 to N - 1, in one batch, without their pictures."""
        indices = torch.arange(num_samples, device=self._device)
        return self._generate(_decoding(policy), indices, NoiseSource(seed), record=True)

    def decode(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) in raster order to images (B, 3, H, W) in [0, 1]."""
        with torch.inference_mode():
            return decode_grids(self.tokenizer, tokens.unflatten(1, self.tokenizer.grid_size))


def _decoding(policy: DecodingPolicy) -> DecodingPolicy:
    """The policy with a memory of the step before, where its action smoothing needs one."""
    return PolicySession(policy) if isinstance(policy, GaussianPolicy) else policy
