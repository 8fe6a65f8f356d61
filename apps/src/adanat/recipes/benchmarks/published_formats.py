"""Writes pictures in exactly the formats in which the benchmarks' data sets are published.

For trials without the data: what is written here goes through the same preparation as the real
files.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from adanat.prepare.imagenet import DEVKIT, TRAIN_TAR, VAL_TAR


class Picture(NamedTuple):
    """What stands in for one sample."""

    image: Image.Image
    label: int
    captions: tuple[str, ...]


def write_imagenet(folder: Path, train: Sequence[Picture], val: Sequence[Picture]) -> None:
    """The training tar of class tars, the flat validation tar, and the devkit with its labels."""
    folder.mkdir(parents=True, exist_ok=True)
    wnids = [f"n{label:08d}" for label in sorted({picture.label for picture in (*train, *val)})]
    place = {int(wnid[1:]): number for number, wnid in enumerate(wnids)}
    archives: dict[str, dict[str, bytes]] = {wnid: {} for wnid in wnids}
    for number, picture in enumerate(train):
        wnid = wnids[place[picture.label]]
        archives[wnid][f"{wnid}_{number}.JPEG"] = jpeg(picture.image)
    _write_tar(folder / TRAIN_TAR, {f"{wnid}.tar": _tar(files) for wnid, files in archives.items()})
    _write_tar(
        folder / VAL_TAR,
        {f"ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(p.image) for i, p in enumerate(val)},
    )
    from scipy.io import savemat  # slow to import, and every command knows this module

    # The devkit counts classes from 1 in an order of its own, here the reverse.
    own_ids = {wnid: len(wnids) - number for number, wnid in enumerate(wnids)}
    synsets = np.array(
        [(own_ids[wnid], wnid) for wnid in wnids],
        dtype=[("ILSVRC2012_ID", "f8"), ("WNID", "O")],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})  # type: ignore[arg-type]  # takes open files, too
    truth = "".join(f"{own_ids[wnids[place[picture.label]]]}\n" for picture in val)
    root = DEVKIT.removesuffix(".tar.gz")
    members = {
        f"{root}/data/meta.mat": meta.getvalue(),
        f"{root}/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }
    with tarfile.open(folder / DEVKIT, "w:gz") as archive:
        _add(archive, members)


def write_coco(folder: Path, train: Sequence[Picture], val: Sequence[Picture]) -> None:
    """Folders ``train2014`` and ``val2014`` and their captions files."""
    first_image, first_caption = 1, 1
    for name, pictures in (("train2014", train), ("val2014", val)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for image_id, picture in enumerate(pictures, start=first_image):
            file_name = f"COCO_{name}_{image_id:012d}.jpg"
            (folder / name / file_name).write_bytes(jpeg(picture.image))
            width, height = picture.image.size
            images.append(
                {"id": image_id, "file_name": file_name, "width": width, "height": height}
            )
            for caption in picture.captions:
                annotations.append(
                    {
                        "id": first_caption + len(annotations),
                        "image_id": image_id,
                        "caption": caption,
                    }
                )
        first_image += len(images)
        first_caption += len(annotations)
        path = folder / "annotations" / f"captions_{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": images, "annotations": annotations}))


def write_img2dataset(
    folder: Path, pictures: Sequence[Picture], *, per_shard: int = 10_000, missing: int = 0
) -> list[Path]:
    """Shards ``00000.tar`` with ``.jpg .txt .json`` members and their ``_stats.json``.

    Args:
        folder: Where they go.
        pictures: One caption each.
        per_shard: Samples in one shard.
        missing: How many downloads the first shard's statistics say have failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard, start in enumerate(range(0, len(pictures), per_shard)):
        members: dict[str, bytes] = {}
        chunk = pictures[start : start + per_shard]
        for number, picture in enumerate(chunk):
            key = f"{shard:05d}{number:04d}"
            caption = picture.captions[0]
            described = {"caption": caption, "url": "", "key": key, "status": "success"}
            members[f"{key}.jpg"] = jpeg(picture.image)
            members[f"{key}.json"] = json.dumps(described, ensure_ascii=False).encode()
            members[f"{key}.txt"] = caption.encode()
        path = folder / f"{shard:05d}.tar"
        _write_tar(path, members)
        failed = missing if shard == 0 else 0
        statistics = {
            "count": len(chunk) + failed,
            "successes": len(chunk),
            "failed_to_download": failed,
            "failed_to_resize": 0,
        }
        path.with_name(f"{path.stem}_stats.json").write_text(json.dumps(statistics))
        paths.append(path)
    return paths


def jpeg(image: Image.Image) -> bytes:
    """A JPEG file of quality 95."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def _write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.write_bytes(_tar(members))


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, members)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, members: Mapping[str, bytes]) -> None:
    for name, data in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
