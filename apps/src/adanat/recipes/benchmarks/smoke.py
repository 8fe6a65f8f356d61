"""A trial run of a benchmark: every stage with the true shapes, one update each, without its data.

Stand-ins in exactly the data sets' published formats pass through the same preparation.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from vqtok import AdversarialTrainingConfig

from adanat.checkpoints import atomic_write_text
from adanat.data import EmojiFont, paint, random_scene
from adanat.errors import AdanatError
from adanat.prepare import Preparation, PreparedIndex, prepare_cc3m, prepare_coco, prepare_imagenet
from adanat.prepare.index import INDEX_FILE
from adanat.recipes.base import Recipe
from adanat.recipes.benchmarks.published_formats import (
    Picture,
    write_coco,
    write_imagenet,
    write_img2dataset,
)

_CLASSES = 2
_HELD_OUT = 4
"""Images of the validation and of the test split."""
_TRAIN = 4
_MEASURED = 2
"""Images on which schedule and discriminator are measured on the way."""
_STEPS = 2
"""Decoding steps T."""
_TEXT_DEPTH = 4
_PUBLISHED_MARK = "complete"


def smoke(recipe: Recipe, depth: int | None = None) -> Recipe:
    """The recipe at one optimizer step a stage, batch 1, T = 2, two trajectories, four samples.

    Sizes stay those of the recipe, except that the class table has the stand-in's two classes, the
    text NAT four blocks, and that the frozen networks are those that need no download.

    Args:
        recipe: A benchmark.
        depth: Blocks of the NAT, even; None: the recipe's, or four for text.
    """
    by_class = recipe.text.encoder is None
    tokenizer_training = replace(
        recipe.tokenizer.training,
        warmup_steps=0,
        total_steps=1,
        adversarial=AdversarialTrainingConfig(),
    )
    return replace(
        recipe,
        name=f"{recipe.name}-smoke",
        data=replace(recipe.data, num_classes=_CLASSES if by_class else 1),
        text=recipe.text
        if by_class
        else replace(recipe.text, encoder="hashed", stored=True, scorer_steps=2),
        tokenizer=replace(recipe.tokenizer, training=tokenizer_training, batch_size=1),
        tokens=replace(recipe.tokens, mirrored=False, batch_size=2, num_verified=1),
        generator=replace(
            recipe.generator,
            depth=depth or (recipe.generator.depth if by_class else _TEXT_DEPTH),
            training=replace(recipe.generator.training, warmup_steps=0, total_steps=1),
            batch_size=1,
        ),
        schedule=replace(
            recipe.schedule,
            remask_temperatures=(4.5,),
            sampling_temperatures=(1.0,),
            guidance_scales=(3.0,),  # the published schedule, so that nothing is searched
            num_samples=_MEASURED,
            refinement_rounds=0,
            comparison_steps=(),
        ),
        reward=replace(
            recipe.reward,
            backbone="lite0",
            num_real=_TRAIN,
            num_heldout=_MEASURED,
            warmup_cycles=0,
            updates_per_cycle=1,
            batch_size=2,
        ),
        policy=replace(
            recipe.policy,
            num_updates=1,
            episodes_per_update=2,
            rollout_batch_size=2,
            validate_every=1,
            validation_samples=_HELD_OUT,  # precision and recall look at the third neighbour
        ),
        evaluation=replace(
            recipe.evaluation,
            num_samples=_HELD_OUT,
            seeds=(0,),
            batch_size=_HELD_OUT,
            classifier_steps=1,
        ),
        num_decoding_steps=_STEPS,
        precision="no",
    )


def prepare_stand_in(recipe: Recipe, folder: Path) -> Path:
    """Write emoji scenes in the published format of the recipe's data set, and prepare them.

    Args:
        recipe: A benchmark at smoke size.
        folder: Where they go; finished stand-ins there are kept.

    Returns:
        The prepared folder, for `--data-dir`.

    Raises:
        AdanatError: There is no stand-in for that data set.
    """
    published, prepared = folder / "published", folder / "prepared"
    if not (published / _PUBLISHED_MARK).is_file():
        shutil.rmtree(published, ignore_errors=True)  # of an interrupted run
        _write(recipe, published)
        atomic_write_text(published / _PUBLISHED_MARK, "")
    preparation = Preparation(
        output=prepared, num_validation=_HELD_OUT, workers=0, items_per_shard=_TRAIN
    )
    if not (prepared / INDEX_FILE).is_file():
        _prepare(recipe.data.source, published, preparation)
    return prepared


def _write(recipe: Recipe, folder: Path) -> None:
    train = _pictures(recipe.data.image_size, _TRAIN + _HELD_OUT, seed=0)
    test = _pictures(recipe.data.image_size, _HELD_OUT, seed=1)
    if recipe.data.source == "imagenet":
        write_imagenet(folder, train, test)
    elif recipe.data.source == "coco":
        write_coco(folder, train, test)
    elif recipe.data.source == "cc3m":
        write_img2dataset(folder / "train", train, per_shard=_TRAIN, missing=2)
        write_img2dataset(folder / "val", test)
    else:
        raise AdanatError(f"there is no stand-in for the data set {recipe.data.source!r}")


def _prepare(source: str, published: Path, preparation: Preparation) -> PreparedIndex:
    if source == "imagenet":
        return prepare_imagenet(published, preparation, _CLASSES)
    if source == "coco":
        return prepare_coco(published, preparation)
    shards = [str(published / split / "*.tar") for split in ("train", "val")]
    return prepare_cc3m([shards[0]], [shards[1]], preparation)


def _pictures(image_size: int, count: int, seed: int) -> list[Picture]:
    """Emoji scenes in a frame of another shape than square, as photographs have."""
    random, font = np.random.default_rng(seed), EmojiFont()
    pictures = []
    for number in range(count):
        scene = random_scene(random)
        image = paint(scene, image_size, font)
        wide = image.resize((image_size + image_size // 4, image_size))
        pictures.append(Picture(wide, number % _CLASSES, (scene.caption,) * 5))
    return pictures
