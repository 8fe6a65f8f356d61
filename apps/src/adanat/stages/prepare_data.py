"""Stage `data`: the data set as webdataset shards."""

from pathlib import Path
from typing import Any

from adanat.data import FONT_NAME, EmojiFont, Index, make_emoji_scenes, prepare_shards
from adanat.errors import DataError
from adanat.prepare import read_prepared
from adanat.recipes.base import EmojiScenesRecipe, PreparedRecipe
from adanat.run import Run


def prepare_data(run: Run) -> None:
    """Write the shards of the recipe's data source."""
    stage = run.stages.data
    if stage.is_done():
        return
    with stage:
        if not run.engine.is_main:
            return
        if isinstance(run.recipe.data, PreparedRecipe):
            stage.finish(_find_prepared(run.recipe.data, run.data_dir))
            return
        index = _prepare(run)
        sizes = {
            split: sum(shard.num_samples for shard in shards)
            for split, shards in index.splits.items()
        }
        stage.finish({"images": sizes, "class_names": list(index.class_names)})


def _find_prepared(recipe: PreparedRecipe, data_dir: Path | None) -> dict[str, Any]:
    """What `adanat prepare` has left; nothing is copied."""
    command = f"adanat prepare {recipe.source} --output DIR"
    if data_dir is None:
        raise DataError(
            f"{recipe.source} must be prepared once: run `{command}` (its --help says from what), "
            "then give this command --data-dir DIR"
        )
    index = read_prepared(data_dir)
    if index.dataset != recipe.source:
        raise DataError(f"{data_dir} holds {index.dataset}, not {recipe.source}: run `{command}`")
    return {
        "prepared": str(data_dir.resolve()),
        "fingerprint": index.fingerprint,
        "images": dict(index.splits),
        "class_names": list(index.class_names) or ["any"],
    }


def _prepare(run: Run) -> Index:
    recipe = run.recipe.data
    if not isinstance(recipe, EmojiScenesRecipe):
        return prepare_shards(recipe.source, run.folder.data, data_dir=run.data_dir)
    return make_emoji_scenes(
        run.folder.data,
        image_size=recipe.image_size,
        num_images=recipe.num_images,
        seed=recipe.seed,
        font=None if run.data_dir is None else EmojiFont(run.data_dir / FONT_NAME),
    )
