"""A recipe: everything that a run needs to be repeated, as one typed value.

Its parts are in `adanat.recipes.parts`, and can all be imported from here.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from adanat.data import EMOJI_SCENES
from adanat.recipes.parts.checks import require_positive
from adanat.recipes.parts.data import DataRecipe, EmojiScenesRecipe, PreparedRecipe, TextRecipe
from adanat.recipes.parts.evaluation import EvaluationRecipe
from adanat.recipes.parts.models import GeneratorRecipe, TokenizerRecipe, TokensRecipe
from adanat.recipes.parts.policy import PolicyRecipe, RewardRecipe
from adanat.recipes.parts.schedules import ScheduleRecipe, StaticSearchRecipe

__all__ = [
    "DataRecipe",
    "EmojiScenesRecipe",
    "EvaluationRecipe",
    "GeneratorRecipe",
    "PolicyRecipe",
    "PreparedRecipe",
    "Recipe",
    "RewardRecipe",
    "ScheduleRecipe",
    "StaticSearchRecipe",
    "TextRecipe",
    "TokenizerRecipe",
    "TokensRecipe",
]


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
    static_search: StaticSearchRecipe = field(default_factory=StaticSearchRecipe)
    text: TextRecipe = field(default_factory=TextRecipe)
    tokens: TokensRecipe = field(default_factory=TokensRecipe)
    num_decoding_steps: int = 4
    reveal_below: float = 0.0
    """A learned policy that asks for a mask ratio below this ends an image there: all is revealed,
    and decoding saves the steps that remain. 0: every image takes all steps. With a price
    (`policy.step_price`), put it close under the tuned schedule's last ratio, so that exploration
    finds its way there: cos(pi/2 (T - 1)/T), 0.38 at 4 steps and 0.2 at 8."""
    seed: int = 0
    precision: Literal["no", "bf16"] = "no"
    """Of forward passes in training: the weights' own, or bf16 autocast."""
    checkpoint_every: int = 200
    """Optimizer steps between two resumable checkpoints (policy cycles: a twentieth of it)."""
    shard_generator: bool = False
    """Spread the transformer's training state over the processes (FSDP), for what does not fit one
    GPU. It changes no result, so it may change when a training goes on."""

    def __post_init__(self) -> None:
        require_positive(
            "recipe",
            num_decoding_steps=self.num_decoding_steps,
            checkpoint_every=self.checkpoint_every,
        )
        self._check_length()
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
        classified = self.reward.design == "pretrained" and self.reward.scorer == "classifier"
        if captioned and (classified or self.reward.diversity_weight):
            raise ValueError(
                "reward.scorer 'classifier' and reward.diversity_weight go by classes, but "
                f"text.encoder is {self.text.encoder!r}: choose another reward, or no encoder"
            )
        smallest = 2 * self.data.num_classes
        if self.reward.diversity_weight and self.policy.rollout_batch_size < smallest:
            raise ValueError(
                "reward.diversity_weight compares an image with others of its class in the same "
                f"batch: policy.rollout_batch_size is {self.policy.rollout_batch_size}, but must "
                f"be at least {smallest}, twice the number of classes"
            )
        fewer = [n for n in self.schedule.comparison_steps if n <= self.num_decoding_steps]
        if fewer:
            raise ValueError(
                f"schedule.comparison_steps must all be above num_decoding_steps "
                f"({self.num_decoding_steps}), got {fewer}"
            )

    def _check_length(self) -> None:
        """Whether images may end early, and a price for steps can teach a policy to do so."""
        if not 0 <= self.reveal_below < 1:
            raise ValueError(f"reveal_below must be in [0, 1), got {self.reveal_below}")
        if self.reveal_below and self.policy.smoothing:
            raise ValueError(
                f"policy.smoothing is {self.policy.smoothing}, which needs every image of a batch "
                f"to be at the same step, but reveal_below is {self.reveal_below}: set one to 0"
            )
        if self.policy.step_price and not self.reveal_below:
            raise ValueError(
                f"policy.step_price is {self.policy.step_price}, but reveal_below is 0, so that no "
                "exploration ends early and the price teaches nothing: set --reveal-below"
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

    def policy_key(self, seed: int) -> PolicyRecipe:
        """`policy_for`, without what trades memory for time and may change at any moment."""
        policy = self.policy_for(seed)
        return replace(policy, features_on_host=False, ppo=replace(policy.ppo, chunk_size=None))

    @property
    def generator_key(self) -> GeneratorRecipe:
        """What the transformer depends on; likewise."""
        training = replace(
            self.generator.training, accumulation_steps=1, activation_checkpointing=False
        )
        return replace(self.generator, training=training)
