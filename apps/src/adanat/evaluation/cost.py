"""What an image costs: network passes, floating-point operations, time, memory."""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
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
        precision: Of the weights of transformer and picture decoder.
        num_steps: Decoding steps.
        batch_size: Images generated at once.
        network_passes: Sequences through the transformer, both branches of guidance counted.
        gflops: Of transformer, policy and picture decoder, in 10^9 floating-point operations; a
            multiplication and an addition are two.
        policy_flops_share: The policy network's share of them, in [0, 1].
        transformer_time_share: The transformer's share of a batch's time, in [0, 1].
        policy_time_share: The policy network's.
        decoder_time_share: The picture decoder's; what is left draws tokens and noise.
        milliseconds: Wall time an image, over the whole evaluation.
        images_per_second: The inverse, of one process.
        peak_memory_gb: Highest memory of this process up to the end of generation, in 10^9 bytes:
            the accelerator's where one is used, else resident memory, everything included.
    """

    device: str
    precision: str
    num_steps: int
    batch_size: int
    network_passes: float
    gflops: float
    policy_flops_share: float
    transformer_time_share: float
    policy_time_share: float
    decoder_time_share: float
    milliseconds: float
    images_per_second: float
    peak_memory_gb: float

    def to_json(self) -> dict[str, float | int | str]:
        """The fields by name."""
        return asdict(self)


def measure_cost(source: GeneratedSource, times: Times) -> CostPerImage:
    """Count and time one batch, and take the rest from the evaluation itself.

    The batch is drawn twice: counting warms up for timing.

    Args:
        source: The generator; its samples 0, 1, ... make the batch.
        times: Seconds of the whole evaluation's images.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        passes = _decode_batch(source)
    policy = source.models.policy
    operations = counter.get_flop_counts()
    own = sum(sum(operations.get(name, {}).values()) for name in _root_names(policy))
    total = counter.get_total_flops()
    size = min(source.generator.batch_size, len(source))
    device = next(source.models.nat.parameters()).device
    parts = _time_batch(source, device)
    if not times.images:  # features from a cache that does not say what they took
        times = Times(images=size, reading=sum(parts.values()))
    return CostPerImage(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        precision=source.models.precision,
        num_steps=policy.num_steps,
        batch_size=source.generator.batch_size,
        network_passes=passes,
        gflops=total / size / 1e9,
        policy_flops_share=own / total,
        transformer_time_share=parts["transformer"] / sum(parts.values()),
        policy_time_share=parts["policy"] / sum(parts.values()),
        decoder_time_share=parts["decoder"] / sum(parts.values()),
        milliseconds=1000 * times.reading / times.images,
        images_per_second=times.images / times.reading,
        peak_memory_gb=(
            torch.cuda.max_memory_allocated(device) / 1e9
            if device.type == "cuda"
            else resident_memory_gb()
        ),
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


def _time_batch(source: GeneratedSource, device: torch.device) -> Mapping[str, float]:
    """Seconds of one batch in `transformer`, `policy` and `decoder`, and in the `rest`."""
    models = source.models
    networks: dict[nn.Module, str] = {
        models.nat: "transformer",
        models.tokenizer.decoder: "decoder",
    }
    if isinstance(models.policy, nn.Module):  # decoding may call its networks, not itself
        networks |= dict.fromkeys(models.policy.children(), "policy")
    seconds: defaultdict[str, float] = defaultdict(float)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def enter(module: nn.Module, *_: object) -> None:
        seconds[networks[module]] -= clock()

    def leave(module: nn.Module, *_: object) -> None:
        seconds[networks[module]] += clock()

    hooks = [
        register(mark)
        for network in networks
        for register, mark in (
            (network.register_forward_pre_hook, enter),
            (network.register_forward_hook, leave),
        )
    ]
    try:
        began = clock()
        _decode_batch(source)
        total = clock() - began
    finally:
        for hook in hooks:
            hook.remove()
    return {
        **{name: seconds[name] for name in ("transformer", "policy", "decoder")},
        "rest": total - sum(seconds.values()),
    }


def resident_memory_gb() -> float:
    """The most that this process has held in memory so far, in 10^9 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return peak * unit / 1e9
