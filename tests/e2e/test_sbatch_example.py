"""The Slurm example: requeued after a signal and after failures, with stand-ins for Slurm."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

# Like the real one, srun kills its tasks when it gets SIGTERM; scancel's signals reach them.
SRUN = """#!/bin/bash
(
  trap 'sleep 0.2; echo saved >> "$LOG"; exit 1' TERM
  echo "$BASHPID" > "$LOG.task"
  echo "started $*" >> "$LOG"
  while [[ $ENDS_WITH == signal ]]; do sleep 0.05; done
  exit "$ENDS_WITH"
) &
task=$!
trap 'kill -KILL $task' TERM
wait $task
"""
SCANCEL = """#!/bin/bash
[[ $* == "--signal=TERM 7" ]] && kill -TERM "$(cat "$LOG.task")"
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo node-1; echo node-2; else echo "$*" >> "$LOG"; fi
"""


class Job:
    """The script under stand-ins of Slurm's commands, which write down what they are asked."""

    def __init__(self, script: Path, folder: Path, ends_with: str, restarts: int = 0) -> None:
        self._log = folder / "log"
        self._log.touch()
        for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.process = subprocess.Popen(
            ["bash", str(script)],
            env={
                "PATH": f"{folder}:{os.environ['PATH']}",
                "LOG": str(self._log),
                "ENDS_WITH": ends_with,
                "DATA": "/data",
                "RUN": "/runs/in256",
                "SLURM_JOB_ID": "7",
                "SLURM_JOB_NODELIST": "node-[1-2]",
                "SLURM_NNODES": "2",
                "SLURM_CPUS_PER_TASK": "64",
                "SLURM_RESTART_COUNT": str(restarts),
            },
        )

    def log(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture
def script(workspace_root: Path) -> Path:
    return workspace_root / "docs" / "sbatch-in256.sh"


def test_a_finished_run_ends_the_job(script: Path, tmp_path: Path) -> None:
    job = Job(script, tmp_path, "0")
    assert job.process.wait(60) == 0
    (started,) = job.log()
    assert "--cpus-per-task=64" in started  # srun does not take it over from sbatch
    assert "--rdzv-endpoint=node-1:29500" in started
    assert started.endswith("-m adanat train in256 --data-dir /data --output-dir /runs/in256")


def test_a_signal_requeues_once_the_workers_have_saved(script: Path, tmp_path: Path) -> None:
    job = Job(script, tmp_path, "signal")
    until = time.monotonic() + 60
    while not job.log() and time.monotonic() < until:
        time.sleep(0.05)
    job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(60) != 0
    assert job.log()[1:] == ["saved", "requeue 7"]


@pytest.mark.parametrize(("restarts", "requeued"), [(0, ["requeue 7"]), (10, [])])
def test_failures_are_tried_again_a_few_times(
    script: Path, tmp_path: Path, restarts: int, requeued: list[str]
) -> None:
    job = Job(script, tmp_path, "3", restarts)
    assert job.process.wait(60) == 3
    assert job.log()[1:] == requeued
