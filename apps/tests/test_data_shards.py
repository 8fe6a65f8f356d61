"""Shards: the same bytes every time, nothing half-written taken for whole, nothing unpickled."""

import errno
import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from adanat.data import (
    CAPTION,
    IMAGE,
    LABEL,
    METADATA,
    SPLITS,
    BadSamples,
    load_source,
    load_split,
    prepare_shards,
    read_index,
    read_samples,
    split_indices,
)
from adanat.errors import DataError, StorageError
from PIL import Image


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    prepare_shards("digits", folder)
    return folder


@pytest.fixture
def digits(prepared: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(prepared, tmp_path / "digits"))


def _png(value: int = 7, size: int = 8, mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (size, size), value).save(buffer, format="PNG")
    return buffer.getvalue()


def _tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shards_hold_the_source_split_by_split(prepared: Path) -> None:
    source = load_source("digits")
    splits = split_indices("digits", source)
    for name in SPLITS:
        images, labels, class_names, captions = load_split(prepared, name)
        expected = torch.from_numpy(source.images[splits[name]])
        assert images.dtype == torch.uint8
        assert torch.equal(images, expected[:, None].expand(-1, 3, -1, -1))
        assert labels.tolist() == source.labels[splits[name]].tolist()
        assert class_names == tuple("0123456789")
        assert captions == ()


def test_padding_is_black_and_centred(prepared: Path) -> None:
    plain = load_split(prepared, "test").images
    padded = load_split(prepared, "test", 11).images
    assert padded.shape == (300, 3, 11, 11)
    assert torch.equal(padded[:, :, 1:9, 1:9], plain)
    assert int(padded.sum(dtype=torch.int64)) == int(plain.sum(dtype=torch.int64))


def test_the_same_data_give_the_same_bytes(prepared: Path, tmp_path: Path) -> None:
    prepare_shards("digits", tmp_path)
    assert _contents(tmp_path) == _contents(prepared)


def test_a_prepared_folder_is_left_alone(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr("adanat.data.preparation.load_source", never)
    assert prepare_shards("digits", prepared) == read_index(prepared)
    with pytest.raises(DataError, match="holds shards of 'digits', not of 'fashion-mnist'"):
        prepare_shards("fashion-mnist", prepared)


def test_an_interrupted_preparation_is_not_taken_for_whole(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = []

    def full_disk(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("adanat.checkpoints.os.replace", full_disk)
        with pytest.raises(StorageError, match=r"validation-000000\.tar: No space left"):
            prepare_shards("digits", tmp_path)
    with pytest.raises(DataError, match="holds no prepared data"):
        load_split(tmp_path, "fit")
    prepare_shards("digits", tmp_path)
    assert _contents(tmp_path) == _contents(prepared)


def test_a_flipped_bit_names_the_shard(digits: Path) -> None:
    shard = digits / "test-000000.tar"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"test-000000\.tar is corrupt.*run `adanat data`"):
        load_split(digits, "test")
    load_split(digits, "validation")


def test_a_missing_shard_is_named(digits: Path) -> None:
    (digits / "fit-000000.tar").unlink()
    with pytest.raises(DataError, match=r"fit-000000\.tar is missing"):
        load_split(digits, "fit")


@pytest.mark.parametrize("text", ["{", "{}", '{"format": 1, "source": "digits"}', '{"format": 9}'])
def test_a_damaged_index_is_named(digits: Path, text: str) -> None:
    (digits / "index.json").write_text(text)
    with pytest.raises(DataError, match=r"index\.json"):
        load_split(digits, "fit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "train"}, "no split 'train'; it has fit, validation, test"),
        ({"split": "fit", "image_size": 7}, "image_size is 7, but images of digits have 8"),
        ({"split": "fit", "max_bytes": 1000}, "GiB of memory"),
    ],
)
def test_bad_requests(prepared: Path, arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_split(prepared, **arguments)


def _with_bad_sample(digits: Path, name: str, content: bytes) -> Path:
    """Replace a member of the test shard and let the index vouch for it."""
    import hashlib

    shard = digits / "test-000000.tar"
    with tarfile.open(shard) as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}
    key = sorted(members)[0].partition(".")[0]
    members[f"{key}.{name}"] = content
    _tar(shard, members)
    index = json.loads((digits / "index.json").read_text())
    index["splits"]["test"][0]["sha256"] = hashlib.sha256(shard.read_bytes()).hexdigest()
    (digits / "index.json").write_text(json.dumps(index))
    return shard


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("png", b"no picture", "cannot identify"),
        ("png", _png(size=1), r"\(1, 1\) pixels, the index says \(8, 8\)"),
        ("cls", b"10", "label is 10; labels run from 0 to 9"),
        ("cls", b"-1", "label is -1"),
    ],
)
def test_bad_samples_are_skipped_with_a_warning_until_too_many(
    digits: Path, name: str, content: bytes, message: str
) -> None:
    _with_bad_sample(digits, name, content)
    with pytest.raises(DataError, match=rf"test-000000\.tar, sample '\d+': .*{message}"):
        load_split(digits, "test")
    with pytest.warns(UserWarning, match="skipped 1 bad samples"):
        assert len(load_split(digits, "test", max_bad_fraction=0.01).images) == 299


def test_foreign_shards_are_read_as_they_are(tmp_path: Path) -> None:
    caption = "ein Kätzchen"
    shard = _tar(
        tmp_path / "00000.tar",
        {
            "000000000.jpg": _png(3, 5),
            "000000000.txt": caption.encode(),
            "000000000.json": b'{"width": 5}',
            "000000001.jpg": b"torn",
            "000000001.txt": b"x",
            "000000001.json": b"{}",
            "000000002.jpg": _png(4, 5),
            "000000002.json": b"{}",
        },
    )
    bad = BadSamples(limit=2)
    fields = {"image": IMAGE, "caption": CAPTION, "metadata": METADATA}
    samples = list(read_samples([shard], fields, bad))
    assert [sample["key"] for sample in samples] == ["000000000"]
    assert samples[0]["caption"] == caption
    assert samples[0]["metadata"] == {"width": 5}
    assert np.array_equal(samples[0]["image"], np.full((5, 5, 3), 3, dtype=np.uint8))
    assert len(bad.found) == 2
    assert "it has no .txt member" in bad.found[1]
    with pytest.raises(DataError, match=r"00000\.tar, sample '000000001'"):
        list(read_samples([shard], fields, BadSamples()))


class _Trap:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("sprung",))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trap = pickle.dumps(_Trap())
    names = ("0.pkl", "0.pickle", "0.pyd", "0.pth", "0.npy", "0.cls.pkl")
    shard = _tar(tmp_path / "x.tar", {"0.png": _png(), "0.cls": b"1", **dict.fromkeys(names, trap)})
    [sample] = read_samples([shard], {"image": IMAGE, "label": LABEL}, BadSamples())
    assert set(sample) == {"key", "image", "label"}
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("keep", "message"), [(0, "at its start"), (700, "at its start"), (1800, "after sample '0'")]
)
def test_a_torn_shard_is_named(tmp_path: Path, keep: int, message: str) -> None:
    members = {f"{i}.{name}": data for i in range(4) for name, data in {"cls": b"1"}.items()}
    shard = _tar(tmp_path / "torn.tar", members)
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"torn\.tar cannot be read {message}"):
        list(read_samples([shard], {"label": LABEL}, BadSamples()))


def test_commands_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="cannot be read at its start"):
        list(read_samples([Path("pipe:mkdir sprung")], {"label": LABEL}, BadSamples()))
    assert not (tmp_path / "sprung").exists()
