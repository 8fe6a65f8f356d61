"""The examples do what they say, as the numbers that they print."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from workspace import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pendulum_is_swung_up() -> None:
    example = load("gymnasium_control")
    assert example.average_return(example.train()) > example.GOOD_RETURN


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_learned_sampler_beats_equal_steps_and_its_own_average() -> None:
    errors = load("rectified_flow_sampler").main()
    assert errors["policy"] < 0.5 * errors["by hand"]
    assert errors["policy"] < 0.5 * errors["its average"]


def test_a_rollout_takes_little_more_than_its_observations() -> None:
    sizes = "--num-episodes 256 --num-classes 10 --batch-size 16 --feature-shape 64 256"
    command = [sys.executable, "examples/rollout_memory.py", "--device", "cpu", *sizes.split()]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rollout, growth = map(int, re.findall(r"(\d+) MiB", output))
    assert rollout == round((10 + 7 * 256) * 64 * 256 * 2 / 2**20)
    # A copy of the whole, or storage in float32, would double it.
    assert growth < 1.5 * rollout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 150
