"""Stage folders and metric logs."""

import enum
import errno
import json
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from adanat.errors import StageError, StorageError
from adanat.metrics_log import MetricsLog, read_metrics
from adanat.runs import Stage, config_to_json, fingerprint


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True, kw_only=True)
class Inner:
    rates: tuple[float, ...] = (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Config:
    size: int = 3
    inner: Inner = field(default_factory=Inner)
    colour: Colour = Colour.RED
    path: Path = Path("a/b")


def test_config_to_json_names_types() -> None:
    assert config_to_json(Config()) == {
        "type": "Config",
        "size": 3,
        "inner": {"type": "Inner", "rates": [0.5, 1.0]},
        "colour": "RED",
        "path": "a/b",
    }


@pytest.mark.parametrize("value", [object(), math.nan, {1, 2}, b"x", Config])
def test_config_to_json_refuses_what_json_cannot_tell(value: object) -> None:
    with pytest.raises(TypeError, match="a config cannot hold"):
        config_to_json({"x": value})


def test_fingerprint_ignores_key_order_only() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_a_stage_is_done_only_after_finish(tmp_path: Path) -> None:
    stage = Stage("train", tmp_path / "train", Config())
    assert not stage.is_done()
    assert not stage.folder.exists()
    with pytest.raises(KeyboardInterrupt), stage:
        raise KeyboardInterrupt
    assert not stage.is_done()
    with pytest.raises(StageError, match="not finished: run it first"):
        stage.results()
    with stage:
        stage.finish({"loss": 0.5})
    again = Stage("train", tmp_path / "train", Config())
    assert again.is_done()
    assert again.results() == {"loss": 0.5}


def test_seconds_add_up_over_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage("train", tmp_path, Config())
    clock = iter([10.0, 12.0, 100.0, 103.0, 103.5])
    monkeypatch.setattr("adanat.runs.time.monotonic", lambda: next(clock))
    with stage:
        pass
    with stage:
        stage.finish({})
    assert stage.seconds() == pytest.approx(5.0)


def test_another_config_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    with Stage("train", tmp_path, Config()) as stage:
        stage.finish({})
    other = Stage("train", tmp_path, Config(size=4, inner=Inner(rates=(0.5,))))
    with pytest.raises(StageError) as caught:
        other.is_done()
    message = str(caught.value)
    assert "inner.rates: the folder has [0.5, 1.0], this run has [0.5]" in message
    assert "size: the folder has 3, this run has 4" in message
    assert "another --output-dir, or --overwrite" in message
    with pytest.raises(StageError, match="other settings"), other:
        pass


def test_a_longer_training_is_unfinished_work_and_a_shorter_one_another(tmp_path: Path) -> None:
    def stage(size: int, rate: float = 0.5) -> Stage:
        config = Config(size=size, inner=Inner(rates=(rate,)))
        return Stage("train", tmp_path, config, lengths=["size"])

    with stage(3) as first:
        first.finish({})
    longer = stage(4)
    assert not longer.is_done()
    with pytest.raises(StageError, match="not finished: run it first"):
        longer.results()
    assert stage(3).is_done()  # asking changes nothing
    with pytest.raises(KeyboardInterrupt), longer:
        raise KeyboardInterrupt
    assert not longer.is_done()
    with pytest.raises(StageError, match="size: the folder has 4, this run has 3"):
        stage(3).is_done()
    with pytest.raises(StageError, match=r"\[0\.5\], this run has \[0\.7\]\. Use"):
        stage(5, 0.7).is_done()
    with longer:
        longer.finish({})
    assert stage(4).is_done()


def test_a_changed_input_stage_is_a_change(tmp_path: Path) -> None:
    def stages(size: int) -> Stage:
        first = Stage("data", tmp_path / "data", Config(size=size))
        return Stage("train", tmp_path / "train", Config(), depends_on=[first])

    with stages(3) as stage:
        stage.finish({})
    assert stages(3).is_done()
    with pytest.raises(StageError, match="the output of stage 'data' has changed"):
        stages(4).is_done()


def test_clear_deletes_only_what_a_stage_made(tmp_path: Path) -> None:
    stage = Stage("train", tmp_path / "train", Config())
    stage.clear()
    with stage:
        stage.finish({})
    Stage("train", tmp_path / "train", Config(size=9)).clear()
    assert not stage.folder.exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(StageError, match="this program did not make it"):
        Stage("train", tmp_path / "photos", Config()).clear()
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("adanat.runs.fcntl.flock", refuse)
    with (
        pytest.raises(StorageError, match=r"cannot lock .*: Function not implemented. Choose"),
        Stage("train", tmp_path, Config()),
    ):
        pass


class SecondProcess:
    """A process on another node, which sees with a delay what the main one has written."""

    is_main = False

    def __init__(self, write: Callable[[], None]) -> None:
        self._writes = [threading.Timer(0.3, write), threading.Timer(0, lambda: None)]

    def wait(self) -> None:
        self._writes.pop().start()


def test_other_processes_see_that_a_stage_is_done(tmp_path: Path) -> None:
    def write() -> None:
        with Stage("train", tmp_path, Config()) as stage:
            stage.finish({"loss": 0.5})

    with Stage("train", tmp_path, Config(), processes=SecondProcess(write)) as stage:
        pass
    assert stage.results() == {"loss": 0.5}


def test_two_processes_cannot_work_on_one_stage(tmp_path: Path) -> None:
    with (
        Stage("train", tmp_path, Config()),
        pytest.raises(StageError, match="another process is working on stage 'train'"),
        Stage("train", tmp_path, Config()),
    ):
        pass
    with (
        Stage("train", tmp_path, Config()),
        pytest.raises(StageError, match="another process"),
    ):
        Stage("train", tmp_path, Config()).clear()
    assert (tmp_path / "config.json").is_file()
    with Stage("train", tmp_path, Config()):
        pass


def test_finish_outside_the_block_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="outside its with block"):
        Stage("train", tmp_path, Config()).finish({})


def test_a_full_disk_at_finish_leaves_the_stage_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stage = Stage("train", tmp_path, Config())
    with stage, monkeypatch.context() as patched:
        patched.setattr("adanat.checkpoints.os.fsync", fail)
        with pytest.raises(StorageError, match=r"done\.json: No space left"):
            stage.finish({})
    assert not stage.is_done()


def test_metrics_are_rows_of_strict_json(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.log(1, {"loss": 0.25})
        log.log(2, {"explained_variance": math.nan})
        log.sync()
    assert read_metrics(tmp_path) == [
        {"step": 1, "loss": 0.25},
        {"step": 2, "explained_variance": None},
    ]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_resuming_drops_later_and_torn_rows(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        for step in (10, 20, 30):
            log.log(step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    with MetricsLog(tmp_path, step=20) as log:
        log.log(30, {"loss": -1.0})
    assert [row["loss"] for row in read_metrics(tmp_path)] == [10.0, 20.0, -1.0]
    with MetricsLog(tmp_path):
        pass
    assert read_metrics(tmp_path) == []


def test_damage_in_the_middle_of_the_metrics_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(StorageError, match="line 2 is damaged"):
        read_metrics(tmp_path)


def test_config_json_is_readable(tmp_path: Path) -> None:
    with Stage("train", tmp_path, Config()):
        pass
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["stage"] == "train"
    assert written["config"]["inner"]["rates"] == [0.5, 1.0]
