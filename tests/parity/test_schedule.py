"""The hand-made schedule against the recorded one (row 0 of the record has zero actions)."""

import json
from pathlib import Path

import torch
from natgen import COMPONENTS, published
from safetensors import safe_open
from torch import Tensor


def read_schedule(folder: Path) -> tuple[list[int], dict[str, Tensor]]:
    with safe_open(folder / "schedule.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return config["gen_steps"], tensors


def test_published_schedule_of_unit_scales(reference_dir: Path) -> None:
    step_counts, tensors = read_schedule(reference_dir)
    assert step_counts
    for num_steps in step_counts:
        assert not tensors[f"T{num_steps}.in.actions"][0].any()
        columns = [tensors[f"T{num_steps}.out.{name}"][0] for name in COMPONENTS]
        schedule = published(
            num_steps, remask_temperature=1.0, sampling_temperature=1.0, guidance_scale=1.0
        )
        torch.testing.assert_close(
            schedule.values, torch.stack(columns, dim=-1), atol=1e-5, rtol=1e-5
        )


def test_scales_multiply_the_recorded_schedule(reference_dir: Path) -> None:
    step_counts, tensors = read_schedule(reference_dir)
    scales = torch.tensor([1.0, 4.5, 1.0, 3.0])
    for num_steps in step_counts:
        columns = [tensors[f"T{num_steps}.out.{name}"][0] for name in COMPONENTS]
        expected = torch.stack(columns, dim=-1) * scales
        torch.testing.assert_close(published(num_steps).values, expected, atol=5e-5, rtol=1e-5)
