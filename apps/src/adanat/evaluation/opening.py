"""From what a user names to images: a folder, an archive, shards."""

from pathlib import Path

from adanat.errors import DataError
from adanat.evaluation.archives import NpzSource, ShardSource
from adanat.evaluation.sources import FolderSource, Source
from adanat.prepare.storage import expand_shards


def open_images(where: str) -> Source:
    """Open what a user names.

    Args:
        where: A folder of images, a folder of `.tar` shards, one shard, a pattern such as
            `data/test-*.tar` or `data/test-{000000..000049}.tar`, or an ADM-style `.npz`.

    Raises:
        DataError: There is nothing, or nothing that holds images.
    """
    path = Path(where)
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        return ShardSource(shards) if shards else FolderSource(path)
    if path.is_file():
        if path.suffix == ".npz":
            return NpzSource(path)
        if path.suffix == ".tar":
            return ShardSource([path])
        raise DataError(f"{path} is neither a folder nor an .npz nor a .tar file")
    if any(mark in where for mark in "*?[{"):
        return ShardSource([Path(shard) for shard in expand_shards([where])])
    raise DataError(
        f"there is no {where}: name a folder of images, an .npz with arr_0, a .tar shard, or a "
        "pattern of shards in quotes, such as 'data/test-*.tar'"
    )
