"""Stage `data`: the data set as webdataset shards."""

from adanat.data import prepare_shards
from adanat.run import Run


def prepare_data(run: Run) -> None:
    """Write the shards of the recipe's data source."""
    stage = run.stages.data
    if stage.is_done():
        return
    with stage:
        index = prepare_shards(run.recipe.data.source, run.folder.data, data_dir=run.data_dir)
        sizes = {
            split: sum(shard.num_samples for shard in shards)
            for split, shards in index.splits.items()
        }
        stage.finish({"images": sizes, "class_names": list(index.class_names)})
