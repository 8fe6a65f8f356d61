"""Models whose weights, gradients and optimizer state are spread over the processes (FSDP2).

accelerate starts its FSDP for several GPUs only, so that no test on CPUs reaches it, and takes one
model, not a moving average beside it. `torch.distributed.fsdp.fully_shard` serves both, on the
processes that accelerate has joined.
"""

from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def shard(
    models: Iterable[nn.Module], optimizer: Optimizer, unit: type[nn.Module], mesh: DeviceMesh
) -> None:
    """Keep one part of every weight in each process.

    A forward pass gathers the weights of one unit at a time; a backward pass averages the gradients
    over the processes, of which each keeps its part. So all processes make the same passes.

    Saved states do not depend on the number of processes. All call ``state_dict`` together; process
    0 gets whole tensors, on the CPU, and the others keep their parts. ``load_state_dict`` takes
    whole tensors, in every process the same.

    Args:
        models: With the same weights in every process; changed in place.
        optimizer: Of parameters of these models, before its first step.
        unit: Modules of this class are gathered one by one; what lies outside of them, together.
        mesh: The processes, in one dimension.
    """
    models = list(models)
    places = {parameter: place for model in models for place, parameter in _parameters(model)}
    for model in models:
        for module in (*(m for m in model.modules() if isinstance(m, unit)), model):
            sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
            if mesh.device_type == "cpu":  # gloo adds up, but takes no mean
                sharded.set_force_sum_reduction_for_comms(True)
        model.register_state_dict_post_hook(_whole_weights)
        model.register_load_state_dict_pre_hook(_split_weights)
    for group in optimizer.param_groups:
        group["params"] = [getattr(*places[parameter]) for parameter in group["params"]]
    optimizer.register_state_dict_post_hook(_whole_moments)
    optimizer.register_load_state_dict_pre_hook(_split_moments)


def _parameters(model: nn.Module) -> Iterator[tuple[tuple[nn.Module, str], nn.Parameter]]:
    """Every parameter and where it is an attribute: sharding puts another one there."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield (module, name), parameter


def _whole(value: Any) -> Any:
    """A sharded tensor put together for process 0; anything else as it is."""
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()  # all processes take part
    if value.device_mesh.get_rank() != 0:
        return value
    return whole.to("cpu", copy=True)  # or it may be a view of padded storage


def _split(value: Any, like: nn.Parameter) -> Any:
    """This process's part of a tensor of the parameter's shape; anything else as it is."""
    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    # Every process has the whole: nothing needs to be sent.
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def _whole_weights(
    _model: nn.Module, state: MutableMapping[str, Any], _prefix: str, _metadata: dict[str, Any]
) -> None:
    state.update({name: _whole(value) for name, value in state.items()})


def _split_weights(
    model: nn.Module, state: MutableMapping[str, Any], prefix: str, *_others: object
) -> None:
    for name, parameter in model.named_parameters(prefix.removesuffix(".")):
        if name in state:
            state[name] = _split(state[name], parameter)


def _whole_moments(_optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    whole = {
        index: {name: _whole(value) for name, value in moments.items()}
        for index, moments in state["state"].items()
    }
    return {**state, "state": whole}


def _split_moments(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {
        index: {name: _split(value, parameters[index]) for name, value in moments.items()}
        for index, moments in state["state"].items()
    }
    return {**state, "state": parts}
