"""A recipe: everything that a run needs to be repeated, as one typed value."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from advreward import DINO_VIT_S16, AdversarialConfig, AugmentConfig
from natgen import NATTrainingConfig
from policyrl import PPOConfig
from vqtok import TokenizerConfig, TokenizerTrainingConfig

from adanat.data import EMOJI_SCENES, emoji_groups


def _require_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{owner}.{name} must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which images, at which size."""

    source: str
    """Name of the data source: `digits`, `fashion-mnist` or `emoji-scenes`."""
    image_size: int
    """Side in pixels; smaller images are padded with black on all sides."""
    num_classes: int
    """Number of classes; labels run from 0 to num_classes - 1."""

    def __post_init__(self) -> None:
        _require_positive("data", image_size=self.image_size, num_classes=self.num_classes)


@dataclass(frozen=True, kw_only=True)
class EmojiScenesRecipe(DataRecipe):
    """The generated data set `emoji-scenes`: which of its endless row of pictures."""

    source: str = EMOJI_SCENES
    num_classes: int = len(emoji_groups())
    num_fit: int
    num_validation: int
    num_test: int
    seed: int = 0
    """Seed of the scenes, not of the training."""

    @property
    def num_images(self) -> dict[str, int]:
        """Images of each split."""
        return {"fit": self.num_fit, "validation": self.num_validation, "test": self.num_test}


@dataclass(frozen=True, kw_only=True)
class PreparedRecipe(DataRecipe):
    """A data set that `adanat prepare` has made ready, in the folder that --data-dir names."""

    source: str
    """Name of the data set: `imagenet`, `coco` or `cc3m`."""


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """Captions as the condition, instead of the classes."""

    encoder: str | None = None
    """Name of a text encoder (`adanat.text.load_text_encoder`); None: the classes condition."""
    num_tokens: int = 24
    """Feature tokens of a caption; longer captions are cut off."""
    stored: bool = True
    """Whether features are encoded once and kept on disk, or anew for every batch."""
    scorer_steps: int = 1500
    """Training steps of the image-text scorer of the evaluation."""

    def __post_init__(self) -> None:
        _require_positive("text", num_tokens=self.num_tokens, scorer_steps=self.scorer_steps)


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """Stage 1: images to grids of codes."""

    model: TokenizerConfig
    training: TokenizerTrainingConfig
    batch_size: int
    perceptual_size: int = 32
    """Images are resized to this side for the perceptual backbone."""
    weights: Path | None = None
    """Use this tokenizer instead of training one: a folder with `config.json` and
    `model.safetensors`, or a checkpoint file in `weights_format`."""
    weights_format: Literal["vqgan", "open-muse", "llamagen"] = "vqgan"
    """Layout of the file: the authors' (MAGE's f16 VQGAN), open-muse's or LlamaGen's."""

    def __post_init__(self) -> None:
        _require_positive("tokenizer", batch_size=self.batch_size)
        if self.weights_format not in ("vqgan", "open-muse", "llamagen"):
            raise ValueError(
                "tokenizer.weights_format must be 'vqgan', 'open-muse' or 'llamagen', "
                f"got {self.weights_format!r}"
            )
        if self.training.total_steps is None:
            raise ValueError("tokenizer.training.total_steps must be given: it ends the training")

    @property
    def total_steps(self) -> int:
        """Number of updates."""
        return self.training.total_steps or 0


@dataclass(frozen=True, kw_only=True)
class TokensRecipe:
    """The images as codes, which is what the transformer learns from."""

    mirrored: bool = False
    """Whether mirrored copies of the images to learn from follow behind the originals. Captions are
    kept as they are, so leave it out where they tell left from right."""
    batch_size: int = 250
    num_verified: int = 256
    """Items of each split that are encoded again, once the store is finished."""

    def __post_init__(self) -> None:
        _require_positive("tokens", batch_size=self.batch_size, num_verified=self.num_verified)


@dataclass(frozen=True, kw_only=True)
class GeneratorRecipe:
    """Stage 2: the non-autoregressive transformer on those codes."""

    embed_dim: int
    depth: int
    num_heads: int
    training: NATTrainingConfig
    batch_size: int
    dropout: float = 0.1
    patch_size: int = 1
    """Codes a side that the transformer treats as one position: 2 makes 32x32 codes 16x16."""
    weights: Path | None = None
    """Use this transformer instead of training one: a folder with `config.json` and
    `model.safetensors`, or the authors' checkpoint file."""

    def __post_init__(self) -> None:
        _require_positive("generator", batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class ScheduleRecipe:
    """Stage 3: the best hand-made schedule, a grid around the published one.

    Every combination is judged on validation images with the same labels and noise.
    """

    remask_temperatures: tuple[float, ...] = (1.0, 4.5, 10.0)
    sampling_temperatures: tuple[float, ...] = (0.8, 1.0, 1.2)
    guidance_scales: tuple[float, ...] = (0.0, 1.0, 3.0)
    num_samples: int = 2000
    """Images generated for each point of the grid."""
    refinement_rounds: int = 3
    """Rounds of compass search around the winner of the grid, also beyond the grid's edges."""
    comparison_steps: tuple[int, ...] = (6, 8, 12, 16)
    """Step counts at which the schedule is tuned and measured as a yardstick for the policy."""

    def __post_init__(self) -> None:
        _require_positive("schedule", num_samples=self.num_samples)
        for name in ("remask_temperatures", "sampling_temperatures", "guidance_scales"):
            if not getattr(self, name):
                raise ValueError(f"schedule.{name} is empty: give at least one value")


@dataclass(frozen=True, kw_only=True)
class StaticSearchRecipe:
    """The best schedule for all images, searched without gradients: AutoNAT's idea.

    It has the numbers that the policy learns, one value a step in place of one a sample.
    """

    included: bool = False
    """Whether `run` searches and the evaluation compares what it found."""
    image_budget: int | None = None
    """Images that the search may generate; None: as many as the training of one policy does."""
    images_per_score: int = 500
    """Images by which one schedule is judged, with the same labels and noise for all."""
    sigma: float = 0.6
    """Initial standard deviation of the raw numbers."""

    def __post_init__(self) -> None:
        _require_positive(
            "static_search",
            image_budget=1 if self.image_budget is None else self.image_budget,
            images_per_score=self.images_per_score,
            sigma=self.sigma,
        )


@dataclass(frozen=True, kw_only=True)
class RewardRecipe:
    """What the policy is paid for."""

    adversarial: AdversarialConfig
    design: Literal["adversarial", "pretrained", "frechet"] = "adversarial"
    """`adversarial`: a discriminator that learns along; `pretrained`: the log-probability of the
    class under a classifier of the data set; `frechet`: an image's share of its batch's distance to
    real images. The paper compares the three: the latter two can be gamed."""
    diversity_weight: float = 0.0
    """Trades fidelity (below 0, above -1) for diversity (above 0): how much being unlike other
    images of its class adds to an image's reward, both standardised over the batch; 0 is off."""
    real_side: str = "reconstructions"
    """`reconstructions`: real images passed through the tokenizer, so that the discriminator
    judges what the policy can change; `images`: raw real images, as published."""
    num_real: int = 10_000
    """Real images whose frozen features are kept in memory, or make up the reference."""
    num_heldout: int = 256
    """Validation images on which the discriminator's overfitting is measured."""
    backbone: Literal["lite0", "dino"] = "lite0"
    """`lite0`: EfficientNet-Lite0, offline; `dino`: DINO ViT-S/16, as published."""
    dino_weights: str = DINO_VIT_S16
    """File or folder of DINO's weights, or a repository on the Hugging Face hub."""
    input_size: int = 64
    """Images are resized to this side for the frozen backbone; DINO wants 224."""
    augmented_copies: int = 0
    """Differently augmented copies of each real image whose features are kept (each takes as much
    memory as the images alone); generated images are augmented anew. 0: no augmentation."""
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    frechet_components: int = 64
    """Principal components of the reference along which `frechet` measures; keep
    policy.rollout_batch_size well above it."""
    classifier_steps: int = 1200
    """Training steps of the classifier of `pretrained`."""
    warmup_cycles: int = 3
    """Rollouts of the untrained policy on which the discriminator alone is trained first."""
    warmup_updates: int = 20
    """Discriminator updates on each of them."""
    updates_per_cycle: int = 6
    """Discriminator updates after each policy update."""
    batch_size: int = 96

    def __post_init__(self) -> None:
        _require_positive(
            "reward",
            num_real=self.num_real,
            num_heldout=self.num_heldout,
            input_size=self.input_size,
            frechet_components=self.frechet_components,
            classifier_steps=self.classifier_steps,
            updates_per_cycle=self.updates_per_cycle,
            batch_size=self.batch_size,
        )
        if self.real_side not in ("reconstructions", "images"):
            raise ValueError(
                f"reward.real_side must be 'reconstructions' or 'images', got {self.real_side!r}"
            )
        if self.design not in ("adversarial", "pretrained", "frechet"):
            raise ValueError(
                "reward.design must be 'adversarial', 'pretrained' or 'frechet', "
                f"got {self.design!r}"
            )
        if self.backbone not in ("lite0", "dino"):
            raise ValueError(f"reward.backbone must be 'lite0' or 'dino', got {self.backbone!r}")
        if self.augmented_copies < 0:
            raise ValueError(
                f"reward.augmented_copies must be at least 0, got {self.augmented_copies}"
            )
        if not -1 < self.diversity_weight < float("inf"):
            raise ValueError(
                f"reward.diversity_weight must be above -1, got {self.diversity_weight}"
            )

    @property
    def num_warmup_cycles(self) -> int:
        """Cycles before the policy's first update: none without a discriminator."""
        return self.warmup_cycles if self.design == "adversarial" else 0


@dataclass(frozen=True, kw_only=True)
class PolicyRecipe:
    """Stage 4: the policy network, its prior and its training."""

    ppo: PPOConfig
    hidden_dim: int = 128
    conv_channels: int = 32
    mlp_dims: tuple[int, int] = (256, 128)
    learned: tuple[str, ...] = (
        "mask_ratio",
        "remask_temperature",
        "sampling_temperature",
        "guidance_scale",
    )
    """Numbers that the policy chooses; the others stay at the tuned schedule."""
    smoothing: float = 0.0
    """How much of the step before stays in a step's numbers, in [0, 1); AdaGen takes 0.8."""
    learn_std: bool = False
    """Whether each number's exploration is learned, on top of the schedule of `ppo`."""
    learn_offsets: bool = False
    """Whether each step has offsets beside the network, learned at `ppo.offset_learning_rate`."""
    step_price: float = 0.0
    """Taken from the reward for each decoding step with tokens left to draw; 0: steps are free."""
    feature_dtype: Literal["float32", "bfloat16"] = "float32"
    """In which a rollout keeps the features that the policy saw."""
    num_updates: int = 100
    episodes_per_update: int = 512
    rollout_batch_size: int = 256
    validate_every: int = 20
    """Cycles between two measurements on validation images; the best policy is kept."""
    validation_samples: int = 2000
    seeds: tuple[int, ...] = (0,)
    """One policy is trained for each of these seeds."""

    def __post_init__(self) -> None:
        _require_positive(
            "policy",
            num_updates=self.num_updates,
            episodes_per_update=self.episodes_per_update,
            rollout_batch_size=self.rollout_batch_size,
            validate_every=self.validate_every,
            validation_samples=self.validation_samples,
        )
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"policy.smoothing must be in [0, 1), got {self.smoothing}")
        if not 0 <= self.step_price < float("inf"):
            raise ValueError(
                f"policy.step_price must be at least 0 and finite, got {self.step_price}"
            )
        if self.feature_dtype not in ("float32", "bfloat16"):
            raise ValueError(
                f"policy.feature_dtype must be 'float32' or 'bfloat16', got {self.feature_dtype!r}"
            )
        if not self.seeds:
            raise ValueError("policy.seeds is empty: give at least one seed")


@dataclass(frozen=True, kw_only=True)
class EvaluationRecipe:
    """Stage 5: the judgement on test images with fresh seeds."""

    num_samples: int = 10_000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Generation seeds; all policies share labels and noise under each of them."""
    batch_size: int = 250
    feature_size: int = 64
    """Images are resized to this side for the evaluation backbone (EfficientNet-Lite2)."""
    classifier_steps: int = 1200
    """Training steps of the classifier of the data set whose features confirm the distances."""
    num_reference: int | None = None
    """Real images of a split that make its reference; None: all of them, in memory."""

    def __post_init__(self) -> None:
        _require_positive(
            "evaluation",
            num_samples=self.num_samples,
            batch_size=self.batch_size,
            feature_size=self.feature_size,
            classifier_steps=self.classifier_steps,
        )
        if not self.seeds:
            raise ValueError("evaluation.seeds is empty: give at least one seed")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Data, sizes, training, policy and judgement of one run."""

    name: str
    data: DataRecipe
    tokenizer: TokenizerRecipe
    generator: GeneratorRecipe
    schedule: ScheduleRecipe
    reward: RewardRecipe
    policy: PolicyRecipe
    evaluation: EvaluationRecipe
    static_search: StaticSearchRecipe = StaticSearchRecipe()
    text: TextRecipe = TextRecipe()
    tokens: TokensRecipe = TokensRecipe()
    num_decoding_steps: int = 4
    seed: int = 0
    precision: Literal["no", "bf16"] = "no"
    """Of forward passes in training: the weights' own, or bf16 autocast."""
    checkpoint_every: int = 200
    """Optimizer steps between two resumable checkpoints (policy cycles: a twentieth of it)."""
    shard_generator: bool = False
    """Spread the transformer's training state over the processes (FSDP), for what does not fit one
    GPU. It changes no result, so it may change when a training goes on."""

    def __post_init__(self) -> None:
        _require_positive(
            "recipe",
            num_decoding_steps=self.num_decoding_steps,
            checkpoint_every=self.checkpoint_every,
        )
        if self.tokenizer.model.image_size != self.data.image_size:
            raise ValueError(
                f"tokenizer.model.image_size is {self.tokenizer.model.image_size} but "
                f"data.image_size is {self.data.image_size}: set both to the same size"
            )
        captioned = self.text.encoder is not None
        if captioned and self.tokens.mirrored and self.data.source == EMOJI_SCENES:
            raise ValueError(
                f"tokens.mirrored is True, but the captions of {EMOJI_SCENES} say what is left of "
                "what: leave it out, or text.encoder"
            )
        if captioned and (self.reward.design == "pretrained" or self.reward.diversity_weight):
            raise ValueError(
                "reward.design 'pretrained' and reward.diversity_weight go by classes, but "
                f"text.encoder is {self.text.encoder!r}: choose another reward, or no encoder"
            )
        fewer = [n for n in self.schedule.comparison_steps if n <= self.num_decoding_steps]
        if fewer:
            raise ValueError(
                f"schedule.comparison_steps must all be above num_decoding_steps "
                f"({self.num_decoding_steps}), got {fewer}"
            )

    @property
    def num_policy_cycles(self) -> int:
        """Rollouts of a policy's training, those of the discriminator's warm-up among them."""
        return self.reward.num_warmup_cycles + self.policy.num_updates

    @property
    def images_per_policy(self) -> int:
        """Images that the training of one policy generates: rollouts and validations."""
        validations = math.ceil(self.num_policy_cycles / self.policy.validate_every)
        return (
            self.num_policy_cycles * self.policy.episodes_per_update
            + validations * self.policy.validation_samples
        )

    def policy_for(self, seed: int) -> PolicyRecipe:
        """What the policy of one seed depends on: not the other seeds."""
        return replace(self.policy, seeds=(seed,))
