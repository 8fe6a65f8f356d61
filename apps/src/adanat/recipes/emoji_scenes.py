"""Emoji on coloured grounds, 64 pixels: by class or by caption, with data that anyone can make."""

from dataclasses import replace

from advreward import AdversarialConfig
from natgen import BetaMask, NATTrainingConfig
from policyrl import PPOConfig
from vqtok import TokenizerTrainingConfig, small

from adanat.recipes.base import (
    EmojiScenesRecipe,
    EvaluationRecipe,
    GeneratorRecipe,
    PolicyRecipe,
    Recipe,
    RewardRecipe,
    ScheduleRecipe,
    TextRecipe,
    TokenizerRecipe,
)
from adanat.recipes.tiny import tiny

IMAGE_SIZE = 64
"""Four pixels a code give 16x16 codes; the transformer sees them as 8x8 patches."""


def emoji_scenes() -> Recipe:
    """Class-conditional: the class is the group of the emoji that the caption names first."""
    return Recipe(
        name="emoji-scenes",
        data=EmojiScenesRecipe(
            image_size=IMAGE_SIZE, num_fit=16_000, num_validation=2_000, num_test=2_000
        ),
        tokenizer=TokenizerRecipe(
            model=replace(
                small(
                    IMAGE_SIZE,
                    downsample_factors=(2, 2),
                    base_channels=16,
                    codebook_size=1024,
                    codebook_dim=8,
                ),
                normalize_codes=True,
            ),
            training=TokenizerTrainingConfig(
                learning_rate=1e-3,
                warmup_steps=100,
                total_steps=2400,
                perceptual_weight=0.2,
                ema_decay=0.998,
            ),
            batch_size=16,
            perceptual_size=48,
        ),
        generator=GeneratorRecipe(
            embed_dim=128,
            depth=6,
            num_heads=4,
            patch_size=2,
            training=NATTrainingConfig(
                learning_rate=2e-3,
                betas=(0.9, 0.99),
                warmup_steps=100,
                total_steps=2000,
                lr_schedule="cosine",
                mask_distribution=BetaMask(alpha=4.0, beta=2.0),
                ema_decay=0.995,
                grad_clip=1.0,
            ),
            batch_size=64,
        ),
        schedule=ScheduleRecipe(num_samples=1000, comparison_steps=(8, 16)),
        reward=RewardRecipe(
            adversarial=AdversarialConfig(learning_rate=5e-4),
            num_real=4000,
            warmup_cycles=4,
            warmup_updates=60,
            updates_per_cycle=24,
        ),
        policy=PolicyRecipe(
            ppo=PPOConfig(
                learning_rate=1e-4,
                value_learning_rate=1e-3,
                max_grad_norm=1.0,
                std_schedule=((0, 0.4), (70, 0.2)),
            ),
            validation_samples=1000,
        ),
        evaluation=EvaluationRecipe(num_samples=2000, batch_size=100),
    )


def emoji_scenes_text() -> Recipe:
    """Text-conditional: the same pictures after their captions."""
    return replace(
        emoji_scenes(),
        name="emoji-scenes-text",
        text=TextRecipe(encoder="minilm", num_tokens=24),
    )


def tiny_text() -> Recipe:
    """The text-conditional way in a handful of steps a stage, for tests and trial runs."""
    base = tiny()
    return replace(
        base,
        name="tiny-text",
        data=EmojiScenesRecipe(image_size=32, num_fit=120, num_validation=80, num_test=80),
        tokenizer=replace(
            base.tokenizer, model=small(32, downsample_factors=(2, 2, 2), base_channels=8)
        ),
        reward=replace(base.reward, num_real=60),
        text=TextRecipe(encoder="hashed", num_tokens=12, scorer_steps=20),
    )
