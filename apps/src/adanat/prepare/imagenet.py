"""ImageNet (ILSVRC 2012) from class folders, the published tar files, or Hugging Face parquet.

Labels are the positions of the WordNet ids in ascending order, as everybody counts them; the
devkit's own ids are another order and are translated.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from adanat.errors import DataError
from adanat.prepare.items import Item, Readable, Source
from adanat.prepare.members import NamedMember, file_member, tar_members

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_EXTENSIONS = (".jpeg", ".jpg", ".png", ".webp")
_PARQUET_PREFIXES = {"train": "train", "val": "validation"}
WHERE_TO_GET = (
    f"{TRAIN_TAR}, {VAL_TAR} and {DEVKIT} from https://image-net.org (after registration), class "
    "folders train/WNID/*.JPEG and val/WNID/*.JPEG made of them, or the parquet files of "
    "https://huggingface.co/datasets/ILSVRC/imagenet-1k"
)


def list_imagenet(folder: Path, num_classes: int = 1000) -> Source:
    """List the training and validation images below a folder, in whichever form they are there.

    Each split is taken from its class folders, else its tar file, else its parquet files.

    Args:
        folder: Holds ``train`` and ``val`` folders, the published tar files with the devkit, or
            parquet files (also below ``data/``).
        num_classes: How many classes there must be.

    Raises:
        DataError: A split is missing, damaged, or has other classes.
    """
    splits: dict[str, Sequence[Item]] = {}
    names: tuple[str, ...] = ()
    for split in ("train", "val"):
        if (folder / split).is_dir():
            found, names_here = _from_folders(folder / split, folder / DEVKIT)
        elif (folder / (TRAIN_TAR if split == "train" else VAL_TAR)).is_file():
            found, names_here = _from_tar(folder, split)
        elif paths := _parquet_files(folder, _PARQUET_PREFIXES[split]):
            found, names_here = _from_parquet(paths, split)
        else:
            raise DataError(f"{folder} has no {split} images. It must hold {WHERE_TO_GET}.")
        if not found:
            raise DataError(f"the {split} images in {folder} are 0 files: is it the right folder?")
        if len(names_here) != num_classes:
            raise DataError(
                f"the {split} images in {folder} have {len(names_here)} classes, expected "
                f"{num_classes}: fetch what is missing, or give --num-classes {len(names_here)}"
            )
        if names and names != names_here:
            raise DataError(
                f"train and val in {folder} have different classes: "
                f"{sorted(set(names) ^ set(names_here))[:5]}"
            )
        splits[split], names = found, names_here
    return Source(splits, names, {})


def _labelled(members: Mapping[str, list[tuple[str, Readable]]]) -> list[Item]:
    """Pictures by class name to items; labels are the places of the sorted names."""
    return [
        Item(_key(name), image, {"cls": str(label)})
        for label, wnid in enumerate(sorted(members))
        for name, image in sorted(members[wnid], key=lambda pair: pair[0])
    ]


def _key(name: str) -> str:
    return Path(name).stem.replace(".", "_")


def _is_picture(name: str) -> bool:
    return name.lower().endswith(_EXTENSIONS) and not Path(name).name.startswith(".")


def _from_folders(folder: Path, devkit: Path) -> tuple[list[Item], tuple[str, ...]]:
    try:
        classes = sorted(path for path in folder.iterdir() if path.is_dir())
        if not classes:  # flat, as the validation tar unpacks
            flat = sorted(path for path in folder.iterdir() if _is_picture(path.name))
            files = [NamedMember(path.name, file_member(path)) for path in flat]
            return _with_ground_truth(files, devkit)
        found: dict[str, list[tuple[str, Readable]]] = {
            path.name: [
                (file.name, file_member(file)) for file in path.iterdir() if _is_picture(file.name)
            ]
            for path in classes
        }
    except OSError as error:
        raise DataError(f"cannot list {error.filename}: {error.strerror}") from error
    return _labelled(found), tuple(sorted(found))


def _from_tar(folder: Path, split: str) -> tuple[list[Item], tuple[str, ...]]:
    if split == "val":
        pictures = [m for m in tar_members(folder / VAL_TAR) if _is_picture(m.name)]
        return _with_ground_truth(pictures, folder / DEVKIT)
    path = folder / TRAIN_TAR
    found: dict[str, list[tuple[str, Readable]]] = {
        Path(archive.name).stem: [
            (picture.name, picture.member)
            for picture in tar_members(path, archive.member)
            if _is_picture(picture.name)
        ]
        for archive in tar_members(path)
        if archive.name.endswith(".tar")
    }
    return _labelled(found), tuple(sorted(found))


def _with_ground_truth(
    pictures: Sequence[NamedMember], devkit: Path
) -> tuple[list[Item], tuple[str, ...]]:
    """The flat validation images; the n-th in order of their names has the n-th label."""
    wnids = _validation_wnids(devkit)
    if len(wnids) != len(pictures):
        raise DataError(
            f"there are {len(pictures)} validation images but {len(wnids)} labels in {devkit}: "
            "fetch the missing images again"
        )
    found: dict[str, list[tuple[str, Readable]]] = {}
    for picture, wnid in zip(sorted(pictures), wnids, strict=True):
        found.setdefault(wnid, []).append((picture.name, picture.member))
    return _labelled(found), tuple(sorted(found))


def _validation_wnids(devkit: Path) -> list[str]:
    """WordNet ids of the validation images, by the devkit's table of its own ids."""
    if not devkit.is_file():
        raise DataError(
            f"the flat validation images need {devkit} for their labels: get it from "
            "https://image-net.org, or sort the images into class folders"
        )
    from scipy.io import loadmat  # slow to import, and every command of a run knows this module

    try:
        with tarfile.open(devkit) as archive:
            parts = {Path(name).name: name for name in archive.getnames()}
            meta = _member_bytes(archive, parts["meta.mat"])
            truth = _member_bytes(archive, parts["ILSVRC2012_validation_ground_truth.txt"])
        table = loadmat(io.BytesIO(meta), squeeze_me=True)  # type: ignore[arg-type]  # or a file
        synsets = table["synsets"]
        wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        return [wnid_of[int(line)] for line in truth.split()]
    except (tarfile.TarError, OSError, KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{devkit} is damaged or no ILSVRC 2012 devkit: {error!r}") from error


def _member_bytes(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()


class ParquetCell(NamedTuple):
    """The picture in one row of a parquet file, as Hugging Face's `datasets` stores it."""

    path: str
    row_group: int
    row: int

    def read(self) -> bytes:
        """The picture's bytes; neighbouring rows are fetched together. ValueError without one."""
        data = _pictures(self.path, self.row_group)[self.row].as_py()
        if not data or data.get("bytes") is None:
            raise ValueError("the row has no image")
        return bytes(data["bytes"])


@lru_cache(maxsize=1)  # rows are read in order
def _pictures(path: str, row_group: int) -> Any:
    try:
        with pq.ParquetFile(path) as file:
            return file.read_row_group(row_group, columns=["image"]).column("image")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {path}, row group {row_group}: {error}") from error


def _parquet_files(folder: Path, prefix: str) -> list[Path]:
    return sorted({*folder.glob(f"{prefix}-*.parquet"), *folder.glob(f"data/{prefix}-*.parquet")})


def _from_parquet(paths: Sequence[Path], split: str) -> tuple[list[Item], tuple[str, ...]]:
    items: list[Item] = []
    names: tuple[str, ...] = ()
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                columns = file.schema_arrow.names
                if missing := {"image", "label"} - set(columns):
                    raise DataError(f"{path} has no column {sorted(missing)}; it has {columns}")
                names = names or _label_names(file.schema_arrow)
                for group in range(file.num_row_groups):
                    labels = file.read_row_group(group, columns=["label"]).column("label")
                    for row, label in enumerate(labels.to_pylist()):
                        cell = ParquetCell(str(path), group, row)
                        key = f"{split}-{len(items):08d}"
                        items.append(Item(key, cell, {"cls": str(label)}))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is damaged or no parquet file: {error}") from error
    used = {item.texts["cls"] for item in items}
    names = names or tuple(str(label) for label in range(len(used)))
    if wrong := used - {str(label) for label in range(len(names))}:
        raise DataError(
            f"{paths[0].parent} has labels outside 0 to {len(names) - 1}: {sorted(wrong)[:5]}"
        )
    return items, names


def _label_names(schema: pa.Schema) -> tuple[str, ...]:
    """Class names that `datasets` wrote into the file, if it did."""
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        return tuple(json.loads(metadata)["info"]["features"]["label"]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
