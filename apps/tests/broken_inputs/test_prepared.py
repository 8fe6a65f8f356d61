"""What breaks after the preparation: each docstring is a row of docs/broken-inputs.md."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from adanat.errors import DataError
from adanat.prepare import Preparation, PreparedSplit, prepare_cc3m, prepare_coco, prepare_imagenet
from adanat.prepare.index import INDEX_FILE
from tiny_data_sets import SIZE, preparation, prepare_shards


@pytest.fixture
def prepared(cc3m: Path, tmp_path: Path) -> Path:
    prepare_shards(cc3m, tmp_path)
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


STUCK_READER = """
import sys, time
from pathlib import Path
from adanat.prepare import PreparedSplit
from adanat.prepare.members import Member

Member.read = lambda self: time.sleep(600)
PreparedSplit(Path(sys.argv[1]), "fit", 16, timeout=0.2).images([0])
"""


def test_stuck_disk(prepared: Path) -> None:
    """A disk or mount that does not answer | refused after the timeout, the shard is named."""
    done = subprocess.run(
        [sys.executable, "-c", STUCK_READER, str(prepared)],
        capture_output=True,
        text=True,
        timeout=200,  # the process must leave though its reader does not come back
        check=False,
    )
    assert re.search(r"sample 0 .*00000.tar\) did not come within 0.2 s", done.stderr)


def test_too_few_to_hold_out(cc3m: Path, tmp_path: Path) -> None:
    """No more training samples than are to be held out | refused, with both numbers."""
    settings = Preparation(output=tmp_path / "out", num_validation=5, workers=0)
    with pytest.raises(DataError, match=r"5 of 5 training samples cannot be held out"):
        prepare_cc3m([str(cc3m / "train" / "*.tar")], [str(cc3m / "val" / "*.tar")], settings)
