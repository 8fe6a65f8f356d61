"""Webdataset shards, vouched for by an index and read without pickle."""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from adanat.checkpoints import read_json
from adanat.errors import DataError, StorageError

INDEX_FILE = "index.json"
INDEX_FORMAT = 1


class ShardInfo(NamedTuple):
    """One shard as the index describes it."""

    name: str
    num_samples: int
    sha256: str


class Index(NamedTuple):
    """What a folder of prepared shards holds."""

    source: str
    image_size: int
    """Height and width of the stored images in pixels."""
    class_names: tuple[str, ...]
    splits: dict[str, tuple[ShardInfo, ...]]
    captioned: bool = False
    """Whether every sample has a caption."""
    seed: int | None = None
    """Seed of generated data."""


def read_index(folder: Path) -> Index:
    """Read the index of a folder of prepared shards.

    Raises:
        DataError: There is none, or it is damaged or of another format.
    """
    path = folder / INDEX_FILE
    if not path.is_file():
        raise DataError(f"{folder} holds no prepared data (no {INDEX_FILE}): run `adanat data`")
    try:
        found = read_json(path)
        if found["format"] != INDEX_FORMAT:
            raise DataError(
                f"{path} has format {found['format']}, this version reads {INDEX_FORMAT}"
            )
        return Index(
            str(found["source"]),
            int(found["image_size"]),
            tuple(found["class_names"]),
            {
                name: tuple(ShardInfo(**shard) for shard in shards)
                for name, shards in found["splits"].items()
            },
            bool(found.get("captioned", False)),
            found.get("seed"),
        )
    except (StorageError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({error!r}): delete {folder} and run `adanat data`"
        ) from error


def verify_shard(folder: Path, shard: ShardInfo) -> Path:
    """The shard's path, once its content is what the index says. Raises DataError otherwise."""
    path = folder / shard.name
    if not path.is_file():
        raise DataError(f"shard {path} is missing: delete {folder} and run `adanat data`")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != shard.sha256:
        raise DataError(
            f"shard {path} is corrupt: its SHA-256 is {found}, the index says {shard.sha256}. "
            f"Delete {folder} and run `adanat data`."
        )
    return path


class Field(NamedTuple):
    """One entry of a sample: the member extensions that may carry it, and how to decode it."""

    extensions: tuple[str, ...]
    decode: Callable[[bytes], Any]


@dataclass
class BadSamples:
    """Counts samples that cannot be decoded; past ``limit`` of them the run fails.

    Attributes:
        limit: How many are skipped before DataError.
        found: "SHARD, sample KEY: reason" for each one so far.
    """

    limit: int = 0
    found: list[str] = field(default_factory=list)

    def add(self, shard: Path, key: str, reason: object) -> None:
        """Note one. Raises DataError, naming the shard and the key, past the limit."""
        self.found.append(f"{shard}, sample {key!r}: {reason}")
        if len(self.found) > self.limit:
            raise DataError(
                f"bad sample in {self.found[-1]} ({len(self.found)} bad so far, "
                f"at most {self.limit} are skipped)"
            )


def read_samples(
    shards: Iterable[Path], fields: Mapping[str, Field], bad: BadSamples
) -> Iterator[dict[str, Any]]:
    """Decode the samples of webdataset shards, in order.

    Only members with the extensions of ``fields`` are read, each by its own decoder; webdataset's
    default decoders, which unpickle some members, are not used. Shards are local files: URLs,
    and with them ``pipe:`` commands, are not opened.

    Args:
        shards: Tar files.
        fields: What a sample holds, by name. A sample that lacks one of them is bad.
        bad: Told about samples that cannot be decoded.

    Yields:
        The decoded fields, and the sample's key as ``"key"``.

    Raises:
        DataError: A shard is missing or no tar file, or too many samples are bad.
    """
    wanted = {extension for entry in fields.values() for extension in entry.extensions}
    for shard in shards:
        key = None
        try:
            with shard.open("rb") as stream:
                members = tar_file_expander(
                    [{"url": str(shard), "stream": stream}],
                    select_files=lambda name: _extension(name) in wanted,
                )
                for sample in group_by_keys(members):
                    key = sample["__key__"]
                    try:
                        decoded = {name: _decode(sample, entry) for name, entry in fields.items()}
                    except Exception as error:  # whatever a decoder makes of damaged bytes
                        bad.add(shard, key, error)
                        continue
                    yield {"key": key, **decoded}
        except DataError:
            raise
        except Exception as error:  # tarfile and webdataset raise many kinds
            where = f"after sample {key!r}" if key else "at its start"
            raise DataError(f"shard {shard} cannot be read {where}: {error}") from error


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """PNG or JPEG bytes to (H, W, 3) uint8; grey images are repeated to three channels."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        return np.asarray(image.convert("RGB"))


def decode_label(data: bytes) -> int:
    """A class number in decimal digits."""
    return int(data.decode("ascii"))


IMAGE = Field(("png", "jpg", "jpeg"), decode_image)
LABEL = Field(("cls",), decode_label)
CAPTION = Field(("txt",), lambda data: data.decode("utf-8"))
METADATA = Field(("json",), json.loads)


def _decode(sample: Mapping[str, bytes], entry: Field) -> Any:
    for extension in entry.extensions:
        if extension in sample:
            return entry.decode(sample[extension])
    raise ValueError(f"it has no .{' or .'.join(entry.extensions)} member")


def _extension(name: str) -> str:
    """All after the first dot of the file's name, as webdataset splits it."""
    return name.rpartition("/")[2].partition(".")[2].lower()
