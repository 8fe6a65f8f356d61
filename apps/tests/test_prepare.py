"""Preparation: the same samples from every published form, the same bytes every time."""

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from adanat.errors import DataError
from adanat.prepare import (
    Preparation,
    PreparedSplit,
    SplitImages,
    adm_crop,
    item_names,
    open_rgb,
    open_split,
    prepare_cc3m,
    prepare_coco,
    prepare_imagenet,
    read_prepared,
)
from adanat.prepare.imagenet import TRAIN_TAR, VAL_TAR
from adanat.prepare.index import SPLITS
from adanat.prepare.writing import PARTS_FOLDER
from adanat.recipes.benchmarks.published_formats import (
    Picture,
    jpeg,
    write_coco,
    write_imagenet,
    write_img2dataset,
)
from PIL import Image

SIZE, CLASSES = 12, 3


def picture(seed: int, label: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (18, 26, 3), dtype=np.uint8)
    return Picture(Image.fromarray(pixels), label, tuple(f"{seed}, {i}" for i in range(5)))


TRAIN = [picture(i, i % CLASSES) for i in range(15)]
VAL = [picture(100 + i, (2 * i) % CLASSES) for i in range(6)]


def prepare(source: Path, output: Path, **settings: int | None) -> None:
    chosen = {"workers": 0, "num_validation": 4, "items_per_shard": 4, **settings}
    prepare_imagenet(source, Preparation(output=output, **chosen), CLASSES)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("published")
    write_imagenet(source, TRAIN, VAL)
    return source


@pytest.fixture(scope="module")
def prepared(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("prepared")
    prepare(published, output)
    return output


def unpack(published: Path, folder: Path) -> None:
    """Class folders for training, the flat folder for validation, as people unpack them."""
    with tarfile.open(published / TRAIN_TAR) as outer:
        for archive in outer:
            with tarfile.open(fileobj=outer.extractfile(archive)) as inner:
                inner.extractall(folder / "train" / Path(archive.name).stem, filter="data")
    with tarfile.open(published / VAL_TAR) as archive:
        archive.extractall(folder / "val", filter="data")
    for devkit in published.glob("*.gz"):
        (folder / devkit.name).write_bytes(devkit.read_bytes())


def contents(folder: Path) -> dict[str, set[tuple[str, int]]]:
    """(hash of the pixels, label) of every sample by split."""
    found = {}
    for split in SPLITS:
        data = PreparedSplit(folder, split, SIZE)
        images = data.images(range(len(data))).numpy()
        digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        found[split] = set(zip(digests, data.labels.tolist(), strict=True))
    return found


def all_train(folder: Path) -> set[tuple[str, int]]:
    found = contents(folder)
    return found["fit"] | found["validation"]


def digest_of(item: Picture) -> tuple[str, int]:
    pixels = adm_crop(open_rgb(jpeg(item.image)), SIZE).transpose(2, 0, 1)
    return hashlib.sha256(pixels.tobytes()).hexdigest(), item.label


def test_every_picture_keeps_its_label(prepared: Path) -> None:
    assert all_train(prepared) == {digest_of(item) for item in TRAIN}
    assert contents(prepared)["test"] == {digest_of(item) for item in VAL}


def test_folders_give_the_samples_of_the_tar_files(
    published: Path, prepared: Path, tmp_path: Path
) -> None:
    unpack(published, tmp_path / "source")
    prepare(tmp_path / "source", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(prepared)  # same keys, so same splits


def test_parquet_gives_the_samples_of_the_tar_files(prepared: Path, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    for name, items in (("train", TRAIN), ("validation", VAL)):
        for part, chunk in enumerate((items[:4], items[4:])):
            table = pa.table(
                {
                    "image": [{"bytes": jpeg(item.image), "path": None} for item in chunk],
                    "label": [item.label for item in chunk],
                }
            )
            pq.write_table(table, source / f"{name}-{part:05d}-of-00002.parquet", row_group_size=3)
    prepare(tmp_path, tmp_path / "out")
    assert all_train(tmp_path / "out") == all_train(prepared)
    assert contents(tmp_path / "out")["test"] == contents(prepared)["test"]


def test_validation_is_held_out_of_every_class(prepared: Path) -> None:
    index = read_prepared(prepared)
    assert dict(index.splits) == {"fit": 11, "validation": 4, "test": 6}
    labels = PreparedSplit(prepared, "validation", SIZE).labels
    assert labels.bincount().tolist() == [2, 1, 1]
    found = contents(prepared)
    assert not found["fit"] & found["validation"]


def test_the_order_is_shuffled(prepared: Path) -> None:
    labels = PreparedSplit(prepared, "fit", SIZE).labels
    assert labels.tolist() != labels.sort().values.tolist()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow  # every process imports torch
def test_processes_and_repetitions_give_the_same_bytes(
    published: Path, prepared: Path, tmp_path: Path
) -> None:
    prepare(published, tmp_path, workers=2)
    assert files(tmp_path) == files(prepared)


def test_an_interrupted_preparation_goes_on(
    published: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 7

    def fails_later(data: bytes) -> Image.Image:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return open_rgb(data)

    with monkeypatch.context() as patch:
        patch.setattr("adanat.prepare.writing.open_rgb", fails_later)
        with pytest.raises(KeyboardInterrupt):
            prepare(published, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PARTS_FOLDER, "train-000000.tar"]
    first = (tmp_path / "train-000000.tar").stat().st_mtime_ns
    prepare(published, tmp_path)
    assert (tmp_path / "train-000000.tar").stat().st_mtime_ns == first
    assert files(tmp_path) == files(prepared)


def test_other_settings_do_not_go_on(published: Path, tmp_path: Path) -> None:
    output = tmp_path / "begun"
    (output / PARTS_FOLDER).mkdir(parents=True)
    (output / PARTS_FOLDER / "settings.json").write_text('{"image_size": 99}')
    with pytest.raises(DataError, match=r"was begun with .*99.*, now it is .*'image_size': None"):
        prepare(published, output)


def test_cropping_ahead_changes_no_pixel(published: Path, prepared: Path, tmp_path: Path) -> None:
    prepare(published, tmp_path, image_size=SIZE)
    assert contents(tmp_path) == contents(prepared)


def test_a_finished_preparation_does_nothing(published: Path, prepared: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.iterdir()}
    prepare(published, prepared)
    assert {path: path.stat().st_mtime_ns for path in prepared.iterdir()} == before


def test_a_finished_preparation_is_not_divided_otherwise(published: Path, prepared: Path) -> None:
    with pytest.raises(DataError, match="with --num-validation 4, now it is 6: choose another"):
        prepare(published, prepared, num_validation=6)


def test_split_images_stand_in_for_a_tensor(prepared: Path) -> None:
    data = PreparedSplit(prepared, "fit", SIZE)
    images, everything = SplitImages(data), data.images(range(len(data)))
    assert len(images) == 11
    torch.testing.assert_close(images[torch.tensor([5, 0, 5])], everything[[5, 0, 5]])
    torch.testing.assert_close(images[3:7], everything[3:7])
    torch.testing.assert_close(images[:99], everything)


def test_coco_has_five_captions_an_image(tmp_path: Path) -> None:
    write_coco(tmp_path / "source", TRAIN, VAL)
    settings = Preparation(output=tmp_path / "out", num_validation=3, workers=0)
    index = prepare_coco(tmp_path / "source", settings)
    assert index.captions_per_image == 5
    data = PreparedSplit(tmp_path / "out", "test", SIZE)
    captions = data.captions(range(len(data)))
    assert sorted(captions) == sorted(item.captions for item in VAL)
    pictures = dict(zip(captions, data.images(range(6)), strict=True))
    for item in VAL:
        found = hashlib.sha256(pictures[item.captions].numpy().tobytes()).hexdigest()
        assert found == digest_of(item)[0]


def test_captions_are_read_when_asked_for(tmp_path: Path) -> None:
    write_coco(tmp_path / "source", TRAIN, VAL)
    prepare_coco(
        tmp_path / "source", Preparation(output=tmp_path / "out", num_validation=3, workers=0)
    )
    for split, per_image in (("fit", 5), ("test", 1)):
        rows = PreparedSplit(tmp_path / "out", split, SIZE).captions(range(6))
        expected = tuple(caption for row in rows for caption in row[:per_image])
        captions = open_split(tmp_path / "out", split, SIZE).captions
        assert tuple(captions)[: len(expected)] == expected
        assert captions[2:5] == expected[2:5]
        assert captions[-1] == captions[len(captions) - 1] == tuple(captions)[-1]
        with pytest.raises(IndexError):
            captions[len(captions)]


def test_items_have_names_to_find_them_by(prepared: Path) -> None:
    images = open_split(prepared, "test", SIZE).images
    assert sorted(item_names(images, range(len(VAL)))) == [
        f"ILSVRC2012_val_{number:08d}" for number in range(1, len(VAL) + 1)
    ]
    assert item_names(torch.zeros(3, 3, 8, 8), [2, 0]) == ["2", "0"]


def test_cc3m_is_read_where_it_lies(tmp_path: Path) -> None:
    train = write_img2dataset(tmp_path / "train", TRAIN, per_shard=4, missing=3)
    val = write_img2dataset(tmp_path / "val", VAL)
    before = {path: path.read_bytes() for path in (*train, *val)}
    index = prepare_cc3m(
        [str(tmp_path / "train" / "{00000..00003}.tar")],
        [str(tmp_path / "val" / "*.tar")],
        Preparation(output=tmp_path / "out", num_validation=3, workers=0),
    )
    assert dict(index.splits) == {"fit": 12, "validation": 3, "test": 6}
    assert index.counts["missing"] == 3
    assert not list((tmp_path / "out").glob("*.tar"))
    assert {path: path.read_bytes() for path in (*train, *val)} == before
    found = []
    for split in ("fit", "validation"):
        data = PreparedSplit(tmp_path / "out", split, SIZE)
        found += data.captions(range(len(data)))
    assert sorted(found) == sorted((item.captions[0],) for item in TRAIN)


@pytest.mark.parametrize("name", ["num_validation", "image_size", "workers", "items_per_shard"])
def test_bad_settings_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least [01], got -1"):
        Preparation(output=tmp_path, **{name: -1})
