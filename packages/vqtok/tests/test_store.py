import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vqtok import TokenStore, TokenStoreWriter

TOKENS = torch.randint(0, 500, (10, 2, 3), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(10) % 4
TEXT = torch.randn(10, 5, 2, generator=torch.Generator().manual_seed(1)).half()


def open_writer(path: Path, **change: Any) -> TokenStoreWriter:
    arguments: dict[str, Any] = {
        "num_items": 10,
        "grid_size": (2, 3),
        "codebook_size": 500,
        "conditions": {"labels": ("int64", ()), "text": ("float16", (5, 2))},
        "metadata": {"tokenizer": "abc"},
    }
    return TokenStoreWriter(path, **{**arguments, **change})


def write(writer: TokenStoreWriter, start: int, end: int) -> None:
    conditions = {"labels": LABELS[start:end], "text": TEXT[start:end]}
    writer.write(start, TOKENS[start:end], conditions)


def write_all(path: Path) -> None:
    writer = open_writer(path)
    write(writer, 0, 7)
    write(writer, 7, 10)
    writer.close()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_all(tmp_path / "store")
    store = TokenStore(tmp_path / "store")
    assert len(store) == 10
    assert store.grid_size == (2, 3)
    assert store.codebook_size == 500
    assert store.metadata == {"tokenizer": "abc"}
    assert store.tokens.dtype == np.uint16
    assert store.conditions["labels"].shape == (10,)

    indices = torch.tensor([9, 0, 0, 4])
    token_grid, conditions = store.batch(indices)
    assert token_grid.dtype == conditions["labels"].dtype == torch.int64
    assert torch.equal(token_grid, TOKENS[indices])
    assert torch.equal(conditions["labels"], LABELS[indices])
    assert torch.equal(conditions["text"], TEXT[indices])
    assert torch.equal(store.batch([3])[0], TOKENS[3:4])


def test_largest_token_fits(tmp_path: Path) -> None:
    writer = open_writer(tmp_path, num_items=1, codebook_size=2**16, conditions={})
    writer.write(0, torch.full((1, 2, 3), 2**16 - 1), {})
    writer.close()
    assert TokenStore(tmp_path).batch([0])[0].unique().tolist() == [2**16 - 1]


def test_interrupted_writing_goes_on(tmp_path: Path) -> None:
    write(open_writer(tmp_path), 0, 4)
    with pytest.raises(ValueError, match="incomplete, 4 of 10"):
        TokenStore(tmp_path)

    writer = open_writer(tmp_path)
    assert writer.num_written == 4
    write(writer, 4, 10)
    writer.close()
    assert torch.equal(TokenStore(tmp_path).batch(range(10))[0], TOKENS)


def test_store_cut_off_while_it_was_laid_out_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "tokens.npy").write_bytes(b"half an array")
    write_all(tmp_path)
    assert len(TokenStore(tmp_path)) == 10


def test_out_of_range_index(tmp_path: Path) -> None:
    write_all(tmp_path)
    for index in (10, -1):
        with pytest.raises(IndexError, match=rf"index {index} is out of"):
            TokenStore(tmp_path).batch([0, index])


def test_closing_too_early(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    write(writer, 0, 3)
    with pytest.raises(ValueError, match="3 of 10 items"):
        writer.close()


def test_resuming_with_other_arguments(tmp_path: Path) -> None:
    write(open_writer(tmp_path), 0, 3)
    with pytest.raises(ValueError, match="codebook_size is 500 on disk, 600 was asked for"):
        open_writer(tmp_path, codebook_size=600)


def test_writing_to_a_complete_store(tmp_path: Path) -> None:
    write_all(tmp_path)
    with pytest.raises(ValueError, match="already complete"):
        open_writer(tmp_path)


def test_missing_store(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"store\.json is missing"):
        TokenStore(tmp_path)


def test_file_that_does_not_fit(tmp_path: Path) -> None:
    write_all(tmp_path)
    np.save(tmp_path / "condition_labels.npy", np.zeros(9, dtype=np.int64))
    with pytest.raises(ValueError, match=r"condition_labels\.npy.*\(9,\).*\(10,\)"):
        TokenStore(tmp_path)


@pytest.mark.parametrize("size", [0, 40, -1])
def test_files_cut_off_are_named(tmp_path: Path, size: int) -> None:
    write_all(tmp_path)
    file = tmp_path / "condition_text.npy"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"condition_text\.npy is cut off or damaged"):
        TokenStore(tmp_path)


def test_cut_off_files_are_not_continued(tmp_path: Path) -> None:
    write(open_writer(tmp_path), 0, 4)
    file = tmp_path / "tokens.npy"
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"tokens\.npy is cut off or damaged"):
        open_writer(tmp_path)


def test_conditions_in_bfloat16(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    writer.write(0, TOKENS, {"labels": LABELS, "text": TEXT.bfloat16()})
    writer.close()
    assert torch.equal(TokenStore(tmp_path).batch(range(10))[1]["text"], TEXT.bfloat16().half())


def test_bad_batches_leave_the_store_as_it_was(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    write(writer, 0, 3)
    good = {"labels": LABELS[3:5], "text": TEXT[3:5]}
    tokens = TOKENS[3:5]
    for start, token_grid, conditions, message in [
        (2, tokens, good, "next item to write is 3, got start 2"),
        (3, TOKENS[:9], good, "past the end of 10"),
        (3, tokens, {"labels": LABELS[3:5]}, "labels.*text.*got.*labels"),
        (3, tokens, {**good, "labels": LABELS[3:6]}, r"condition_labels.*\(2,\).*\(3,\)"),
        (3, tokens[:, :1], good, r"tokens.*\(2, 2, 3\).*\(2, 1, 3\)"),
        (3, tokens + 500, good, r"\[0, 500\)"),
        (3, tokens, {**good, "labels": LABELS[3:5] + 0.5}, "condition_labels.*int64.*float32"),
    ]:
        with pytest.raises(ValueError, match=message):
            writer.write(start, token_grid, conditions)
    assert writer.num_written == 3
    write(writer, 3, 10)
    writer.close()
    assert torch.equal(TokenStore(tmp_path).batch(range(10))[0], TOKENS)


def test_codebook_too_large_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"65536\], got 65537"):
        open_writer(tmp_path, codebook_size=2**16 + 1)


@pytest.mark.parametrize(("dtype", "label"), [("uint8", 256), ("uint8", -1), ("int16", 2**15)])
def test_conditions_that_would_wrap_around_are_refused(
    tmp_path: Path, dtype: str, label: int
) -> None:
    writer = open_writer(tmp_path, num_items=2, conditions={"labels": (dtype, ())})
    with pytest.raises(ValueError, match=rf"condition_labels is stored as {dtype}.*{label}"):
        writer.write(0, torch.ones_like(TOKENS[:2]), {"labels": torch.tensor([label, 3])})
    assert not np.load(tmp_path / "tokens.npy").any()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve room")
def test_full_disk_is_reported_up_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(OSError, match=r"cannot reserve 248 bytes for .*tokens\.npy: No space"):
            open_writer(tmp_path)
    write_all(tmp_path)
    assert len(TokenStore(tmp_path)) == 10
