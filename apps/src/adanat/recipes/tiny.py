"""The smallest run that still passes through every part, for tests and trial runs."""

from dataclasses import replace

from adanat.recipes.base import Recipe, StaticSearchRecipe
from adanat.recipes.digits import digits


def tiny() -> Recipe:
    """Digits with a handful of steps a stage: half a minute, and no picture worth a look."""
    base = digits()
    return replace(
        base,
        name="tiny",
        tokenizer=replace(
            base.tokenizer,
            training=replace(
                base.tokenizer.training, warmup_steps=2, total_steps=12, ema_decay=0.5
            ),
            batch_size=16,
        ),
        generator=replace(
            base.generator,
            embed_dim=32,
            depth=2,
            training=replace(
                base.generator.training, warmup_steps=2, total_steps=12, ema_decay=0.5
            ),
            batch_size=16,
        ),
        schedule=replace(
            base.schedule,
            remask_temperatures=(1.0, 4.5),
            sampling_temperatures=(1.0,),
            guidance_scales=(0.0, 1.0),
            num_samples=40,
            refinement_rounds=1,
        ),
        static_search=StaticSearchRecipe(images_per_score=40),
        reward=replace(
            base.reward,
            num_real=100,
            classifier_steps=10,
            warmup_cycles=1,
            warmup_updates=2,
            updates_per_cycle=2,
        ),
        policy=replace(
            base.policy,
            hidden_dim=32,
            conv_channels=8,
            mlp_dims=(32, 16),
            num_updates=4,
            episodes_per_update=16,
            validate_every=3,
            validation_samples=40,
        ),
        evaluation=replace(
            base.evaluation, num_samples=80, seeds=(0, 1), batch_size=40, classifier_steps=10
        ),
        checkpoint_every=4,
    )
