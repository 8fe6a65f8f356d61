"""Checkpoints and files: whole or absent, whatever happens."""

import errno
import json
import multiprocessing
import os
import random
import resource
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest
import torch
from adanat import checkpoints
from adanat.checkpoints import (
    atomic_write_json,
    atomic_write_text,
    best_state,
    complete_steps,
    latest_state,
    mark_best,
    read_json,
    save_state,
)
from adanat.errors import StorageError


def _state(step: int, size: int = 8) -> dict:
    return {"weights": torch.full((size,), float(step)), "nested": {"counts": [step], "name": "x"}}


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_round_trip_of_tensors_and_builtins(tmp_path: Path) -> None:
    save_state(tmp_path, 7, _state(7))
    found = latest_state(tmp_path)
    assert found is not None
    assert found.step == 7
    assert torch.equal(found.state["weights"], torch.full((8,), 7.0))
    assert found.state["nested"] == {"counts": [7], "name": "x"}


def test_no_folder_or_an_empty_one_has_no_state(tmp_path: Path) -> None:
    assert latest_state(tmp_path / "absent") is None
    assert latest_state(tmp_path) is None
    assert best_state(tmp_path) is None


def test_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 7):
        save_state(tmp_path, step, _state(step), keep_last=2)
        if step == 2:
            mark_best(tmp_path, 2)
    assert complete_steps(tmp_path) == [2, 5, 6]
    best = best_state(tmp_path)
    assert best is not None
    assert best.step == 2
    mark_best(tmp_path, 6)
    save_state(tmp_path, 7, _state(7), keep_last=1)
    assert complete_steps(tmp_path) == [6, 7]


def test_only_complete_checkpoints_can_be_best(tmp_path: Path) -> None:
    save_state(tmp_path, 1, _state(1))
    with pytest.raises(StorageError, match=r"no complete checkpoint of step 2.*it has \[1\]"):
        mark_best(tmp_path, 2)


def test_an_incomplete_newest_checkpoint_is_passed_over_and_replaced(tmp_path: Path) -> None:
    save_state(tmp_path, 1, _state(1))
    for damage in ("no marker", "short state", "broken marker"):
        folder = save_state(tmp_path, 2, _state(2))
        if damage == "no marker":
            (folder / "complete.json").unlink()
        elif damage == "short state":
            (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:-1])
        else:
            (folder / "complete.json").write_text("{")
        found = latest_state(tmp_path)
        assert found is not None
        assert found.step == 1, damage
    save_state(tmp_path, 2, _state(2))
    assert complete_steps(tmp_path) == [1, 2]


def test_leftovers_of_killed_saves_are_removed(tmp_path: Path) -> None:
    save_state(tmp_path, 1, _state(1))
    (tmp_path / ".tmp-step-000000002").mkdir()
    (tmp_path / ".tmp-step-000000002" / "state.pt").write_bytes(b"half")
    (tmp_path / ".tmp-best").write_bytes(b"half")
    latest_state(tmp_path)
    assert _names(tmp_path) == {"step-000000001"}


def test_damage_inside_a_complete_checkpoint_is_named(tmp_path: Path) -> None:
    folder = save_state(tmp_path, 3, _state(3))
    size = (folder / "state.pt").stat().st_size
    (folder / "state.pt").write_bytes(b"\0" * size)
    with pytest.raises(StorageError, match=r"state\.pt is damaged.*Delete the folder"):
        latest_state(tmp_path)


def test_a_state_that_needs_unpickling_is_refused_on_reading(tmp_path: Path) -> None:
    save_state(tmp_path, 1, {"path": Path("not a builtin")})
    with pytest.raises(StorageError, match="damaged"):
        latest_state(tmp_path)


@pytest.mark.parametrize("arguments", [{"step": -1}, {"step": 0, "keep_last": 0}])
def test_bad_arguments_are_repeated_in_the_error(tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"must be at least \d, got -?\d"):
        save_state(tmp_path, state={}, **arguments)


@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
def test_disk_full_at_any_call_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save_state(tmp_path, 1, _state(1))

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.os, call, fail)
        with pytest.raises(StorageError, match=r"step 2 .*No space left.*resumes from step 1"):
            save_state(tmp_path, 2, _state(2))
    assert _names(tmp_path) == {"step-000000001"}
    save_state(tmp_path, 2, _state(2))
    assert complete_steps(tmp_path) == [1, 2]


def _save_beyond_the_file_limit(folder: Path, state: dict, result: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
    try:
        save_state(folder, 2, state)
    except StorageError as error:
        result.write_text(str(error))


def test_a_write_that_really_fails_half_way_leaves_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    folder, result = tmp_path / "checkpoints", tmp_path / "result"
    save_state(folder, 1, _state(1))
    # Made here: filling a large tensor in a forked process may wait for threads it does not have.
    large = _state(2, size=1_000_000)
    process = multiprocessing.get_context("fork").Process(
        target=_save_beyond_the_file_limit, args=(folder, large, result)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert "the same command then resumes from step 1" in result.read_text()
    assert _names(folder) == {"step-000000001"}


def _save_for_ever(folder: Path, saves_done: Synchronized) -> None:
    step = complete_steps(folder)[-1]
    while True:
        step += 1
        save_state(folder, step, _state(step, size=20_000), keep_last=1)
        mark_best(folder, step)
        saves_done.value += 1


def test_a_killed_process_never_leaves_a_half_checkpoint(tmp_path: Path) -> None:
    pick = random.Random(0)
    save_state(tmp_path, 0, _state(0))
    step = 0
    context = multiprocessing.get_context("fork")
    for _ in range(12):
        saves_done = context.Value("i", 0)
        process = context.Process(target=_save_for_ever, args=(tmp_path, saves_done))
        process.start()
        while saves_done.value == 0 and process.is_alive():
            time.sleep(0.001)
        time.sleep(pick.uniform(0, 0.03))
        process.kill()
        process.join()
        found = latest_state(tmp_path)
        assert found is not None
        assert found.step > step
        assert torch.equal(found.state["weights"], torch.full((20_000,), float(found.step)))
        best_state(tmp_path)
        assert not list(tmp_path.glob(".tmp-*"))
        step = found.step


def test_a_failed_write_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "file.json"
    atomic_write_json(path, {"a": 1})
    real = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        real(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(StorageError, match=r"cannot write .*file\.json: No space left .*MiB free"):
        atomic_write_text(path, "longer than before" * 10)
    assert read_json(path) == {"a": 1}
    assert _names(path.parent) == {"file.json"}


def test_json_is_strict_both_ways(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        atomic_write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(StorageError, match=r"cannot read .*x\.json"):
        read_json(tmp_path / "x.json")
    atomic_write_json(tmp_path / "x.json", {"b": [1, 2.5, None]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"b": [1, 2.5, None]}
