"""Data sets as prepared shards: those of publishers, and the generated `emoji-scenes`."""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adanat.data.emoji import EmojiFont, emoji_groups
from adanat.data.emoji_scenes import MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, paint, random_scene
from adanat.data.shards import INDEX_FILE, Index, read_index
from adanat.data.sources import SourceImages, load_source
from adanat.data.splits import split_indices
from adanat.data.writing import Sample, write_index, write_split
from adanat.errors import DataError
from adanat.progress import ProgressReporter
from adanat.seeding import derive_seed

EMOJI_SCENES = "emoji-scenes"
_JPEG_QUALITY = 95


def prepare_shards(source: str, folder: Path, *, data_dir: Path | None = None) -> Index:
    """Write a data set as shards of ``.png`` and ``.cls`` members; nothing when that is done.

    The same data give the same bytes. The index is written last, so a folder with an index is
    whole; without one, everything is written again.

    Args:
        source: Name of the data set, one of ``adanat.data.SOURCES``.
        folder: Where the shards go; created when absent.
        data_dir: Folder of the data set's files, for sources that have files.

    Raises:
        DataError: The source cannot be read, or the folder holds another one.
        StorageError: A shard could not be written.
    """
    if (found := _prepared(folder, source)) is not None:
        return found
    data = load_source(source, data_dir)
    splits = {
        split: write_split(folder, split, _array_samples(data, indices))
        for split, indices in split_indices(source, data).items()
    }
    index = Index(source, data.images.shape[1], data.class_names, splits)
    write_index(folder, index)
    return index


def make_emoji_scenes(
    folder: Path,
    *,
    image_size: int,
    num_images: Mapping[str, int],
    seed: int = 0,
    font: EmojiFont | None = None,
) -> Index:
    """Write `emoji-scenes` as img2dataset would: ``.jpg``, ``.txt``, ``.json``, and a ``.cls``.

    Captions say what is where ("a red apple left of two fish on a dark blue ground"); the class is
    the group of the emoji that is named first. A picture depends on (seed, split, its number), so
    that the splits share no seeds, and more images begin as fewer do. The same call gives the same
    bytes with the same versions of Pillow and of the font. Nothing is done where the folder has
    them already.

    Args:
        folder: where the shards go; created when absent.
        image_size: side in pixels, in [32, 512].
        num_images: images of each split, at least 1, such as `{"fit": 20000, "validation": 2000}`.
        seed: at least 0.
        font: draws the emoji; default: Noto Color Emoji from a known place.

    Raises:
        ValueError: a size, count or seed is out of range.
        DataError: the font is missing, or the folder holds other data.
        StorageError: a shard could not be written.
    """
    if not MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE:
        raise ValueError(
            f"image_size must be in [{MIN_IMAGE_SIZE}, {MAX_IMAGE_SIZE}], got {image_size}"
        )
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    for split, count in num_images.items():
        if count < 1:
            raise ValueError(f"the split {split!r} needs at least 1 image, got {count}")
    if (found := _prepared(folder, EMOJI_SCENES)) is not None:
        _refuse_other_scenes(folder, found, image_size, num_images, seed)
        return found
    font = font or EmojiFont()
    splits = {
        split: write_split(folder, split, _scene_samples(split, count, image_size, seed, font))
        for split, count in num_images.items()
    }
    index = Index(EMOJI_SCENES, image_size, tuple(emoji_groups()), splits, True, seed)
    write_index(folder, index)
    return index


def _prepared(folder: Path, source: str) -> Index | None:
    """The index of a folder that holds the source already."""
    if not (folder / INDEX_FILE).is_file():
        return None
    index = read_index(folder)
    if index.source != source:
        raise DataError(
            f"{folder} holds shards of {index.source!r}, not of {source!r}. "
            "Choose another folder or delete this one."
        )
    return index


def _refuse_other_scenes(
    folder: Path, found: Index, image_size: int, num_images: Mapping[str, int], seed: int
) -> None:
    counts = {name: sum(s.num_samples for s in shards) for name, shards in found.splits.items()}
    if (found.image_size, counts, found.seed) != (image_size, dict(num_images), seed):
        raise DataError(
            f"{folder} holds {counts} images of {found.image_size} pixels from seed {found.seed}, "
            f"not {dict(num_images)} of {image_size} from seed {seed}. "
            "Choose another folder or delete this one."
        )


def _array_samples(data: SourceImages, indices: NDArray[np.int64]) -> Iterator[Sample]:
    for index in indices.tolist():
        png = _encode(Image.fromarray(data.images[index]), "PNG")
        yield Sample(f"{index:09d}", {"png": png, "cls": b"%d" % data.labels[index]})


def _scene_samples(
    split: str, count: int, image_size: int, seed: int, font: EmojiFont
) -> Iterator[Sample]:
    with ProgressReporter(f"{EMOJI_SCENES} {split}", count) as progress:
        for number in range(count):
            random = np.random.default_rng(derive_seed(seed, f"{EMOJI_SCENES} {split}", number))
            scene = random_scene(random)
            key = f"{number:09d}"
            description = {
                "key": key,
                "status": "success",
                "caption": scene.caption,
                "width": image_size,
                "height": image_size,
                **scene.describe(),
            }
            # Full colour resolution: halved, the edges of small emoji would fray.
            image = _encode(
                paint(scene, image_size, font), "JPEG", quality=_JPEG_QUALITY, subsampling=0
            )
            yield Sample(
                key,
                {
                    "jpg": image,
                    "txt": scene.caption.encode(),
                    "json": json.dumps(description, ensure_ascii=False).encode(),
                    "cls": b"%d" % scene.label,
                },
            )
            progress.advance()


def _encode(image: Image.Image, image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()
