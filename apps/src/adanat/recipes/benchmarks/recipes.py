"""The published settings of the four benchmarks; what is ours or second-hand is marked.

Sources: the public repositories of AdaNAT, AutoNAT and AdaGen, and the papers. docs/benchmarks.md
tells the differences in a table.
"""

from dataclasses import replace

from advreward import AdversarialConfig
from natgen import NATTrainingConfig, nat_l, nat_text
from policyrl import PPOConfig
from vqtok import AdversarialTrainingConfig, TokenizerTrainingConfig, f16_vqgan

from adanat.recipes.base import (
    EvaluationRecipe,
    GeneratorRecipe,
    PolicyRecipe,
    PreparedRecipe,
    Recipe,
    RewardRecipe,
    ScheduleRecipe,
    TextRecipe,
    TokenizerRecipe,
    TokensRecipe,
)


def in256() -> Recipe:
    """ImageNet at 256 pixels: 16x16 codes, the large NAT, 8 steps."""
    nat = nat_l()
    return Recipe(
        name="in256",
        data=PreparedRecipe(source="imagenet", image_size=256, num_classes=1000),
        tokenizer=_tokenizer(256),
        tokens=TokensRecipe(mirrored=True),
        generator=GeneratorRecipe(
            embed_dim=nat.embed_dim,
            depth=nat.depth,
            num_heads=nat.num_heads,
            training=NATTrainingConfig(),  # AutoNAT's
            batch_size=2048,
        ),
        schedule=ScheduleRecipe(num_samples=5000, comparison_steps=(12, 16)),
        reward=RewardRecipe(
            adversarial=AdversarialConfig(),  # Adam 1e-4 (0.5, 0.999) with BCE
            backbone="dino",
            input_size=224,
            warmup_cycles=1,
            warmup_updates=60,  # ours: published without a warm-up
            updates_per_cycle=5,
            batch_size=256,
        ),
        policy=PolicyRecipe(
            ppo=PPOConfig.published(),
            hidden_dim=512,
            conv_channels=128,
            mlp_dims=(1024, 512),
            num_updates=1000,
            episodes_per_update=4096,
            rollout_batch_size=256,
            feature_dtype="bfloat16",  # ours: half the memory of 4,096 x 8 features
            validate_every=50,
            validation_samples=5000,
        ),
        evaluation=EvaluationRecipe(
            num_samples=50_000, seeds=(0,), feature_size=256, num_reference=10_000
        ),
        num_decoding_steps=8,
        precision="bf16",
        checkpoint_every=1000,
    )


def in512() -> Recipe:
    """ImageNet at 512 pixels: 32x32 codes, of which the large NAT sees 2x2 as one position.

    That patch size is second-hand; `--generator.patch-size` changes it.
    """
    base = in256()
    return replace(
        base,
        name="in512",
        data=replace(base.data, image_size=512),
        tokenizer=_tokenizer(512),
        tokens=replace(base.tokens, batch_size=64),
        generator=replace(base.generator, patch_size=2),
        policy=replace(base.policy, rollout_batch_size=128),
        evaluation=replace(base.evaluation, batch_size=100, num_reference=5000),
    )


def coco() -> Recipe:
    """MS-COCO at 256 pixels from captions, a NAT of 12 blocks, 8 steps.

    The size (46 to 57 M parameters) and CLIP ViT-L/14 as the encoder are second-hand.
    """
    base = in256()
    return replace(
        base,
        name="coco",
        data=PreparedRecipe(source="coco", image_size=256, num_classes=1),
        text=TextRecipe(encoder="clip:openai/clip-vit-large-patch14", num_tokens=77),
        generator=replace(base.generator, embed_dim=512, depth=12, num_heads=8),
        tokens=replace(base.tokens, mirrored=False),  # captions tell left from right
        evaluation=replace(base.evaluation, num_samples=30_000),
    )


def cc3m() -> Recipe:
    """CC3M at 256 pixels from captions, the text NAT, 8 steps, guidance up to 10, 150 updates."""
    base, nat = in256(), nat_text()
    return replace(
        base,
        name="cc3m",
        data=PreparedRecipe(source="cc3m", image_size=256, num_classes=1),
        text=TextRecipe(
            encoder="clip:laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", num_tokens=77, stored=False
        ),
        generator=replace(
            base.generator,
            embed_dim=nat.embed_dim,
            depth=nat.depth,
            num_heads=nat.num_heads,
        ),
        tokens=replace(base.tokens, mirrored=False),
        schedule=replace(base.schedule, guidance_scales=(0.0, 3.0, 10.0)),
        policy=replace(base.policy, num_updates=150),
        evaluation=replace(base.evaluation, num_samples=30_000),
    )


def _tokenizer(image_size: int) -> TokenizerRecipe:
    """The published f16 VQGAN. How it was trained is not published: these settings are ours."""
    return TokenizerRecipe(
        model=f16_vqgan(image_size),
        training=TokenizerTrainingConfig(
            learning_rate=1e-4,
            warmup_steps=5000,
            total_steps=300_000,
            perceptual_weight=1.0,
            ema_decay=0.9999,
            adversarial=AdversarialTrainingConfig(start_step=50_000),
        ),
        batch_size=256,
        perceptual_size=image_size,
    )
