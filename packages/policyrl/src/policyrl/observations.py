"""Where a rollout's observations are kept: one block for each tensor, equal rows shared."""

from collections.abc import Mapping

import torch
from torch import Tensor

# Equal first observations may differ by rounding, at the worst by that of a whole network in
# bfloat16, whose batches of other sizes are summed in another order; other ones differ far more.
_ROUNDING = 2.0**-4


class ObservationStore:
    """Observations of T steps of N episodes, written batch by batch, read by decision.

    Each tensor's block is made when its first rows come, so a rollout in batches never holds its
    observations twice. With keys, the first step holds one row a distinct key, U of them: there
    R = U + (T - 1) N rows are kept, otherwise R = T N.

    Args:
        num_steps: T.
        episodes: (N,) any numbers; only length and device are used.
        first_step_keys: (N,) int64, equal where the first observations are equal; None: all differ.
        dtype: of floating observations; None: their own.
        device: of the blocks; None: the observations'.

    Raises:
        ValueError: where there are not N keys.
    """

    def __init__(
        self,
        num_steps: int,
        episodes: Tensor,
        *,
        first_step_keys: Tensor | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        count = len(episodes)
        first_rows = torch.arange(count, device=episodes.device)
        self._shares = first_step_keys is not None
        self._owns_row = torch.ones_like(first_rows, dtype=torch.bool)
        num_first = count
        if first_step_keys is not None:
            if first_step_keys.shape != (count,):
                raise ValueError(
                    f"the keys of the first step have shape {tuple(first_step_keys.shape)}, "
                    f"must be ({count},), one for each episode"
                )
            distinct, inverse = torch.unique(first_step_keys, return_inverse=True)
            num_first = len(distinct)
            owners = first_rows.new_full((num_first,), count)
            owners.scatter_reduce_(0, inverse, first_rows, "amin")
            self._owns_row = owners[inverse] == first_rows
            first_rows = inverse
        later = num_first + torch.arange((num_steps - 1) * count, device=episodes.device)
        self.rows = torch.cat([first_rows, later]).view(num_steps, count)
        self.blocks: dict[str, Tensor] = {}
        self._num_first, self._num_episodes = num_first, count
        self._dtype, self._device = dtype, device

    def put(
        self, timestep: int, start: int, observation: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Keep a step of the episodes from `start` on.

        Episodes must be put in their order at timestep 0, since the first of equal ones is kept.

        Returns:
            What was kept, on the observation's device: what a policy must act on.

        Raises:
            ValueError: where first observations of equal keys differ by more than rounding.
        """
        kept = {
            name: tensor.to(self._dtype or tensor.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in observation.items()
        }
        for name, tensor in kept.items():
            if name not in self.blocks:
                self.blocks[name] = torch.empty(
                    (self._first_row(len(self.rows)), *tensor.shape[1:]),
                    dtype=tensor.dtype,
                    device=tensor.device if self._device is None else self._device,
                )
            if timestep == 0 and self._shares:
                kept[name] = self._share(name, tensor, slice(start, start + len(tensor)))
            else:
                first = self._first_row(timestep) + start
                self.blocks[name][first : first + len(tensor)].copy_(tensor)
        return kept

    def _first_row(self, timestep: int) -> int:
        """Where the rows of a step begin."""
        return self._num_first + (timestep - 1) * self._num_episodes if timestep else 0

    def _share(self, name: str, tensor: Tensor, episodes: slice) -> Tensor:
        """Write the rows that these episodes own and read the rows of all of them back."""
        rows, block = self.rows[0, episodes], self.blocks[name]
        owned = self._owns_row[episodes]
        block[rows[owned].to(block.device)] = tensor[owned].to(block.device)
        shared = block[rows.to(block.device)].to(tensor.device)
        given = tensor.float().reshape(len(tensor), -1)
        error = (shared.float().reshape(given.shape) - given).norm(dim=1)
        differs = error > _ROUNDING * given.norm(dim=1)
        if differs.any():
            raise ValueError(
                f"{int(differs.sum())} of {len(tensor)} episodes differ in the first observation's "
                f"{name!r} from another one of equal key by more than bfloat16 rounds; give them "
                "keys of their own"
            )
        return shared
