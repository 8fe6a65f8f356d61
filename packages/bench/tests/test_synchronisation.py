"""No decoding step after the first makes the host wait for values from the device.

Seen without a GPU: operators whose result or whose shape the host needs are noted by name; and the
loop that becomes a CUDA graph runs on the meta device, which has shapes but no values to wait for.
"""

from __future__ import annotations

import copy

import natgen
import pytest
import torch
from natbench import PRESETS
from natbench.workload import Workload, build_workload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


class HostTensors(TorchDispatchMode):
    """Notes operators that touch a tensor of the host: a graph cannot hold such a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        if any(tensor.device.type != "meta" for tensor in tensors):
            self.seen.append(func.overloadpacket.__name__)
        return result


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


def test_roll_outs_never_wait_either(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natgen.environment.defers_guidance", lambda state: False)  # as on a GPU
    policy, labels = workload.policy(4), workload.labels
    environment = natgen.DecodingEnvironment(
        workload.nat, num_steps=4, conditions=lambda episodes: labels, noise=workload.noise
    )
    observation = environment.reset(torch.arange(len(labels)))
    with WaitingOperators() as later:
        for _ in range(4):
            raw, _ = policy.act(observation, torch.zeros(len(labels), 4))
            action = policy.spec.activate(raw, observation["timestep"])
            observation, _, ended = environment.step(action)
    assert later.seen == []
    assert bool(ended.all())


@pytest.mark.parametrize("chooser", ["schedule", "policy"])
def test_the_loop_of_a_graph_needs_no_values_and_no_host(workload: Workload, chooser: str) -> None:
    policy = getattr(workload, chooser)(4)
    indices = torch.arange(len(workload.labels))
    on_host = natgen.StaticDecoder(workload.nat, policy, batch_size=8, noise=workload.noise)
    inputs = on_host._inputs(natgen.init_state(workload.nat, workload.labels, indices))
    if isinstance(policy, torch.nn.Module):
        policy.to("meta")
    decoder = natgen.StaticDecoder(
        copy.deepcopy(workload.nat).to("meta"), policy, batch_size=8, noise=workload.noise
    )
    there = type(inputs)(*(tensor.to("meta") for tensor in inputs))
    with torch.no_grad(), HostTensors() as host:
        tokens = decoder._loop(there)
    assert tokens.shape == (8, workload.nat.seq_len)
    assert host.seen == []
    with HostTensors() as host:
        there.condition.copy_(inputs.condition)  # the net does catch
    assert host.seen == ["copy_"]
