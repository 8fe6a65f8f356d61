"""Progress where there is no terminal: plain lines with rate and time left."""

import pytest
from adanat.progress import ProgressReporter


def test_lines_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr("adanat.progress.time.monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr("adanat.progress.Progress.get_time", lambda self: 0.0, raising=False)
    with ProgressReporter("train", 100, completed=50) as progress:
        for _ in range(10):
            progress.advance(values={"loss": 0.125})
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("train: ") and "/100" in line for line in lines)
    assert lines[-1].startswith("train: 60/100")
    assert "  0:09:20 left  " in lines[-1]
    assert lines[-1].endswith("loss 0.125")


def test_nothing_done_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressReporter("train", 5, completed=5):
        pass
    assert capsys.readouterr().err == ""
