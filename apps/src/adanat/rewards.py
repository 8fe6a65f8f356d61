"""Joins what no package may join alone: tokens, their pictures, and the reward of those."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from advreward import (
    AdversarialReward,
    Augmenter,
    Discriminator,
    DiscriminatorConfig,
    DiversityReward,
    FrechetReward,
    FrozenFeatures,
    FrozenViT,
    GaussianStatistics,
    MixtureReward,
    RewardModel,
    dino_vit_s16,
    efficientnet_lite,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from vqtok import Tokenizer

from adanat.adversary import Adversary, Embedded, concatenate
from adanat.errors import AdanatError, StageError
from adanat.generation import decode_grids, from_uint8
from adanat.recipes.base import RewardRecipe
from adanat.run import Run, evenly
from adanat.scorers import pretrained_reward
from adanat.seeding import derive_seed

Backbone = FrozenFeatures | FrozenViT


class PictureReward:
    """Pays finished token grids by their pictures.

    Args:
        tokenizer: turns tokens into pictures.
        mixture: pays pictures.
    """

    def __init__(self, tokenizer: Tokenizer, mixture: MixtureReward) -> None:
        self._tokenizer = tokenizer
        self._mixture = mixture
        self._paid: list[dict[str, Tensor]] = []

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Reward (B,) of `tokens` (B, h, w) under the conditions beside them."""
        images = decode_grids(self._tokenizer, outcome["tokens"])
        parts = self._mixture.parts({**outcome, "images": images})
        self._paid.append(parts)
        return self._mixture.combine(parts)

    def take_means(self) -> dict[str, float]:
        """Mean of each part of the mixture over the batches since the last call."""
        names = self._paid[0] if self._paid else {}
        means = {
            name: torch.cat([parts[name] for parts in self._paid]).mean().item() for name in names
        }
        self._paid.clear()
        return means


def build_reward(
    run: Run, tokenizer: Tokenizer, seed: int
) -> tuple[PictureReward, Adversary | None]:
    """The reward that the recipe describes, and its adversary where it has one."""
    recipe = run.recipe.reward
    backbone = load_backbone(recipe).to(run.device) if recipe.needs_backbone else None
    adversary: Adversary | None = None
    main: RewardModel
    if recipe.design == "pretrained" or backbone is None:
        main = pretrained_reward(run, seed)
    elif recipe.design == "adversarial":
        main = adversary = _adversary(run, backbone, tokenizer, seed)
    else:
        main = _frechet_reward(run, backbone, tokenizer)
    rewards: dict[str, RewardModel] = {recipe.design: main}
    weights: dict[str, float] = {recipe.design: 1.0}
    if backbone is not None and recipe.diversity_weight:
        rewards["diversity"] = DiversityReward(backbone.pooled, batch_size=_batch_size(recipe))
        weights["diversity"] = recipe.diversity_weight
    mixture = MixtureReward(rewards, weights, standardize=len(rewards) > 1)
    return PictureReward(tokenizer, mixture), adversary


def _batch_size(recipe: RewardRecipe) -> int:
    return recipe.adversarial.extract_batch_size


def load_backbone(recipe: RewardRecipe) -> Backbone:
    """The frozen network on whose features the reward rests; DINO may have to be fetched."""
    if recipe.backbone == "lite0":
        return efficientnet_lite("lite0", input_size=recipe.input_size)
    path = Path(recipe.dino_weights)
    weights = path if path.exists() else recipe.dino_weights
    return dino_vit_s16(weights, input_size=recipe.input_size)


def trained_reward(run: Run, seed: int, *, captions: Sequence[str] | None = None) -> RewardModel:
    """The reward at the end of a policy's training, to keep the best of several samples by.

    A weight of diversity is left out: it is a matter of the batch.

    Args:
        run: a run with a trained policy.
        seed: the policy's.
        captions: as `adanat.scorers.pretrained_reward` takes them.

    Raises:
        StageError: the policy is not trained, or its discriminator's file is missing or damaged.
        AdanatError: the design pays whole batches, so it cannot judge an image.
    """
    run.require(run.stages.policies[seed])
    design = run.recipe.reward.design
    if design == "pretrained":
        return pretrained_reward(run, seed, captions=captions)
    if design == "frechet":
        raise AdanatError(
            "the reward of design 'frechet' pays whole batches and cannot judge one image: train "
            "with --reward.design adversarial or pretrained"
        )
    reward = _adversarial_reward(run, load_backbone(run.recipe.reward).to(run.device), seed)
    path = discriminator_file(run, seed)
    try:
        reward.discriminator.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise StageError(f"cannot load the discriminator in {path}: {error}") from error
    return reward


def save_discriminator(run: Run, seed: int, adversary: Adversary) -> None:
    """Keep what `trained_reward` needs beside the policy."""
    state = adversary.reward.discriminator.state_dict()
    save_file({name: x.contiguous() for name, x in state.items()}, discriminator_file(run, seed))


def discriminator_file(run: Run, seed: int) -> Path:
    """Where the discriminator of a policy's training lies."""
    return run.folder.policy(seed) / "discriminator.safetensors"


def _adversarial_reward(run: Run, backbone: Backbone, seed: int) -> AdversarialReward:
    recipe = run.recipe.reward
    sizes = run.conditions("fit").sizes
    discriminator = Discriminator(
        DiscriminatorConfig(
            channels=backbone.channels,
            num_classes=sizes.num_classes,
            condition_dim=sizes.pooled_dim,
        )
    ).to(run.device)
    augmenter = (
        Augmenter(recipe.augmentation, derive_seed(seed, "augmentation"))
        if recipe.augmented_copies
        else None
    )
    run.engine.follow(discriminator)
    return AdversarialReward(
        backbone, discriminator, recipe.adversarial, run.engine, augmenter=augmenter
    )


def _adversary(run: Run, backbone: Backbone, tokenizer: Tokenizer, seed: int) -> Adversary:
    recipe = run.recipe.reward
    reward = _adversarial_reward(run, backbone, seed)

    def embedded(split: str, count: int, copies: int) -> Embedded:
        return concatenate(
            Embedded(
                reward.extract_augmented(images, copies),
                conditions.repeat(copies, *[1] * (conditions.ndim - 1)),
            )
            for images, conditions in _real_images(run, tokenizer, split, count)
        )

    return Adversary(
        reward,
        embedded("fit", recipe.num_real, max(1, recipe.augmented_copies)),
        embedded("validation", recipe.num_heldout, 1),
        recipe,
        derive_seed(seed, "discriminator batches"),
        run.engine.rows(recipe.batch_size),
    )


def _frechet_reward(run: Run, backbone: Backbone, tokenizer: Tokenizer) -> FrechetReward:
    recipe = run.recipe.reward
    with torch.no_grad():
        features = torch.cat(
            [
                backbone.pooled(images)
                for images, _ in _real_images(run, tokenizer, "fit", recipe.num_real)
            ]
        )
    return FrechetReward(
        backbone.pooled,
        GaussianStatistics.of(features),
        num_components=recipe.frechet_components,
        batch_size=_batch_size(recipe),
    )


def _real_images(
    run: Run, tokenizer: Tokenizer, split: str, count: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Real images of a split, (B, 3, H, W) in [0, 1], and their conditions, in batches.

    The conditions are the discriminator's: labels (B,), or pooled text features (B, P).
    """
    recipe, conditions = run.recipe.reward, run.conditions(split)
    if recipe.real_side == "images":
        data = run.images(split)
        for rows in _numbers(count, len(data.labels)).split(_batch_size(recipe)):
            condition = conditions.of_items({"labels": data.labels[rows], "images": rows}).judge
            yield from_uint8(data.images[rows].to(run.device)), condition.to(run.device)
        return
    store = run.tokens(split)
    for rows in _numbers(count, len(store)).split(_batch_size(recipe)):
        codes, items = store.batch(rows)
        condition = conditions.of_items(items).judge
        yield decode_grids(tokenizer, codes.to(run.device)), condition.to(run.device)


def _numbers(count: int, total: int) -> Tensor:
    return torch.arange(total)[evenly(count, total)]
