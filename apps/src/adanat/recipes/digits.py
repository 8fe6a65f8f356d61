"""scikit-learn's digits: 1,797 real images of 8x8 pixels, enough to see every part work.

Too few to rank policies: 300 test images cannot tell two decodings apart.
"""

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

IMAGE_SIZE = 8


def digits() -> Recipe:
    """The quickstart: the whole loop in a few minutes on two CPU cores."""
    return Recipe(
        name="digits",
        data=DataRecipe(source="digits", image_size=IMAGE_SIZE, num_classes=10),
        tokenizer=TokenizerRecipe(
            model=small(IMAGE_SIZE, downsample_factors=(2,), codebook_size=64),
            training=TokenizerTrainingConfig(
                learning_rate=1e-3, warmup_steps=20, total_steps=600, ema_decay=0.99
            ),
            batch_size=64,
        ),
        generator=GeneratorRecipe(
            embed_dim=96,
            depth=4,
            num_heads=4,
            training=NATTrainingConfig(
                learning_rate=1.5e-3,
                betas=(0.9, 0.99),
                warmup_steps=50,
                total_steps=1500,
                lr_schedule="cosine",
                mask_distribution=BetaMask(alpha=4.0, beta=2.0),
                ema_decay=0.99,
                grad_clip=1.0,
            ),
            batch_size=64,
        ),
        schedule=ScheduleRecipe(
            sampling_temperatures=(0.8, 1.0),
            num_samples=300,
            refinement_rounds=1,
            comparison_steps=(8,),
        ),
        reward=RewardRecipe(
            adversarial=AdversarialConfig(learning_rate=5e-4),
            num_real=1197,
            input_size=32,
            warmup_cycles=2,
            warmup_updates=60,
            updates_per_cycle=24,
        ),
        policy=PolicyRecipe(
            ppo=PPOConfig(
                learning_rate=1e-4,
                value_learning_rate=1e-3,
                max_grad_norm=1.0,
                std_schedule=((0, 0.4),),
            ),
            num_updates=20,
            episodes_per_update=128,
            validate_every=11,
            validation_samples=300,
        ),
        evaluation=EvaluationRecipe(
            num_samples=300, seeds=(0, 1, 2), feature_size=32, classifier_steps=200
        ),
    )
