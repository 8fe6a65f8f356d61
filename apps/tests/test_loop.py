"""The training loop: resuming, signals, bad losses."""

import json
import math
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest
import torch
from adanat.checkpoints import complete_steps, latest_state
from adanat.engine import AccelerateEngine
from adanat.errors import StorageError, TrainingError
from adanat.loop import IntervalHook, PictureHook, train_loop
from adanat.metrics_log import read_metrics
from adanat.sampling_order import batch_indices
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STEPS = 23


class Trainer:
    """A regression with all that a state may hold: Adam, dropout from the global generator."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(), torch.nn.ReLU())
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.data = torch.linspace(-1, 1, 40).reshape(10, 4)

    def step(self, step: int) -> dict[str, float]:
        batch = self.data[batch_indices(10, 4, step, 0)]
        loss = (self.model(batch) - batch).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item(), "often_nan": math.nan if step % 2 else 1.0}

    def state_dict(self) -> dict:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def _train(
    folder: Path,
    *,
    before: Callable[[int], None] = lambda step: None,
    save_every: int = 5,
    total_steps: int = STEPS,
) -> Trainer:
    trainer = Trainer()

    def step_fn(step: int) -> dict[str, float]:
        before(step)
        return trainer.step(step)

    train_loop(
        step_fn=step_fn,
        total_steps=total_steps,
        folder=folder,
        get_state=trainer.state_dict,
        set_state=trainer.load_state_dict,
        description="test",
        save_every=save_every,
        log_every=4,
        hooks=[IntervalHook(6, lambda step: {"probe": torch.rand(()).item()})],
    )
    return trainer


def _assert_same_run(folder: Path, other: Path) -> None:
    assert (folder / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    first, second = latest_state(folder / "checkpoints"), latest_state(other / "checkpoints")
    assert first is not None
    assert second is not None
    assert first.step == second.step == STEPS
    torch.testing.assert_close(first.state, second.state, rtol=0, atol=0)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    _train(folder)
    return folder


class Killed(BaseException):
    """Stands for a kill: nothing in the program handles it."""


@pytest.mark.parametrize("stops", [(3,), (5,), (14, 17, 22), (0, 1, 2)])
def test_a_killed_run_resumes_to_the_same_result(
    tmp_path: Path, unbroken: Path, stops: tuple[int, ...]
) -> None:
    for stop in stops:

        def kill(step: int, stop: int = stop) -> None:
            if step == stop:
                raise Killed

        with pytest.raises(Killed):
            _train(tmp_path, before=kill)
        torch.rand(7)  # the global generator is elsewhere when the run goes on
    _train(tmp_path)
    _assert_same_run(tmp_path, unbroken)


def _train_counting(folder: Path, steps_done: Synchronized) -> None:
    def count(step: int) -> None:
        steps_done.value += 1

    torch.set_num_threads(1)
    _train(folder, before=count, save_every=2)


def test_a_run_under_sigkill_resumes_to_the_same_result(tmp_path: Path, unbroken: Path) -> None:
    pick = random.Random(1)
    context = multiprocessing.get_context("fork")
    kills = 0
    while True:
        steps_done = context.Value("i", 0)
        process = context.Process(target=_train_counting, args=(tmp_path, steps_done))
        process.start()
        enough = pick.randint(4, 9)  # with a save every 2 steps, each session gets further
        while steps_done.value < enough and process.is_alive():
            time.sleep(0.001)
        time.sleep(pick.uniform(0, 0.02))
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        kills += 1
    assert kills >= 2
    _assert_same_run(tmp_path, unbroken)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_then_exits(
    tmp_path: Path, unbroken: Path, number: signal.Signals, code: int
) -> None:
    def interrupt(step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), number)

    earlier = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught:
        _train(tmp_path, before=interrupt)
    assert caught.value.code == code
    assert complete_steps(tmp_path / "checkpoints")[-1] == 8
    assert signal.getsignal(number) == earlier
    _train(tmp_path)
    _assert_same_run(tmp_path, unbroken)


@pytest.fixture
def heeded_ctrl_c() -> Iterator[None]:
    """A shell starts background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_ctrl_c")
def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def interrupt(step: int) -> None:
        # Not os.kill: two signals that reach another thread at once count as one.
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, before=interrupt)
    assert complete_steps(tmp_path / "checkpoints") == []


def test_a_second_sigterm_changes_nothing(tmp_path: Path) -> None:
    def interrupt(step: int) -> None:  # Slurm signals every process, torchrun its workers again
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)  # not to kill the tests
    try:
        with pytest.raises(SystemExit) as caught:
            _train(tmp_path, before=interrupt)
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert caught.value.code == 143
    assert complete_steps(tmp_path / "checkpoints") == [1]


def test_a_finished_run_only_loads_its_state(tmp_path: Path, unbroken: Path) -> None:
    def never(step: int) -> None:
        raise AssertionError(step)

    before = (unbroken / "metrics.jsonl").read_bytes()
    trainer = _train(unbroken, before=never)
    assert (unbroken / "metrics.jsonl").read_bytes() == before
    saved = latest_state(unbroken / "checkpoints")
    assert saved is not None
    torch.testing.assert_close(trainer.state_dict(), saved.state["trainer"], rtol=0, atol=0)


def test_logged_values_are_means_over_the_interval(tmp_path: Path) -> None:
    train_loop(
        step_fn=lambda step: {"value": float(step), "odd": math.nan if step % 2 == 0 else step},
        total_steps=5,
        folder=tmp_path,
        get_state=dict,
        set_state=lambda state: None,
        description="test",
        log_every=2,
    )
    assert read_metrics(tmp_path) == [
        {"step": 2, "value": 0.5, "odd": 1.0},
        {"step": 4, "value": 2.5, "odd": 3.0},
        {"step": 5, "value": 4.0, "odd": None},
    ]


def test_hooks_run_at_their_interval_and_at_the_end(tmp_path: Path) -> None:
    seen: list[int] = []
    train_loop(
        step_fn=lambda step: {},
        total_steps=7,
        folder=tmp_path,
        get_state=dict,
        set_state=lambda state: None,
        description="test",
        hooks=[IntervalHook(3, lambda step: seen.append(step) or {})],
    )
    assert seen == [3, 6, 7]


def test_time_alone_also_saves(tmp_path: Path) -> None:
    train_loop(
        step_fn=lambda step: {},
        total_steps=3,
        folder=tmp_path,
        get_state=dict,
        set_state=lambda state: None,
        description="test",
        save_every_seconds=0.0,
        keep_last=9,
    )
    assert complete_steps(tmp_path / "checkpoints") == [1, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_unsaved(tmp_path: Path, value: float) -> None:
    with pytest.raises(TrainingError, match=rf"test, step 4: policy_loss is {value}; "):
        train_loop(
            step_fn=lambda step: {"policy_loss": value if step == 4 else 1.0},
            total_steps=9,
            folder=tmp_path,
            get_state=dict,
            set_state=lambda state: None,
            description="test",
            save_every=2,
        )
    assert complete_steps(tmp_path / "checkpoints") == [2, 4]


def test_fewer_steps_than_were_done_are_refused(tmp_path: Path) -> None:
    _train(tmp_path, total_steps=6)
    with pytest.raises(TrainingError, match="is at step 6, beyond the 4 asked for"):
        _train(tmp_path, total_steps=4)


def test_bad_intervals_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="save_every must be at least 1, got 0"):
        _train(tmp_path, save_every=0)
    assert not list(tmp_path.iterdir())


def test_the_items_of_a_batch_without_a_finite_loss_are_kept(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"The items of its batch are in .*failed-batch.json"):
        train_loop(
            step_fn=lambda step: {"loss": math.nan if step == 3 else 1.0},
            total_steps=9,
            folder=tmp_path,
            get_state=dict,
            set_state=lambda state: None,
            description="test",
            batch_of=lambda step: [f"item {step}", "another"],
        )
    kept = json.loads((tmp_path / "failed-batch.json").read_text())
    assert kept == {"step": 3, "items": ["item 3", "another"]}


def test_processes_that_find_different_checkpoints_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccelerateEngine, "largest", lambda self, number: max(number, 5))
    with pytest.raises(StorageError, match=r"process 0 finds 0 steps done in .*, another one 5"):
        _train(tmp_path)


def test_processes_draw_their_own_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def train(name: str) -> None:
        torch.manual_seed(0)  # as all processes do, to begin with the same weights
        train_loop(
            step_fn=lambda step: drawn.append(torch.rand(()).item()) or {},
            total_steps=1,
            folder=tmp_path / name,
            get_state=dict,
            set_state=lambda state: None,
            description="test",
        )

    for name in ("main", "main again"):
        train(name)
    for index in (1, 2):
        monkeypatch.setattr(AccelerateEngine, "process_index", index)
        train(f"process {index}")
    torch.manual_seed(0)
    assert drawn[:2] == [torch.rand(()).item()] * 2
    assert len(set(drawn)) == 3


def test_pictures_are_kept_as_files_and_events(tmp_path: Path) -> None:
    def draw() -> torch.Tensor:
        return torch.linspace(0, 1, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)

    train_loop(
        step_fn=lambda step: {},
        total_steps=5,
        folder=tmp_path,
        get_state=dict,
        set_state=lambda state: None,
        description="test",
        pictures=[PictureHook(3, "samples", draw, columns=2)],
    )
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["samples-000000003.png", "samples-000000005.png"]
    with Image.open(tmp_path / "pictures" / names[0]) as found:
        assert found.size == (2 * (8 + 2) + 2, 2 * (8 + 2) + 2)  # make_grid's border of two
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("samples")] == [3, 5]
