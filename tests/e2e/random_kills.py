"""Twenty kills at random moments of tiny runs lose nothing but the work since a checkpoint.

It takes as long as some seven tiny runs, so its name keeps it out of the suite. By hand:
`hatch run apps:test tests/e2e/random_kills.py -s`.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from adanat.cli import main
from run_results import measured, progress

KILLS = 20
SEED = 0


def run(folder: Path) -> None:
    """The command, silent."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        main(["run", "tiny", "--output-dir", str(folder)])


def survives(folder: Path, seconds: float | None) -> bool:
    """Go on with the run for so long, then kill -9; whether it ended by itself."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(folder,))
    process.start()  # by a fork, which spares twenty times the imports
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


@pytest.mark.timeout(7200)
def test_twenty_random_kills_lose_nothing_but_the_work_since_a_checkpoint(tmp_path: Path) -> None:
    began = time.monotonic()
    assert survives(tmp_path / "whole", None)
    whole = time.monotonic() - began
    expected, pick = measured(tmp_path / "whole"), random.Random(SEED)
    folders, kills = [tmp_path / "0"], 0
    while kills < KILLS:
        folder = folders[-1]
        before = progress(folder)
        if survives(folder, pick.uniform(0, whole / 3)):
            folders.append(tmp_path / str(len(folders)))  # a run is over: kill the next one
            continue
        kills += 1
        after = progress(folder)
        kept = {name: after.get(name, 0) >= value for name, value in before.items()}
        assert all(kept.values()), kept
        print(f"kill {kills}, run {folder.name}: kept {len(after)} of its parts", flush=True)
    assert survives(folders[-1], None)
    for folder in folders:
        assert measured(folder) == expected
    print(f"{len(folders)} runs; alone one takes {whole:.0f} s")
