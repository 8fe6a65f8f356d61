"""Multi-head self-attention and the choice of its backend.

The only module that knows xformers. An importable xformers says nothing about a usable one (it has
no CPU operators, and a GPU may be too old or too new), so the choice asks for the operator itself.
"""

import logging
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AttentionBackend = Literal["auto", "sdpa", "xformers"]

_logger = logging.getLogger(__name__)


class AttentionChoice(NamedTuple):
    """Which kernels serve a kind of attention."""

    backend: Literal["sdpa", "xformers"]
    reason: str  # one line for a log


def xformers_obstacle(
    device: torch.device, dtype: torch.dtype, head_dim: int, training: bool
) -> str | None:
    """Why xformers cannot serve this attention, or None where it can.

    Args:
        device: where the queries live.
        dtype: type of queries, keys and values.
        head_dim: channels of one head.
        training: whether a backward operator is needed too.
    """
    if device.type != "cuda":
        return f"it has no operators for device {device.type!r}"
    try:
        from xformers.ops import fmha
    except Exception as error:  # a wheel built for another torch fails with OSError and others
        return f"it cannot be imported ({error!r})"
    probe = torch.empty(1, 8, 1, head_dim, device=device, dtype=dtype)
    request = fmha.Inputs(query=probe, key=probe, value=probe)
    directions = {"forward": fmha.ALL_FW_OPS}
    if training:
        directions["backward"] = fmha.ALL_BW_OPS
    for direction, operators in directions.items():
        if not any(operator.supports(request) for operator in operators):
            return f"no {direction} operator supports {dtype} with head_dim {head_dim} on {device}"
    return None


def choose_attention(
    setting: AttentionBackend,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    training: bool,
) -> AttentionChoice:
    """Choose the kernels, once for each kind of attention, and log the choice at level INFO.

    Args:
        setting: "auto" takes xformers where it can serve, else PyTorch's own kernels ("sdpa").
        device: where the queries live.
        dtype: type of queries, keys and values.
        head_dim: channels of one head.
        training: whether a backward operator is needed too.

    Raises:
        RuntimeError: "xformers" is demanded where it cannot serve; the message says why.
    """
    return _choose(setting, device, dtype, head_dim, training)


# For a compiled network the choice is a constant: its graph neither probes nor logs. This mark is
# all that torch.compiler.assume_constant_result makes, which imports the compiler for it.
choose_attention._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def _choose(
    setting: AttentionBackend,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    training: bool,
) -> AttentionChoice:
    obstacle = None if setting == "sdpa" else xformers_obstacle(device, dtype, head_dim, training)
    if setting == "xformers" and obstacle is not None:
        raise RuntimeError(
            f"attention='xformers' was asked for, but {obstacle}; use 'auto' or 'sdpa'"
        )
    if setting == "sdpa":
        choice = AttentionChoice("sdpa", "PyTorch's kernels, as set")
    elif obstacle is None:
        choice = AttentionChoice("xformers", "xformers, which has an operator for it")
    else:
        choice = AttentionChoice("sdpa", f"PyTorch's kernels instead of xformers: {obstacle}")
    _logger.info(
        "attention on %s in %s, head_dim %d, %s: %s",
        device,
        dtype,
        head_dim,
        "with gradients" if training else "without gradients",
        choice.reason,
    )
    return choice


def attend(query: Tensor, key: Tensor, value: Tensor, backend: AttentionBackend) -> Tensor:
    """Softmax attention scaled by ``head_dim ** -0.5``.

    Args:
        query: (B, L, heads, head_dim).
        key: likewise, of the same type and device.
        value: likewise.
        backend: the setting of `choose_attention`.

    Returns:
        (B, L, heads, head_dim).

    Raises:
        RuntimeError: see `choose_attention`.
    """
    choice = choose_attention(
        backend, query.device, query.dtype, query.shape[-1], torch.is_grad_enabled()
    )
    if choice.backend == "xformers":
        from xformers.ops import memory_efficient_attention

        attended: Tensor = memory_efficient_attention(query, key, value)
        return attended
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class SelfAttention(nn.Module):
    """Self-attention with a bias-free joint projection to queries, keys and values."""

    def __init__(self, embed_dim: int, num_heads: int, backend: AttentionBackend) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.backend: AttentionBackend = backend
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        # The 3D outputs are ordered (q, k, v) x head x head_dim.
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        out: Tensor = self.proj(attend(query, key, value, self.backend).flatten(2))
        return out
