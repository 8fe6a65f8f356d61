"""Fashion-MNIST: 70,000 pictures of clothes, the smallest set on which policies can be ranked."""

from dataclasses import replace

from advreward import AdversarialConfig
from natgen import BetaMask, NATTrainingConfig
from policyrl import PPOConfig
from vqtok import TokenizerTrainingConfig, small

from adanat.recipes.base import (
    DataRecipe,
    EvaluationRecipe,
    GeneratorRecipe,
    PolicyRecipe,
    Recipe,
    RewardRecipe,
    ScheduleRecipe,
    TokenizerRecipe,
)

IMAGE_SIZE = 28
"""As published; four pixels a code give a grid of 7x7."""


def fashion_mnist() -> Recipe:
    """The recipe by which policies are ranked: hours on two CPU cores.

    Why 7x7 codes, a strong perceptual term, a part of the reward for diversity and offsets by step:
    docs/results/fashion-mnist.md.
    """
    return Recipe(
        name="fashion-mnist",
        data=DataRecipe(source="fashion-mnist", image_size=IMAGE_SIZE, num_classes=10),
        tokenizer=TokenizerRecipe(
            model=small(IMAGE_SIZE, downsample_factors=(2, 2), base_channels=16),
            training=TokenizerTrainingConfig(
                learning_rate=1e-3,
                warmup_steps=100,
                total_steps=2000,
                perceptual_weight=2.0,
                ema_decay=0.995,
            ),
            batch_size=64,
            perceptual_size=64,
        ),
        generator=GeneratorRecipe(
            embed_dim=96,
            depth=4,
            num_heads=4,
            training=NATTrainingConfig(
                learning_rate=1.5e-3,
                betas=(0.9, 0.99),
                warmup_steps=200,
                total_steps=5000,
                lr_schedule="cosine",
                mask_distribution=BetaMask(alpha=4.0, beta=2.0),
                ema_decay=0.999,
                grad_clip=1.0,
            ),
            batch_size=128,
        ),
        schedule=ScheduleRecipe(num_samples=1500, comparison_steps=(8, 16)),
        reward=RewardRecipe(
            adversarial=AdversarialConfig(learning_rate=5e-4, reward="logit"),
            diversity_weight=1.0,
            warmup_cycles=4,
            warmup_updates=60,
            updates_per_cycle=24,
            batch_size=128,
        ),
        policy=PolicyRecipe(
            ppo=PPOConfig(
                learning_rate=3e-5,
                value_learning_rate=1e-3,
                offset_learning_rate=2e-2,
                max_grad_norm=1.0,
                std_schedule=((0, 0.3),),
            ),
            learn_offsets=True,
            rollout_batch_size=512,
            seeds=(0, 1, 2),
        ),
        evaluation=EvaluationRecipe(batch_size=50),  # stays in a core's cache: 1.2 times as fast
    )


def fashion_mnist_quick() -> Recipe:
    """A first look in a quarter of an hour on two CPU cores; too short to rank policies."""
    base = fashion_mnist()
    return replace(
        base,
        name="fashion-mnist-quick",
        tokenizer=replace(
            base.tokenizer,
            training=replace(
                base.tokenizer.training, total_steps=500, perceptual_weight=0.1, ema_decay=0.98
            ),
            perceptual_size=32,
        ),
        generator=replace(
            base.generator,
            training=replace(base.generator.training, total_steps=800, ema_decay=0.99),
            batch_size=64,
        ),
        schedule=replace(
            base.schedule,
            sampling_temperatures=(1.0,),
            num_samples=500,
            refinement_rounds=1,
            comparison_steps=(8,),
        ),
        reward=replace(base.reward, num_real=2000),
        policy=replace(
            base.policy,
            num_updates=10,
            episodes_per_update=128,
            validate_every=6,
            validation_samples=500,
            seeds=(0,),
        ),
        evaluation=replace(base.evaluation, num_samples=1000, seeds=(0, 1), classifier_steps=300),
    )


def fashion_mnist_smoke() -> Recipe:
    """Every stage on the real data with next to no training: does it all still fit together?"""
    base = fashion_mnist_quick()
    return replace(
        base,
        name="fashion-mnist-smoke",
        tokenizer=replace(
            base.tokenizer,
            training=replace(
                base.tokenizer.training, warmup_steps=5, total_steps=60, ema_decay=0.9
            ),
        ),
        generator=replace(
            base.generator,
            training=replace(
                base.generator.training, warmup_steps=5, total_steps=100, ema_decay=0.9
            ),
        ),
        schedule=replace(
            base.schedule,
            remask_temperatures=(4.5,),
            guidance_scales=(0.0, 1.0),
            num_samples=200,
            refinement_rounds=0,
        ),
        reward=replace(
            base.reward, num_real=500, warmup_cycles=1, warmup_updates=10, updates_per_cycle=4
        ),
        policy=replace(
            base.policy,
            num_updates=3,
            episodes_per_update=64,
            validate_every=4,
            validation_samples=200,
        ),
        evaluation=replace(base.evaluation, num_samples=300, classifier_steps=50),
    )
