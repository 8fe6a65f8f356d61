"""Stage `data`: the data set as webdataset shards."""

from adanat.data import FONT_NAME, EmojiFont, Index, make_emoji_scenes, prepare_shards
from adanat.recipes.base import EmojiScenesRecipe
from adanat.run import Run


def prepare_data(run: Run) -> None:
    """Write the shards of the recipe's data source."""
    stage = run.stages.data
    if stage.is_done():
        return
    with stage:
        index = _prepare(run)
        sizes = {
            split: sum(shard.num_samples for shard in shards)
            for split, shards in index.splits.items()
        }
        stage.finish({"images": sizes, "class_names": list(index.class_names)})


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
