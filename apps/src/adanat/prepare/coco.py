"""MS-COCO 2014: folders of images and one file of captions for each split."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from adanat.errors import DataError
from adanat.prepare.items import Item, Source
from adanat.prepare.members import file_member

CAPTIONS_PER_IMAGE = 5
_FOLDERS = {"train": "train2014", "val": "val2014"}
WHERE_TO_GET = (
    "train2014.zip, val2014.zip and annotations_trainval2014.zip from https://cocodataset.org, "
    "unpacked to train2014/, val2014/ and annotations/captions_{train,val}2014.json"
)


def list_coco(folder: Path) -> Source:
    """List images with their first five captions, in the order of the captions' ids.

    An image with fewer captions repeats them from the first; one without any is passed over and
    counted in ``notes``. One whose file is missing is listed: it cannot be read.

    Args:
        folder: Holds ``train2014``, ``val2014`` and ``annotations``.

    Raises:
        DataError: A folder or file is missing or damaged.
    """
    notes: Counter[str] = Counter()
    splits = {split: _list_split(folder, name, notes) for split, name in _FOLDERS.items()}
    return Source(splits, (), notes)


def _list_split(folder: Path, name: str, notes: Counter[str]) -> list[Item]:
    images = folder / name
    annotations = folder / "annotations" / f"captions_{name}.json"
    for path, there in ((images, images.is_dir()), (annotations, annotations.is_file())):
        if not there:
            raise DataError(f"{path} is missing. COCO is {WHERE_TO_GET}.")
    file_names, captions = _read_annotations(annotations)
    items = []
    for image_id, file_name in sorted(file_names.items()):
        texts = [text for _, text in sorted(captions.get(image_id, [])) if text]
        path = images / Path(file_name).name
        if not texts:
            notes["image without captions"] += 1
            continue
        if len(texts) < CAPTIONS_PER_IMAGE:
            notes[f"image with fewer than {CAPTIONS_PER_IMAGE} captions"] += 1
        chosen = [texts[i % len(texts)] for i in range(CAPTIONS_PER_IMAGE)]
        described = json.dumps(
            {"image_id": image_id, "file_name": file_name, "captions": chosen}, ensure_ascii=False
        )
        items.append(
            Item(
                path.stem.replace(".", "_"),
                file_member(path) if path.is_file() else _MissingFile(),
                {"txt": "\n".join(chosen), "json": described},
            )
        )
    notes["caption of an unknown image"] += len(captions.keys() - file_names.keys())
    if not items:
        raise DataError(f"{annotations} has no image with captions")
    return items


class _MissingFile(NamedTuple):
    """In the place of a picture that is described and not there."""

    def read(self) -> bytes:
        """Raises ValueError: the preparation skips the sample and counts it."""
        raise ValueError("the image file is missing")


def _read_annotations(path: Path) -> tuple[dict[int, str], dict[int, list[tuple[int, str]]]]:
    """File names by image id, and (caption id, caption) by image id."""
    try:
        found: Any = json.loads(path.read_bytes())
        file_names = {int(image["id"]): str(image["file_name"]) for image in found["images"]}
        captions: dict[int, list[tuple[int, str]]] = {}
        for row in found["annotations"]:
            caption = " ".join(row["caption"].split())
            captions.setdefault(int(row["image_id"]), []).append((int(row["id"]), caption))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged or no COCO captions file: {error!r}") from error
    return file_names, captions
