"""The three data sets of the benchmarks, from what their publishers ship to an index."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adanat.checkpoints import atomic_write_json, read_json
from adanat.errors import DataError
from adanat.prepare.coco import CAPTIONS_PER_IMAGE, list_coco
from adanat.prepare.imagenet import list_imagenet
from adanat.prepare.index import (
    INDEX_FILE,
    PreparedIndex,
    ShardFile,
    hold_out,
    read_prepared,
    without_duplicates,
    write_index,
)
from adanat.prepare.items import Source
from adanat.prepare.scanning import SAMPLE_DTYPE, scan_shards
from adanat.prepare.storage import expand_shards, local_shards
from adanat.prepare.writing import PARTS_FOLDER, SkipBudget, write_shards
from adanat.progress import ProgressReporter

_SETTINGS_FILE = "settings.json"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a data set is prepared.

    Attributes:
        output: Folder of the index and of the shards that are written.
        num_validation: Training samples held out for tuning and choosing.
        image_size: Crop to this side as ADM does and store PNG, which saves reading and cropping
            later; None: pictures stay as published, and every size can be read from them. The
            pixels that training sees are the same either way.
        workers: Processes.
        max_bad_fraction: Part of the data set that may be unusable and is skipped.
        items_per_shard: Samples in one shard.
    """

    output: Path
    num_validation: int = 10_000
    image_size: int | None = None
    workers: int = 8
    max_bad_fraction: float = 0.001
    items_per_shard: int = 2000

    def __post_init__(self) -> None:
        for name, least in (
            ("num_validation", 1),
            ("image_size", 1),
            ("workers", 0),
            ("max_bad_fraction", 0),
            ("items_per_shard", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")


def prepare_imagenet(
    source: Path, preparation: Preparation, num_classes: int = 1000
) -> PreparedIndex:
    """ImageNet from folders, tar files or parquet; the published validation images are ``test``.

    Args:
        source: Folder of the published files, see `imagenet.list_imagenet`.
        preparation: How.
        num_classes: How many classes there must be.

    Raises:
        DataError: The source is incomplete or damaged, or too much of it is unusable.
        StorageError: A shard could not be written.
    """
    if done := _finished(preparation, "imagenet"):
        return done
    return _write_source("imagenet", list_imagenet(source, num_classes), preparation)


def prepare_coco(source: Path, preparation: Preparation) -> PreparedIndex:
    """COCO 2014 with five captions an image; the published validation images are ``test``.

    Raises:
        DataError: The source is incomplete or damaged, or too much of it is unusable.
        StorageError: A shard could not be written.
    """
    if done := _finished(preparation, "coco"):
        return done
    return _write_source("coco", list_coco(source), preparation)


def prepare_cc3m(
    train: Sequence[str],
    test: Sequence[str],
    preparation: Preparation,
    *,
    allow_commands: bool = False,
    timeout: float = 60.0,
) -> PreparedIndex:
    """CC3M as img2dataset left it: its shards are indexed where they are, nothing is rewritten.

    Args:
        train: Shards of the training images: paths, wildcards, ``{0..9}`` ranges, http(s).
        test: Shards of the validation images.
        preparation: How; ``image_size`` and ``items_per_shard`` have no use here.
        allow_commands: Whether ``pipe:`` entries may run commands.
        timeout: Seconds without a byte after which a source counts as stuck.

    Raises:
        DataError: A shard is missing or damaged, or too many samples are unusable.
    """
    if done := _finished(preparation, "cc3m"):
        return done
    paths = {
        name: local_shards(
            expand_shards(patterns),
            preparation.output / name,
            allow_commands=allow_commands,
            timeout=timeout,
        )
        for name, patterns in (("train", train), ("val", test))
    }
    return _index_shards("cc3m", paths, preparation, (), {}, check_images=True)


def _finished(preparation: Preparation, dataset: str) -> PreparedIndex | None:
    if not (preparation.output / INDEX_FILE).is_file():
        return None
    index = read_prepared(preparation.output)
    if (index.dataset, index.image_size) != (dataset, preparation.image_size):
        raise DataError(
            f"{preparation.output} holds {index.dataset} at image size {index.image_size}, not "
            f"{dataset} at {preparation.image_size}: choose another --output"
        )
    if index.num_validation not in (None, preparation.num_validation):
        raise DataError(
            f"{preparation.output} was prepared with --num-validation {index.num_validation}, now "
            f"it is {preparation.num_validation}: choose another --output, or delete {INDEX_FILE} "
            "there to divide the samples anew"
        )
    return index


def _write_source(dataset: str, source: Source, preparation: Preparation) -> PreparedIndex:
    output = preparation.output
    _keep_settings(dataset, source, preparation)
    total = sum(map(len, source.splits.values()))
    budget = SkipBudget(int(total * preparation.max_bad_fraction))
    paths = {
        split: [
            output / shard.name
            for shard in write_shards(
                output,
                split,
                items,
                image_size=preparation.image_size,
                items_per_shard=preparation.items_per_shard,
                workers=preparation.workers,
                budget=budget,
            )
        ]
        for split, items in source.splits.items()
    }
    counts = {"skipped": budget.reasons(), "notes": dict(source.notes)}
    index = _index_shards(
        dataset, paths, preparation, source.class_names, counts, check_images=False
    )
    shutil.rmtree(output / PARTS_FOLDER)
    return index


def _keep_settings(dataset: str, source: Source, preparation: Preparation) -> None:
    """Refuse to go on with shards that were begun from other files or with other settings."""
    settings = {
        "dataset": dataset,
        "items": {split: len(items) for split, items in source.splits.items()},
        "image_size": preparation.image_size,
        "items_per_shard": preparation.items_per_shard,
    }
    path = preparation.output / PARTS_FOLDER / _SETTINGS_FILE
    if path.is_file() and (found := read_json(path)) != settings:
        raise DataError(
            f"{preparation.output} was begun with {found}, now it is {settings}: "
            "choose another --output, or delete it"
        )
    atomic_write_json(path, settings)


def _index_shards(
    dataset: str,
    paths: Mapping[str, Sequence[Path]],
    preparation: Preparation,
    class_names: tuple[str, ...],
    counts: Mapping[str, object],
    *,
    check_images: bool,
) -> PreparedIndex:
    """Find the samples of all shards and divide them into the splits."""
    shards: list[ShardFile] = []
    tables: dict[str, NDArray[np.void]] = {}
    skipped: list[str] = []
    missing = 0
    for split, files in paths.items():
        found: list[NDArray[np.void]] = [np.empty(0, SAMPLE_DTYPE)]
        keys: list[str] = []
        scans = scan_shards(
            files,
            num_classes=len(class_names) or None,
            check_images=check_images,
            workers=preparation.workers if check_images else 0,
        )
        with ProgressReporter(f"index {split}", len(files)) as progress:
            for path, scan in zip(files, scans, strict=True):
                scan.samples["shard"] = len(shards)
                shards.append(_shard_file(path, preparation.output, len(scan.samples)))
                found.append(scan.samples)
                keys += scan.keys
                skipped += [f"{path.name}, {text}" for text in scan.skipped]
                missing += scan.missing
                progress.advance(values={"samples": len(keys)})
        tables[split], twice = without_duplicates(found, keys)
        skipped += [f"{split}, {text}" for text in twice]
    total = sum(map(len, tables.values())) + len(skipped)
    budget = SkipBudget(int(total * preparation.max_bad_fraction))
    budget.add(dataset, skipped)
    validation, fit = hold_out(tables["train"], preparation.num_validation)
    rows = {"fit": fit, "validation": validation, "test": np.sort(tables["val"], order="order")}
    if len(rows["test"]) == 0:
        raise DataError(f"the validation shards of {dataset} hold no usable sample")
    index = PreparedIndex(
        dataset=dataset,
        image_size=preparation.image_size,
        captions_per_image={"coco": CAPTIONS_PER_IMAGE, "cc3m": 1}.get(dataset, 0),
        class_names=class_names,
        shards=tuple(shards),
        splits={split: len(table) for split, table in rows.items()},
        counts={"skipped": budget.reasons(), "missing": missing, **counts},
        num_validation=preparation.num_validation,
    )
    write_index(preparation.output, index, rows)
    return index


def _shard_file(path: Path, output: Path, num_samples: int) -> ShardFile:
    inside = path.resolve().is_relative_to(output.resolve())
    name = os.path.relpath(path, output) if inside else os.fspath(path.resolve())
    return ShardFile(name, path.stat().st_size, num_samples)
