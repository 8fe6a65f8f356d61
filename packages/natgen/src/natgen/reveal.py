"""What decoding starts from and in which order it reveals, where that is not masks and confidence.

Both are optional: images are usually decoded from masks alone, the most confident tokens first.
"""

import torch
from torch import Tensor

from natgen.protocols import LogitsModel


def halton_order(grid_size: tuple[int, int]) -> Tensor:
    """The order in which a 2D Halton sequence visits the cells of a grid (arXiv 2503.17076).

    Points 1, 2, ... of the sequence, base 2 along the rows and base 3 along the columns, each cell
    at its first visit, as published: any first few tokens lie spread over the whole image. The
    published sampler reveals on the schedule `maskgit` of shape "arccos"; to start each sample
    elsewhere it rolls the order (`torch.roll`), which gives (B, L).

    Args:
        grid_size: (height, width) of the token grid.

    Returns:
        (L,) int64, the raster positions in the order of their visits.
    """
    height, width = grid_size
    visits: dict[int, None] = {}  # a set that keeps its order
    index = 1
    while len(visits) < height * width:
        row, column = _digit_reversed(index, 2, height), _digit_reversed(index, 3, width)
        visits.setdefault(row * width + column)
        index += 1
    return torch.tensor(list(visits))


def reveal_ranks(order: Tensor, length: int, batch_size: int) -> Tensor:
    """Each position's place in a reveal order.

    Args:
        order: (L,) or (B, L) int64, permutations of the raster positions.
        length: L.
        batch_size: B.

    Returns:
        int64, of the order's shape.

    Raises:
        ValueError: another shape, or a position is missing.
    """
    if tuple(order.shape) not in {(length,), (batch_size, length)}:
        raise ValueError(
            f"reveal_order must be ({length},) or ({batch_size}, {length}), "
            f"got {tuple(order.shape)}"
        )
    ranks = order.argsort(dim=-1)
    positions = torch.arange(length, device=order.device).expand_as(order)
    if not torch.equal(order.gather(-1, ranks), positions):
        raise ValueError(f"reveal_order must name each position in [0, {length - 1}] once")
    return ranks


def check_initial_tokens(model: LogitsModel, tokens: Tensor, batch_size: int) -> Tensor:
    """Check a grid of given codes and mask tokens; reads it on the host.

    Args:
        model: asked for lengths and ids.
        tokens: (B, L) or (B, h, w) int64 in [0, V], V being the mask token.
        batch_size: B.

    Returns:
        (B, L).

    Raises:
        ValueError: another shape, type or range.
    """
    flat = tokens.flatten(1) if tokens.ndim > 1 else tokens
    if tuple(flat.shape) != (batch_size, model.seq_len) or tokens.dtype != torch.int64:
        raise ValueError(
            f"initial_tokens must be int64 with {model.seq_len} tokens for each of {batch_size} "
            f"conditions, got {tuple(tokens.shape)} {tokens.dtype}"
        )
    low, high = (int(value) for value in flat.aminmax())
    if low < 0 or high > model.mask_token_id:
        wrong = low if low < 0 else high
        raise ValueError(
            f"initial token {wrong} is out of range: codes lie in [0, {model.mask_token_id - 1}], "
            f"and {model.mask_token_id} is the mask token"
        )
    return flat


def _digit_reversed(index: int, base: int, cells: int) -> int:
    """Which of ``cells`` equal cells of [0, 1) holds the radical inverse of ``index``.

    In whole numbers: a rounded fraction may fall on the wrong side of a cell's border.
    """
    numerator, denominator = 0, 1
    while index:
        index, digit = divmod(index, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator * cells // denominator
