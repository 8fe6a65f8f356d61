"""Generation noise as a pure function of (seed, sample index, step, stream).

Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) in vectorised
int64 arithmetic. Since a number depends on its sample and step and on nothing else, any batching,
any number of processes and any resumption draw the same noise, and two decoding methods can be
compared on equal noise.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

DRAW_STREAM = 0  # uniforms for drawing the tokens
REMASK_STREAM = 1  # Gumbel noise on the confidence

_ROUNDS = 10
_WORD = 0xFFFFFFFF
_WEYL = (0x9E3779B9, 0xBB67AE85)
# The multipliers 0xD2511F53 and 0xCD9E8D57, less 2^32: a product with a 32-bit word then fits into
# int64, and adding the word to its high half undoes the shift.
_MULTIPLIERS = (0xD2511F53 - 2**32, 0xCD9E8D57 - 2**32)


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32-10.

    Args:
        counter: four int64 tensors of 32-bit words, of shapes that broadcast together.
        key: two 32-bit words.

    Returns:
        Four int64 tensors of 32-bit words, of the broadcast shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, high1 = ((p0 >> 32) + c0) & _WORD, ((p1 >> 32) + c2) & _WORD
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, p1 & _WORD, high0 ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


class StepNoise(NamedTuple):
    """All the noise of one decoding step: two numbers per token."""

    uniforms: Tensor  # (B, L) float32 in (0, 1)
    gumbel: Tensor  # (B, L) float32, standard Gumbel


class NoiseSource:
    """Noise for the samples of one run.

    Args:
        seed: of the run, in [0, 2**64).
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must be in [0, 2**64), got {seed}")
        self.seed = seed

    def uniform(self, sample_indices: Tensor, step: int, stream: int, length: int) -> Tensor:
        """Uniform numbers in the open interval (0, 1).

        Args:
            sample_indices: (B,) int64, at least 0.
            step: in [0, 2**16).
            stream: in [0, 2**16); different uses take different streams.
            length: how many numbers each sample gets.

        Returns:
            (B, length) float32, on the device of ``sample_indices``.
        """
        return self._uniforms(sample_indices, step, (stream,), length)[0]

    def gumbel(self, sample_indices: Tensor, step: int, stream: int, length: int) -> Tensor:
        """Standard Gumbel numbers; arguments and result as of `uniform`."""
        return _gumbel(self.uniform(sample_indices, step, stream, length))

    def step(self, sample_indices: Tensor, step: int, length: int) -> StepNoise:
        """`uniform` of the draw's stream and `gumbel` of the re-masking's, made together."""
        streams = (DRAW_STREAM, REMASK_STREAM)
        uniforms, remasking = self._uniforms(sample_indices, step, streams, length)
        return StepNoise(uniforms, _gumbel(remasking))

    def _uniforms(
        self, sample_indices: Tensor, step: int, streams: Sequence[int], length: int
    ) -> Tensor:
        """(S, B, length), one slice a stream."""
        for name, value in (("step", step), *(("stream", stream) for stream in streams)):
            if not 0 <= value < 2**16:
                raise ValueError(f"{name} must be in [0, 2**16), got {value}")
        device = sample_indices.device
        blocks = torch.arange(-(-length // 4), device=device)  # a block has four words
        # Filled on the device: a tensor from a list would be a copy from the host.
        purposes = torch.stack(
            [torch.full((1, 1), stream << 16 | step, device=device) for stream in streams]
        )
        sample = sample_indices[:, None]
        words = philox(
            (blocks, purposes, sample & _WORD, (sample >> 32) & _WORD),
            (self.seed & _WORD, self.seed >> 32),
        )
        # The upper 23 bits, centred: 2^-24 up to 1 - 2^-24, all exact in float32.
        bits = torch.stack(words, dim=-1).flatten(2)[..., :length] >> 9
        return (bits.float() + 0.5) * 2.0**-23


def _gumbel(uniforms: Tensor) -> Tensor:
    return -torch.log(-torch.log(uniforms))
