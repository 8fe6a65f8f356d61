"""What an image costs: network passes, floating-point operations, time, memory."""

import resource
import sys
import time
from dataclasses import asdict, dataclass

import torch
from natgen import DecodingPolicy
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from adanat.evaluation.chunks import Times
from adanat.evaluation.generators import GeneratedSource


@dataclass(frozen=True, kw_only=True)
class CostPerImage:
    """The columns beside quality.

    Attributes:
        device: What ran it.
        num_steps: Decoding steps.
        batch_size: Images generated at once.
        network_passes: Sequences through the transformer, both branches of guidance counted.
        gflops: Of transformer, policy and picture decoder, in 10^9 floating-point operations; a
            multiplication and an addition are two.
        policy_flops_share: The policy network's share of them, in [0, 1].
        policy_time_share: Its share of the decoding time in one batch, in [0, 1].
        milliseconds: Wall time an image, over the whole evaluation.
        images_per_second: The inverse, of one process.
        peak_memory_gb: Highest memory of this process in 10^9 bytes: the accelerator's where one
            is used, else resident memory, everything included.
    """

    device: str
    num_steps: int
    batch_size: int
    network_passes: float
    gflops: float
    policy_flops_share: float
    policy_time_share: float
    milliseconds: float
    images_per_second: float
    peak_memory_gb: float

    def to_json(self) -> dict[str, float | int | str]:
        """The fields by name."""
        return asdict(self)


def measure_cost(source: GeneratedSource, times: Times) -> CostPerImage:
    """Count and time one batch, and take the rest from the evaluation itself.

    The batch is drawn twice, first to warm up.

    Args:
        source: The generator; its samples 0, 1, ... make the batch.
        times: Seconds of the whole evaluation's images.
    """
    _decode_batch(source)
    counter = FlopCounterMode(display=False)
    with counter:
        passes = _decode_batch(source)
    policy = source.models.policy
    operations = counter.get_flop_counts()
    own = sum(sum(operations.get(name, {}).values()) for name in _root_names(policy))
    total = counter.get_total_flops()
    size = min(source.generator.batch_size, len(source))
    device = next(source.models.nat.parameters()).device
    return CostPerImage(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        num_steps=policy.num_steps,
        batch_size=source.generator.batch_size,
        network_passes=passes,
        gflops=total / size / 1e9,
        policy_flops_share=own / total,
        policy_time_share=_policy_time_share(source),
        milliseconds=1000 * times.reading / times.images,
        images_per_second=times.images / times.reading,
        peak_memory_gb=_peak_memory(device) / 1e9,
    )


def _root_names(policy: DecodingPolicy) -> set[str]:
    """What torch's counter may call a policy: by its class, or by those of its networks."""
    if not isinstance(policy, nn.Module):
        return set()
    return {type(module).__name__ for module in (policy, *policy.children())}


def _decode_batch(source: GeneratedSource) -> float:
    """Draw one batch; passes of the network for each image."""
    size = min(source.generator.batch_size, len(source))
    batches = source.generator.batches(source.models.policy, seed=0, num_samples=size)
    return next(iter(batches)).generation.num_passes


def _policy_time_share(source: GeneratedSource) -> float:
    """Seconds in the policy's networks over seconds of the batch; 0 for a schedule."""
    policy = source.models.policy
    if not isinstance(policy, nn.Module):
        return 0.0
    marks: list[float] = []

    def mark(*_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        marks.append(time.perf_counter())

    hooks = [
        register(mark)
        for network in policy.children()
        for register in (network.register_forward_pre_hook, network.register_forward_hook)
    ]
    try:
        began = time.perf_counter()
        _decode_batch(source)
        seconds = time.perf_counter() - began
    finally:
        for hook in hooks:
            hook.remove()
    return sum(end - start for start, end in zip(marks[::2], marks[1::2], strict=True)) / seconds


def _peak_memory(device: torch.device) -> int:
    """Highest number of bytes so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes
