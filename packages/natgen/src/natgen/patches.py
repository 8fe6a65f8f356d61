"""Square patches of a token grid: raster order outside the transformer, patches inside.

Legend: a grid of h x w codes has L = h w codes in raster order and N = L / p^2 patches of p x p
codes, patches in raster order and the codes within a patch likewise.
"""

from torch import Tensor


def split_patches(codes: Tensor, grid_size: tuple[int, int], patch_size: int) -> Tensor:
    """(B, L) in raster order -> (B, N, p^2)."""
    rows, columns = (side // patch_size for side in grid_size)
    grid: Tensor = codes.unflatten(1, (rows, patch_size, columns, patch_size))
    patches: Tensor = grid.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return patches


def merge_patches(codes: Tensor, grid_size: tuple[int, int], patch_size: int) -> Tensor:
    """(B, N, p^2, D) -> (B, L, D) in raster order; undoes `split_patches`."""
    rows, columns = (side // patch_size for side in grid_size)
    grid: Tensor = codes.unflatten(2, (patch_size, patch_size)).unflatten(1, (rows, columns))
    merged: Tensor = grid.transpose(2, 3).flatten(1, 4)
    return merged
