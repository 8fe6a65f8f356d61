"""Broken copies of MS-COCO: each docstring is a row of docs/broken-inputs.md."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from adanat.errors import DataError
from adanat.prepare import PreparedSplit, prepare_coco
from tiny_data_sets import SIZE, preparation


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
    """Captions of an image whose file is missing | skipped, counted."""
    (coco / "train2014" / "COCO_train2014_000000000003.jpg").unlink()
    index = prepare_coco(coco, preparation(tmp_path, max_bad_fraction=0.2))
    assert index.counts["skipped"] == {"the image file is missing": 1}
    assert index.splits["fit"] + index.splits["validation"] == 4


def test_half_an_archive(coco: Path, tmp_path: Path) -> None:
    """An archive of which only some images were unpacked | refused, one is named."""
    for number in (2, 3, 5):
        (coco / "train2014" / f"COCO_train2014_{number:012d}.jpg").unlink()
    with pytest.raises(DataError, match=r"in train-000000.tar, COCO_train2014_\d+: the image file"):
        prepare_coco(coco, preparation(tmp_path, max_bad_fraction=0.2))


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
