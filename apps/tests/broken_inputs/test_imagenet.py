"""Broken copies of ImageNet: each docstring is a row of docs/broken-inputs.md."""

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from adanat.errors import DataError
from adanat.prepare import prepare_imagenet
from adanat.prepare.imagenet import DEVKIT, TRAIN_TAR, VAL_TAR
from adanat.recipes.benchmarks.published_formats import jpeg
from tiny_data_sets import picture, png, preparation, rewrite_tar


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
