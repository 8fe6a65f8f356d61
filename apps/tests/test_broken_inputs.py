"""What broken data sets do: each test's docstring is a row of docs/broken-inputs.md."""

import gzip
import http.server
import io
import json
import os
import pickle
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adanat.errors import DataError
from adanat.prepare import (
    Preparation,
    PreparedIndex,
    PreparedSplit,
    prepare_cc3m,
    prepare_coco,
    prepare_imagenet,
)
from adanat.prepare.imagenet import DEVKIT, TRAIN_TAR, VAL_TAR
from adanat.prepare.index import INDEX_FILE
from adanat.prepare.scanning import scan_shard
from adanat.recipes.benchmarks.published_formats import (
    Picture,
    jpeg,
    write_coco,
    write_imagenet,
    write_img2dataset,
)
from PIL import Image

SIZE = 16


def picture(seed: int, label: int = 0, *captions: str) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return Picture(Image.fromarray(pixels), label, captions or (f"picture {seed}",) * 5)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def preparation(tmp_path: Path, max_bad_fraction: float = 0.5) -> Preparation:
    return Preparation(
        output=tmp_path / "out",
        num_validation=2,
        workers=0,
        items_per_shard=4,
        max_bad_fraction=max_bad_fraction,
    )


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """ImageNet as class folders: two classes of three pictures, two to test."""
    source = tmp_path / "imagenet"
    for label in range(2):
        for split, count in (("train", 3), ("val", 1)):
            folder = source / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(count):
                path = folder / f"n{label:08d}_{split}{number}.JPEG"
                path.write_bytes(jpeg(picture(10 * label + number).image))
    return source


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """ImageNet as published: tar files and devkit."""
    source = tmp_path / "published"
    write_imagenet(
        source, [picture(i, i % 2) for i in range(6)], [picture(9 + i, i % 2) for i in range(4)]
    )
    return source


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    source = tmp_path / "coco"
    write_coco(source, [picture(i) for i in range(5)], [picture(7 + i) for i in range(2)])
    return source


@pytest.fixture
def cc3m(tmp_path: Path) -> Path:
    source = tmp_path / "cc3m"
    write_img2dataset(source / "train", [picture(i) for i in range(5)], missing=2)
    write_img2dataset(source / "val", [picture(7 + i) for i in range(2)])
    return source


def imagenet_with(folders: Path, tmp_path: Path, data: bytes, name: str = "x") -> PreparedIndex:
    """Prepare with one more training picture of these bytes."""
    (folders / "train" / "n00000000" / f"{name}.JPEG").write_bytes(data)
    return prepare_imagenet(folders, preparation(tmp_path), num_classes=2)


def assert_skipped(index: PreparedIndex, reason: str) -> None:
    assert dict(index.counts["skipped"]) == {reason: 1}
    assert sum(index.splits.values()) == 8


def assert_used(index: PreparedIndex, tmp_path: Path) -> None:
    assert not index.counts["skipped"]
    assert sum(index.splits.values()) == 9
    for split in index.splits:  # every picture can be read
        data = PreparedSplit(tmp_path / "out", split, SIZE)
        assert data.images(range(len(data))).shape == (len(data), 3, SIZE, SIZE)


def rewrite_tar(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Let `change` edit the members of a shard."""
    with tarfile.open(path) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    change(files)
    write_members(path, files)


def write_members(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def cc3m_with(
    cc3m: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None]
) -> PreparedIndex:
    rewrite_tar(cc3m / "train" / "00000.tar", change)
    return prepare(cc3m, tmp_path)


def prepare(cc3m: Path, tmp_path: Path, max_bad_fraction: float = 0.5) -> PreparedIndex:
    return prepare_cc3m(
        [str(cc3m / "train" / "*.tar")],
        [str(cc3m / "val" / "*.tar")],
        preparation(tmp_path, max_bad_fraction),
    )


# Pictures


def test_zero_bytes(folders: Path, tmp_path: Path) -> None:
    """A picture file of zero bytes | skipped, counted."""
    assert_skipped(imagenet_with(folders, tmp_path, b""), "the file is empty")


def test_cut_jpeg(folders: Path, tmp_path: Path) -> None:
    """A JPEG that is cut off | skipped, counted."""
    data = jpeg(picture(1).image)
    index = imagenet_with(folders, tmp_path, data[: len(data) // 2])
    assert_skipped(index, "the image cannot be decoded")


def test_html_page(folders: Path, tmp_path: Path) -> None:
    """An HTML error page saved as .JPEG | skipped, counted."""
    index = imagenet_with(folders, tmp_path, b"<html>404</html>")
    assert_skipped(index, "the file is no JPEG, PNG, WEBP image")


def test_gif(folders: Path, tmp_path: Path) -> None:
    """A GIF (or any format but JPEG, PNG, WebP) called .JPEG | skipped, counted."""
    buffer = io.BytesIO()
    picture(1).image.save(buffer, format="GIF")
    index = imagenet_with(folders, tmp_path, buffer.getvalue())
    assert_skipped(index, "the file is no JPEG, PNG, WEBP image")


def test_tracking_pixel(folders: Path, tmp_path: Path) -> None:
    """A picture of fewer than 8 pixels a side | skipped, counted."""
    index = imagenet_with(folders, tmp_path, png(Image.new("RGB", (1, 1))))
    assert_skipped(index, "the image has 1x1 pixels, fewer than 8 a side")


def test_decompression_bomb(folders: Path, tmp_path: Path) -> None:
    """A small file that claims 400 million pixels | skipped, counted; it is never unpacked."""
    index = imagenet_with(folders, tmp_path, png(Image.new("1", (20_000, 20_000))))
    assert_skipped(index, "the image cannot be decoded")


def test_cmyk(folders: Path, tmp_path: Path) -> None:
    """A CMYK JPEG | converted and used."""
    assert_used(imagenet_with(folders, tmp_path, jpeg(picture(1).image.convert("CMYK"))), tmp_path)


def test_sixteen_bits(folders: Path, tmp_path: Path) -> None:
    """A 16-bit PNG | its upper 8 bits are used."""
    values = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    assert_used(imagenet_with(folders, tmp_path, png(Image.fromarray(values))), tmp_path)


def test_grey(folders: Path, tmp_path: Path) -> None:
    """A grey picture | repeated to three channels and used."""
    assert_used(imagenet_with(folders, tmp_path, jpeg(picture(1).image.convert("L"))), tmp_path)


def test_palette(folders: Path, tmp_path: Path) -> None:
    """A palette picture with transparency | resolved and used."""
    image = picture(1).image.convert("P")
    image.info["transparency"] = 0
    assert_used(imagenet_with(folders, tmp_path, png(image)), tmp_path)


def test_wrong_suffix(folders: Path, tmp_path: Path) -> None:
    """A PNG called .JPEG (ImageNet has one) | used, stored as .png."""
    assert_used(imagenet_with(folders, tmp_path, png(picture(1).image)), tmp_path)
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as archive:
        assert "x.png" in archive.getnames()


def test_dots_in_a_name(folders: Path, tmp_path: Path) -> None:
    """A file name with dots, at which webdataset would cut the key | used, the dots become _."""
    index = imagenet_with(folders, tmp_path, jpeg(picture(1).image), name="a.b.c")
    assert_used(index, tmp_path)


# ImageNet


def test_stray_files(folders: Path, tmp_path: Path) -> None:
    """Files that are no pictures, hidden ones among them, in a class folder | passed over."""
    for name in ("Thumbs.db", "._n00000000_1.JPEG", ".DS_Store"):
        (folders / "train" / "n00000000" / name).write_bytes(b"?")
    index = prepare_imagenet(folders, preparation(tmp_path), num_classes=2)
    assert sum(index.splits.values()) == 8
    assert not index.counts["skipped"]


def test_empty_source(tmp_path: Path) -> None:
    """An empty source folder | refused, with what it must hold and where to get it."""
    with pytest.raises(DataError, match=r"has no train images.*ILSVRC2012_img_train.tar"):
        prepare_imagenet(tmp_path, preparation(tmp_path))


def test_missing_class(folders: Path, tmp_path: Path) -> None:
    """Fewer classes than there must be | refused, with both numbers."""
    with pytest.raises(DataError, match=r"train images .* have 2 classes, expected 1000"):
        prepare_imagenet(folders, preparation(tmp_path))


def test_other_classes(folders: Path, tmp_path: Path) -> None:
    """Training and validation folders of different classes | refused, the classes are named."""
    (folders / "val" / "n00000001").rename(folders / "val" / "n00000007")
    with pytest.raises(DataError, match=r"different classes: \['n00000001', 'n00000007'\]"):
        prepare_imagenet(folders, preparation(tmp_path), num_classes=2)


def test_unreadable_folder(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be listed | refused, it is named."""
    locked, listed = folders / "train" / "n00000001", Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:  # permissions do not stop root
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(DataError, match=r"cannot list .*n00000001: Permission denied"):
        prepare_imagenet(folders, preparation(tmp_path), num_classes=2)


def test_dangling_link(folders: Path, tmp_path: Path) -> None:
    """A picture that is a link to nowhere | refused, it is named."""
    (folders / "train" / "n00000000" / "lost.JPEG").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot read .*lost.JPEG: No such file"):
        prepare_imagenet(folders, preparation(tmp_path), num_classes=2)


def test_equal_names(folders: Path, tmp_path: Path) -> None:
    """Two pictures whose keys would be equal | refused, the key is named."""
    for suffix in ("jpg", "png"):
        (folders / "train" / "n00000001" / f"same.{suffix}").write_bytes(png(picture(1).image))
    with pytest.raises(DataError, match=r"1 keys occur more than once, the first is 'same'"):
        prepare_imagenet(folders, preparation(tmp_path), num_classes=2)


def test_too_many_bad(folders: Path, tmp_path: Path) -> None:
    """More bad pictures than may be skipped | refused, the last one is named with its shard."""
    (folders / "train" / "n00000000" / "x.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 items cannot be used, at most 0 .* x: the file is em"):
        prepare_imagenet(folders, preparation(tmp_path, max_bad_fraction=0), num_classes=2)


def test_cut_train_tar(tars: Path, tmp_path: Path) -> None:
    """A training tar that is cut in the middle | refused, the last whole member is named."""
    data = (tars / TRAIN_TAR).read_bytes()
    (tars / TRAIN_TAR).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"img_train.tar is cut off .* after"):
        prepare_imagenet(tars, preparation(tmp_path), num_classes=2)


def test_cut_class_tar(tars: Path, tmp_path: Path) -> None:
    """A class tar that was cut before it went into the training tar | refused, it is named."""
    rewrite_tar(
        tars / TRAIN_TAR,
        lambda files: files.update({"n00000000.tar": files["n00000000.tar"][:700]}),
    )
    with pytest.raises(DataError, match=r"img_train.tar is cut off"):
        prepare_imagenet(tars, preparation(tmp_path), num_classes=2)


def test_compressed_tar(tars: Path, tmp_path: Path) -> None:
    """A compressed file in the place of a tar | refused: unpack it."""
    (tars / TRAIN_TAR).write_bytes(gzip.compress((tars / TRAIN_TAR).read_bytes()))
    with pytest.raises(DataError, match=r"no uncompressed tar file"):
        prepare_imagenet(tars, preparation(tmp_path), num_classes=2)


def test_no_devkit(tars: Path, tmp_path: Path) -> None:
    """Flat validation images without the devkit | refused: where their labels come from."""
    (tars / DEVKIT).unlink()
    with pytest.raises(DataError, match=r"flat validation images need .*devkit_t12.tar.gz"):
        prepare_imagenet(tars, preparation(tmp_path), num_classes=2)


def test_damaged_devkit(tars: Path, tmp_path: Path) -> None:
    """A damaged devkit | refused, it is named."""
    (tars / DEVKIT).write_bytes(b"not a tar")
    with pytest.raises(DataError, match=r"devkit_t12.tar.gz is damaged"):
        prepare_imagenet(tars, preparation(tmp_path), num_classes=2)


def test_missing_validation_image(tars: Path, tmp_path: Path) -> None:
    """Fewer validation images than labels | refused, with both numbers."""
    rewrite_tar(tars / VAL_TAR, lambda files: files.pop("ILSVRC2012_val_00000003.JPEG"))
    with pytest.raises(DataError, match=r"3 validation images but 4 labels"):
        prepare_imagenet(tars, preparation(tmp_path), num_classes=2)


def write_parquet(folder: Path, columns: Mapping[str, object]) -> None:
    folder.mkdir(exist_ok=True)
    for split in ("train", "validation"):
        pq.write_table(pa.table(dict(columns)), folder / f"{split}-00000-of-00001.parquet")


def cells(*data: bytes | None) -> list[dict[str, object]]:
    return [{"bytes": one, "path": None} for one in data]


def test_parquet_without_labels(tmp_path: Path) -> None:
    """Parquet files without a column `label` | refused, with the columns that are there."""
    write_parquet(tmp_path / "hf", {"image": cells(jpeg(picture(1).image)), "text": ["x"]})
    with pytest.raises(DataError, match=r"has no column \['label'\]; it has \['image', 'text'\]"):
        prepare_imagenet(tmp_path / "hf", preparation(tmp_path))


def test_damaged_parquet(tmp_path: Path) -> None:
    """A damaged parquet file | refused, it is named."""
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"of-00001.parquet is damaged or no parquet file"):
        prepare_imagenet(tmp_path, preparation(tmp_path))


def test_parquet_hidden_labels(tmp_path: Path) -> None:
    """Labels outside the classes, such as the -1 of the hidden test split | refused."""
    pictures = cells(jpeg(picture(1).image), jpeg(picture(2).image))
    write_parquet(tmp_path / "hf", {"image": pictures, "label": [0, -1]})
    with pytest.raises(DataError, match=r"labels outside 0 to 1: \['-1'\]"):
        prepare_imagenet(tmp_path / "hf", preparation(tmp_path))


def test_parquet_without_a_picture(tmp_path: Path) -> None:
    """A parquet row without a picture | skipped, counted."""
    pictures = [jpeg(picture(i).image) for i in range(5)]
    write_parquet(tmp_path / "hf", {"image": cells(*pictures, None), "label": [0, 1, 0, 1, 0, 1]})
    index = prepare_imagenet(tmp_path / "hf", preparation(tmp_path), num_classes=2)
    assert dict(index.counts["skipped"]) == {"the row has no image": 2}
    assert sum(index.splits.values()) == 10


# COCO


def edit_captions(coco: Path, change: Callable[[dict[str, list[dict[str, object]]]], None]) -> None:
    path = coco / "annotations" / "captions_train2014.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_cut_annotations(coco: Path, tmp_path: Path) -> None:
    """A captions file that is cut off | refused, it is named."""
    path = coco / "annotations" / "captions_val2014.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(DataError, match=r"captions_val2014.json is damaged"):
        prepare_coco(coco, preparation(tmp_path))


def test_other_annotations(coco: Path, tmp_path: Path) -> None:
    """A JSON file of another kind, or with captions that are no text | refused, it is named."""
    edit_captions(coco, lambda found: found["annotations"][0].update(caption=7))
    with pytest.raises(DataError, match=r"captions_train2014.json is .* no COCO captions file"):
        prepare_coco(coco, preparation(tmp_path))


def test_no_annotations(coco: Path, tmp_path: Path) -> None:
    """No captions file | refused: where to get it."""
    (coco / "annotations" / "captions_train2014.json").unlink()
    with pytest.raises(DataError, match=r"captions_train2014.json is missing.*cocodataset.org"):
        prepare_coco(coco, preparation(tmp_path))


def test_image_without_captions(coco: Path, tmp_path: Path) -> None:
    """An image without captions, or with blank ones only | passed over, counted."""

    def change(found: dict[str, list[dict[str, object]]]) -> None:
        rows = found["annotations"]
        found["annotations"] = [row for row in rows if row["image_id"] != 1]
        for row in rows:
            row["caption"] = " \t" if row["image_id"] == 2 else row["caption"]

    edit_captions(coco, change)
    index = prepare_coco(coco, preparation(tmp_path))
    assert index.counts["notes"]["image without captions"] == 2
    assert index.splits["fit"] + index.splits["validation"] == 3


def test_missing_image(coco: Path, tmp_path: Path) -> None:
    """Captions of an image whose file is missing | passed over, counted."""
    (coco / "train2014" / "COCO_train2014_000000000003.jpg").unlink()
    index = prepare_coco(coco, preparation(tmp_path))
    assert index.counts["notes"]["image file missing"] == 1


def test_few_captions(coco: Path, tmp_path: Path) -> None:
    """Fewer than five captions | repeated from the first, counted."""
    edit_captions(coco, lambda found: found["annotations"].pop(1))
    index = prepare_coco(coco, preparation(tmp_path))
    assert index.counts["notes"]["image with fewer than 5 captions"] == 1
    data = PreparedSplit(tmp_path / "out", "fit", SIZE)
    assert {len(captions) for captions in data.captions(range(len(data)))} == {5}


def test_stray_caption(coco: Path, tmp_path: Path) -> None:
    """A caption of an image that is not listed | passed over, counted."""
    edit_captions(
        coco,
        lambda found: found["annotations"].append({"id": 99, "image_id": 77, "caption": "lost"}),
    )
    index = prepare_coco(coco, preparation(tmp_path))
    assert index.counts["notes"]["caption of an unknown image"] == 1


# CC3M and other shards

SCRIPTS = (
    "Ein Apfel, größer",
    "яблоко",
    "りんごの絵",
    "蘋果",
    "تفاحة حمراء",
    "סֵפֶר",
    "सेब",
    "🍎🏽 זה",
    "a\u0301",
)


def test_every_script(tmp_path: Path) -> None:
    """Captions in any script, with emoji and combining marks | kept as they are."""
    write_img2dataset(tmp_path / "train", [picture(i, 0, text) for i, text in enumerate(SCRIPTS)])
    write_img2dataset(tmp_path / "val", [picture(70, 0, SCRIPTS[0])])
    prepare(tmp_path, tmp_path)
    found: list[str] = []
    for split in ("fit", "validation"):
        data = PreparedSplit(tmp_path / "out", split, SIZE)
        found += [captions[0] for captions in data.captions(range(len(data)))]
    assert sorted(found) == sorted(SCRIPTS)


def test_line_breaks(cc3m: Path, tmp_path: Path) -> None:
    """Line breaks and tabs in a caption | blanks."""
    cc3m_with(cc3m, tmp_path, lambda f: f.update({"000000000.txt": b" a\r\n red\t\tapple \n"}))
    found = []
    for split in ("fit", "validation"):
        data = PreparedSplit(tmp_path / "out", split, SIZE)
        found += data.captions(range(len(data)))
    assert ("a red apple",) in found


def test_failed_downloads(cc3m: Path, tmp_path: Path) -> None:
    """Pictures that img2dataset could not download | counted as missing."""
    assert prepare(cc3m, tmp_path).counts["missing"] == 2


def test_cut_shard(cc3m: Path, tmp_path: Path) -> None:
    """A shard that is cut in the middle | refused, with its last whole member."""
    path = cc3m / "train" / "00000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"00000.tar is cut off .* after member '000000000.*'"):
        prepare(cc3m, tmp_path)


def test_empty_shard(cc3m: Path, tmp_path: Path) -> None:
    """A shard of zero bytes | refused, it is named."""
    (cc3m / "train" / "00000.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"00000.tar is cut off .*empty file"):
        prepare(cc3m, tmp_path)


def test_missing_shard(cc3m: Path, tmp_path: Path) -> None:
    """A shard of the list that is not there | refused, it is named."""
    with pytest.raises(DataError, match=r"cannot read .*00001.tar: No such file"):
        prepare_cc3m(
            [str(cc3m / "train" / "{00000..00001}.tar")],
            [str(cc3m / "val" / "00000.tar")],
            preparation(tmp_path),
        )


def test_no_match(tmp_path: Path) -> None:
    """A wildcard that matches nothing | refused."""
    with pytest.raises(DataError, match=r"no shard matches .*\*.tar"):
        prepare(tmp_path, tmp_path)


def test_sample_without_image(cc3m: Path, tmp_path: Path) -> None:
    """A sample without a picture | skipped, counted."""
    index = cc3m_with(cc3m, tmp_path, lambda files: files.pop("000000001.jpg"))
    assert index.counts["skipped"] == {"no image member": 1}


def test_sample_without_caption(cc3m: Path, tmp_path: Path) -> None:
    """A sample without a caption | skipped, counted."""
    index = cc3m_with(cc3m, tmp_path, lambda files: files.pop("000000001.txt"))
    assert index.counts["skipped"] == {"no .txt member": 1}


def test_empty_caption(cc3m: Path, tmp_path: Path) -> None:
    """A caption without a letter | skipped, counted."""
    index = cc3m_with(cc3m, tmp_path, lambda f: f.update({"000000001.txt": b" \n\t"}))
    assert index.counts["skipped"] == {"the caption is empty": 1}


def test_caption_encoding(cc3m: Path, tmp_path: Path) -> None:
    """A caption that is not UTF-8 | skipped, counted."""
    index = cc3m_with(
        cc3m, tmp_path, lambda f: f.update({"000000001.txt": "größe".encode("cp1252")})
    )
    assert index.counts["skipped"] == {"the caption is not UTF-8": 1}


def test_broken_picture_in_a_shard(cc3m: Path, tmp_path: Path) -> None:
    """A picture in a shard that cannot be decoded | skipped, counted."""
    index = cc3m_with(
        cc3m, tmp_path, lambda f: f.update({"000000001.jpg": f["000000001.jpg"][:300]})
    )
    assert index.counts["skipped"] == {"the image cannot be decoded": 1}


def test_two_members(cc3m: Path, tmp_path: Path) -> None:
    """Two members of one name in a shard | the first is used, counted."""
    with tarfile.open(cc3m / "train" / "00000.tar", "a") as archive:
        info = tarfile.TarInfo("000000001.txt")
        archive.addfile(info, io.BytesIO())
    index = prepare(cc3m, tmp_path)
    assert index.counts["skipped"] == {"two .txt members, the first one is taken": 1}
    assert index.splits["fit"] == 3


def test_equal_keys(cc3m: Path, tmp_path: Path) -> None:
    """One key in two shards | the first is used, the second skipped and counted."""
    first = (cc3m / "train" / "00000.tar").read_bytes()
    (cc3m / "train" / "00001.tar").write_bytes(first)
    index = prepare(cc3m, tmp_path)
    assert index.counts["skipped"] == {"the key occurs twice": 5}
    assert index.splits["fit"] == 3


def test_damaged_statistics(cc3m: Path, tmp_path: Path) -> None:
    """Damaged statistics beside a shard | refused, they are named."""
    (cc3m / "train" / "00000_stats.json").write_text("{")
    with pytest.raises(DataError, match=r"00000_stats.json is damaged"):
        prepare(cc3m, tmp_path)


def test_label_out_of_range(tmp_path: Path) -> None:
    """A .cls label outside the classes | skipped, counted."""
    write_members(tmp_path / "a.tar", {"0.jpg": jpeg(picture(1).image), "0.cls": b"7"})
    found = scan_shard(tmp_path / "a.tar", 5, True)
    assert found.skipped == ("0: the label is out of range: 7, not in 0 to 4",)


def test_label_that_is_no_number(tmp_path: Path) -> None:
    """A .cls member that is no number | skipped, counted."""
    write_members(tmp_path / "a.tar", {"0.jpg": jpeg(picture(1).image), "0.cls": b"cat"})
    assert scan_shard(tmp_path / "a.tar", 5, True).skipped == ("0: the label is no number: b'cat'",)


def test_pickle(cc3m: Path, tmp_path: Path) -> None:
    """A pickled member that would run a program | never read."""

    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    cc3m_with(cc3m, tmp_path, lambda files: files.update({"000000001.pkl": pickle.dumps(Evil())}))
    data = PreparedSplit(tmp_path / "out", "fit", SIZE)
    data.images(range(len(data)))
    assert not (tmp_path / "pwned").exists()


def test_names_that_climb(cc3m: Path, tmp_path: Path) -> None:
    """Member names that lead out of the folder, links and devices | nothing is ever unpacked."""
    with tarfile.open(cc3m / "train" / "00000.tar", "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        climbing = tarfile.TarInfo("../../../climbed.txt")
        climbing.size = 1
        archive.addfile(climbing, io.BytesIO(b"x"))
    index = prepare(cc3m, tmp_path)
    assert index.counts["skipped"] == {"no image member": 1}
    assert not list(tmp_path.rglob("climbed*"))


# Where shards come from


def test_command_without_leave(tmp_path: Path) -> None:
    """A `pipe:` entry without --allow-commands | refused, nothing is run."""
    with pytest.raises(DataError, match=r"would run a shell command.*--allow-commands"):
        prepare_cc3m([f"pipe:touch {tmp_path / 'ran'}"], ["x.tar"], preparation(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_failing_command(tmp_path: Path) -> None:
    """An allowed command that fails | refused, with its exit code; nothing of it is kept."""
    with pytest.raises(DataError, match=r"pipe:exit 3: the command failed with exit code 3"):
        prepare_cc3m(["pipe:exit 3"], ["x.tar"], preparation(tmp_path), allow_commands=True)
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_stuck_command(tmp_path: Path) -> None:
    """A source that stops sending | refused after the timeout, it is named."""
    began = time.monotonic()
    with pytest.raises(DataError, match=r"pipe:sleep 60: stuck, no byte within 0.3 s"):
        prepare_cc3m(
            ["pipe:sleep 60"], ["x.tar"], preparation(tmp_path), allow_commands=True, timeout=0.3
        )
    assert time.monotonic() - began < 20


@pytest.fixture
def server(cc3m: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(cc3m))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_fetched_shards(server: str, cc3m: Path, tmp_path: Path) -> None:
    """Whole shards behind http, or given by an allowed command | fetched once, used."""
    index = prepare_cc3m(
        [f"{server}/train/{{00000..00000}}.tar"],
        [f"pipe:cat {cc3m / 'val' / '00000.tar'}"],
        preparation(tmp_path),
        allow_commands=True,
    )
    assert dict(index.splits) == {"fit": 3, "validation": 2, "test": 2}


def test_missing_address(server: str, tmp_path: Path) -> None:
    """An address that is not there | refused, it is named."""
    with pytest.raises(DataError, match=r"train/00009.tar: cannot be fetched: .*404"):
        prepare_cc3m([f"{server}/train/00009.tar"], ["x.tar"], preparation(tmp_path))


# After preparation


@pytest.fixture
def prepared(cc3m: Path, tmp_path: Path) -> Path:
    prepare(cc3m, tmp_path)
    return tmp_path / "out"


def test_shard_shortened_later(prepared: Path, cc3m: Path) -> None:
    """A shard that has changed its size since | refused, it is named."""
    path = cc3m / "train" / "00000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(DataError, match=r"00000.tar has \d+ bytes, the index says"):
        PreparedSplit(prepared, "fit", SIZE)


def test_shard_gone_later(prepared: Path, cc3m: Path) -> None:
    """A shard that is gone since | refused, it is named."""
    (cc3m / "train" / "00000.tar").unlink()
    with pytest.raises(DataError, match=r"00000.tar is missing or unreadable"):
        PreparedSplit(prepared, "fit", SIZE)


def test_damaged_later(prepared: Path, cc3m: Path) -> None:
    """A picture that was damaged on the disk since | refused, shard and byte are named."""
    path = cc3m / "train" / "00000.tar"
    path.write_bytes(b"\0" * path.stat().st_size)
    data = PreparedSplit(prepared, "fit", SIZE)
    with pytest.raises(DataError, match=r"sample 0 \(byte \d+ of .*00000.tar\) is damaged since"):
        data.images([0])


def test_damaged_index(prepared: Path) -> None:
    """A damaged index | refused: prepare again."""
    (prepared / INDEX_FILE).write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"prepared.json is damaged"):
        PreparedSplit(prepared, "fit", SIZE)


def test_damaged_table(prepared: Path) -> None:
    """A damaged or pickled sample table | refused, never unpickled."""
    np.save(prepared / "fit.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match=r"fit.npy is missing or damaged"):
        PreparedSplit(prepared, "fit", SIZE)


def test_other_image_size(folders: Path, tmp_path: Path) -> None:
    """Pictures cropped to another size than the recipe's | refused, with both sizes."""
    settings = Preparation(
        output=tmp_path / "out", num_validation=2, workers=0, image_size=12, items_per_shard=4
    )
    prepare_imagenet(folders, settings, num_classes=2)
    with pytest.raises(DataError, match=r"cropped to 12 pixels, but 16 are asked for"):
        PreparedSplit(tmp_path / "out", "fit", SIZE)


def test_other_data_set(prepared: Path, coco: Path, tmp_path: Path) -> None:
    """An output folder with another data set | refused, nothing is overwritten."""
    with pytest.raises(DataError, match=r"holds cc3m at image size None, not coco"):
        prepare_coco(coco, preparation(tmp_path))


def test_stuck_disk(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk or mount that does not answer | refused after the timeout, the shard is named."""
    data = PreparedSplit(prepared, "fit", SIZE, timeout=0.2)
    monkeypatch.setattr("adanat.prepare.members.Member.read", lambda self: time.sleep(1))
    with pytest.raises(DataError, match=r"sample 0 .*00000.tar\) did not come within 0.2 s"):
        data.images([0])


def test_too_few_to_hold_out(cc3m: Path, tmp_path: Path) -> None:
    """No more training samples than are to be held out | refused, with both numbers."""
    settings = Preparation(output=tmp_path / "out", num_validation=5, workers=0)
    with pytest.raises(DataError, match=r"5 of 5 training samples cannot be held out"):
        prepare_cc3m([str(cc3m / "train" / "*.tar")], [str(cc3m / "val" / "*.tar")], settings)


def test_the_page_lists_every_case(workspace_root: Path) -> None:
    """docs/broken-inputs.md has one row for each test above."""
    cases = [
        function.__doc__
        for name, function in globals().items()
        if name.startswith("test_") and function is not test_the_page_lists_every_case
    ]
    assert len(cases) >= 30
    page = (workspace_root / "docs" / "broken-inputs.md").read_text()
    rows = [line.strip("| ") for line in page.splitlines() if line.startswith("| ")]
    assert [row.rstrip(".") for row in rows[2:]] == [case.rstrip(".") for case in cases]
