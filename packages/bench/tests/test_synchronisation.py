"""No decoding step after the first makes the host wait for values from the device.

Seen without a GPU: operators whose result or whose shape the host needs are noted by name.
"""

from __future__ import annotations

import natgen
import pytest
import torch
from natbench import PRESETS
from natbench.workload import Workload, build_workload
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal", "is_nonzero")


class WaitingOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.lstrip("_")
        indices = args[1] if name == "index" else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if by_mask or any(name.startswith(waiting.lstrip("_")) for waiting in WAITING):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def workload() -> Workload:
    return build_workload(PRESETS["tiny"](), torch.device("cpu"), "fp32", lambda: 0.0)


@pytest.mark.parametrize("chooser", ["schedule", "policy"])
def test_steps_after_the_first_never_wait(
    workload: Workload, monkeypatch: pytest.MonkeyPatch, chooser: str
) -> None:
    monkeypatch.setattr("natgen.decoding.defers_guidance", lambda state: False)  # as on a GPU
    policy = getattr(workload, chooser)(4)
    indices = torch.arange(len(workload.labels))
    state = natgen.init_state(workload.nat, workload.labels, indices)
    with torch.no_grad():
        with WaitingOperators() as first:
            state, _ = natgen.step(workload.nat, policy, state, workload.noise)
        with WaitingOperators() as later:
            for _ in range(3):
                state, _ = natgen.step(workload.nat, policy, state, workload.noise)
    assert any("unique" in name for name in first.seen)  # the net does catch
    assert later.seen == []
    assert bool((state.drawn < workload.nat.mask_token_id).all())
