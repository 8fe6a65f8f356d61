"""From raw actions to decoding parameters against the record (reference section 6)."""

import json
from pathlib import Path

import pytest
import torch
from policyrl import DECODING_COMPONENTS, published_decoding_spec
from safetensors import safe_open

# Recorded name of each component's residual, in the order of the action.
RESIDUALS = ("manual_gen_ratios", "manual_temp", "manual_samp_temp", "manual_cfg")


@pytest.mark.parametrize(("residual", "suffix"), [(True, ""), (False, ".heu0")])
def test_activated_actions(reference_dir: Path, residual: bool, suffix: str) -> None:
    with safe_open(reference_dir / "schedule.safetensors", "pt") as file:
        for num_steps in json.loads(file.metadata()["config"])["gen_steps"]:
            spec = published_decoding_spec(num_steps, residual=residual)
            actions = file.get_tensor(f"T{num_steps}.in.actions")
            for t in range(num_steps):
                values = spec.activate(actions[:, t], t)
                for name in DECODING_COMPONENTS:
                    expected = file.get_tensor(f"T{num_steps}.out.{name}{suffix}")[:, t]
                    torch.testing.assert_close(values[name], expected, rtol=1e-5, atol=1e-5)


def test_residuals(reference_dir: Path) -> None:
    # The recorded ones were computed in single precision with cancellation, hence the tolerance.
    with safe_open(reference_dir / "schedule.safetensors", "pt") as file:
        for num_steps in json.loads(file.metadata()["config"])["gen_steps"]:
            offset = published_decoding_spec(num_steps, residual=True).offset
            for i, name in enumerate(RESIDUALS):
                expected = file.get_tensor(f"T{num_steps}.residual.{name}")
                torch.testing.assert_close(offset[:, i], expected, rtol=0, atol=2e-3)
