"""The pytest plugin of the suites: options, the workload, and what a result file records."""

import math
import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest
import torch

from natbench.calibration import CLOCKS
from natbench.presets import PRESETS, Preset
from natbench.workload import Workload, build_workload

_MEASURED = ("natbench", "vqtok", "natgen", "policyrl", "advreward", "torch", "timm", "xformers")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options that `natbench` hands on."""
    group = parser.getgroup("natbench")
    group.addoption("--preset", choices=list(PRESETS), default="laptop")
    group.addoption("--device", default="cpu")
    group.addoption("--precision", choices=["fp32", "bf16"], default="fp32")
    group.addoption("--batch-size", type=int)
    group.addoption("--clock", choices=list(CLOCKS), default="wall")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives the suites the sizes of the preset."""
    preset = _preset(metafunc.config)
    generators = preset.generators
    if "num_steps" in metafunc.fixturenames:
        metafunc.parametrize("num_steps", preset.num_steps, ids=lambda steps: f"T{steps}")
    if "generator_name" in metafunc.fixturenames:
        metafunc.parametrize("generator_name", generators)
    if "attention_shape" in metafunc.fixturenames:
        shapes = {
            (math.prod(nat.feature_grid) + 1, nat.num_heads, nat.embed_dim // nat.num_heads)
            for nat in generators.values()
        }
        metafunc.parametrize(
            "attention_shape", sorted(shapes), ids=lambda shape: "x".join(map(str, shape))
        )


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Hardware, versions and settings beside the numbers: without them a number says nothing."""
    device = torch.device(config.getoption("device"))
    machine_info["natbench"] = {
        "preset": config.getoption("preset"),
        "batch_size": _preset(config).batch_size,
        "precision": config.getoption("precision"),
        "clock": config.getoption("clock"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in _MEASURED},
    }


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[object], output_json: dict[str, Any]
) -> None:
    """Keeps result files small: statistics without every single time and every flag of the CPU."""
    output_json["machine_info"]["cpu"].pop("flags", None)
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)


@pytest.fixture(scope="session")
def workload(pytestconfig: pytest.Config) -> Workload:
    """The models of the chosen preset."""
    return build_workload(
        _preset(pytestconfig),
        torch.device(pytestconfig.getoption("device")),
        pytestconfig.getoption("precision"),
        CLOCKS[pytestconfig.getoption("clock")],
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None  # xformers is installed where it may serve


def _preset(config: pytest.Config) -> Preset:
    preset = PRESETS[config.getoption("preset")]()
    batch_size = config.getoption("batch_size")
    return preset if batch_size is None else replace(preset, batch_size=batch_size)
