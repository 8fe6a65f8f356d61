"""The policy, and the reward that it is trained for."""

from dataclasses import dataclass, field
from typing import Literal

from advreward import DINO_VIT_S16, AdversarialConfig, AugmentConfig
from policyrl import PPOConfig

from adanat.recipes.parts.checks import require_positive


@dataclass(frozen=True, kw_only=True)
class RewardRecipe:
    """What the policy is paid for."""

    adversarial: AdversarialConfig
    design: Literal["adversarial", "pretrained", "frechet"] = "adversarial"
    """`adversarial`: a discriminator that learns along; `pretrained`: what a fixed `scorer` says;
    `frechet`: an image's share of its batch's distance to real images. The paper compares the
    three: the latter two can be gamed."""
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
    scorer: Literal["classifier", "clip", "image-reward"] = "classifier"
    """Of `pretrained`. `classifier`: the log-probability of the class under a classifier of the
    data set; `clip`: the cosine of image and prompt; `image-reward`: what people would prefer,
    as in the paper. The latter two take captions, too."""
    scorer_weights: str = "openai/clip-vit-large-patch14"
    """Of `clip`: a folder, or a repository on the Hugging Face hub, PickScore's, too. Of
    `image-reward`: the published file `ImageReward.pt`, of THUDM/ImageReward on the hub."""
    scorer_tokenizer: str = "google-bert/bert-base-uncased"
    """Of `image-reward`: a folder or a repository."""
    prompts: str = ""
    """File with one prompt a line for each class, where ImageNet's names are numbers; empty:
    "a photo of a" and the class's name. Captions are their own prompts."""
    classifier_steps: int = 1200
    """Training steps of the scorer `classifier`."""
    warmup_cycles: int = 3
    """Rollouts of the untrained policy on which the discriminator alone is trained first."""
    warmup_updates: int = 20
    """Discriminator updates on each of them."""
    updates_per_cycle: int = 6
    """Discriminator updates after each policy update."""
    batch_size: int = 96

    def __post_init__(self) -> None:
        require_positive(
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
        if self.scorer not in ("classifier", "clip", "image-reward"):
            raise ValueError(
                f"reward.scorer must be 'classifier', 'clip' or 'image-reward', got {self.scorer!r}"
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
    def needs_backbone(self) -> bool:
        """Whether any part of the reward looks at features of the frozen backbone."""
        return self.design != "pretrained" or bool(self.diversity_weight)

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
    features_on_host: bool = False
    """Keep them in the host's memory, and move a chunk at a time: where the GPU's is short."""
    num_updates: int = 100
    episodes_per_update: int = 512
    rollout_batch_size: int = 256
    validate_every: int = 20
    """Cycles between two measurements on validation images; the best policy is kept."""
    validation_samples: int = 2000
    seeds: tuple[int, ...] = (0,)
    """One policy is trained for each of these seeds."""

    def __post_init__(self) -> None:
        require_positive(
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
