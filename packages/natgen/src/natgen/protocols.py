"""What natgen asks of the objects that it is given. A leaf: imports nothing of the package."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from torch import Tensor


class LogitsModel(Protocol):
    """A masked token model: tokens and a condition to features and logits."""

    @property
    def seq_len(self) -> int:
        """Number of image tokens L."""

    @property
    def mask_token_id(self) -> int:
        """Id of the mask token; the real codes are [0, mask_token_id)."""

    def __call__(self, tokens: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L) int64 and B conditions -> features (B, N, D), logits (B, L, V).

        N is L, or fewer where several codes share a position of the network's sequence.
        """

    def null_condition(self, batch_size: int) -> Tensor:
        """The condition of the unconditional branch, ``batch_size`` rows."""


class GridLogitsModel(LogitsModel, Protocol):
    """A `LogitsModel` that knows how its tokens lie on a grid."""

    @property
    def grid_size(self) -> tuple[int, int]:
        """(height, width), with height * width = seq_len."""


@runtime_checkable
class ChecksCondition(Protocol):
    """Optional for a `LogitsModel`: decoding asks it once, before the first step."""

    def check_condition(self, condition: Tensor) -> None:
        """Raise ValueError for a condition of a wrong shape, type or range."""


class TextEncoder(Protocol):
    """Captions to the features that condition a text NAT (and to what a discriminator compares).

    A NAT for it has ``context_dim = token_dim`` and ``num_context_tokens = num_tokens``. The
    features of the empty caption stand for "no text".
    """

    @property
    def name(self) -> str:
        """Which encoder and weights: equal names give equal features."""

    @property
    def num_tokens(self) -> int:
        """Feature tokens N of every caption, short and long ones alike."""

    @property
    def token_dim(self) -> int:
        """Channels C of a feature token."""

    @property
    def pooled_dim(self) -> int:
        """Channels P of the pooled features."""

    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B captions -> token features (B, N, C) and pooled features (B, P), both floating."""


class DecodingPolicy(Protocol):
    """Chooses the four decoding parameters of a step."""

    @property
    def num_steps(self) -> int:
        """Number of decoding steps T."""

    def __call__(self, features: Tensor, timestep: int) -> Mapping[str, Tensor]:
        """Features (B, N, D), timestep in [0, T) -> one (B,) tensor for each of `COMPONENTS`."""


@runtime_checkable
class KnowsGuidance(Protocol):
    """Optional for a `DecodingPolicy`: spares the unconditional pass where nothing guides."""

    def guidance_free(self, timestep: int) -> bool:
        """Whether the guidance scale of this step is 0 for every sample."""


class Engine(Protocol):
    """What the trainer leaves to the training loop's engine."""

    @property
    def num_processes(self) -> int:
        """How many processes train together."""

    @property
    def process_index(self) -> int:
        """Which of them this one is, in [0, num_processes)."""

    def autocast(self) -> AbstractContextManager[object]:
        """Precision context around the forward pass."""

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a scalar loss; several processes average theirs."""

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate a tensor over the processes in their order: (n, ...) -> (P * n, ...)."""
