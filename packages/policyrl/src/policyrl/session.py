"""Deterministic decisions with the memory that action smoothing needs."""

import torch
from torch import Tensor

from policyrl.actions import PREVIOUS_ACTION
from policyrl.policy import GaussianPolicy


class PolicySession:
    """Plays one batch of episodes after another with a policy's mean actions.

    It keeps the smoothed action of the step before, which the policy itself does not, so it may be
    used wherever features and a timestep are all that is given, as by natgen's decoding. Timestep 0
    starts a new batch. Two batches in turn take two sessions.

    Args:
        policy: decides; smoothed or not.
    """

    def __init__(self, policy: GaussianPolicy) -> None:
        self._policy = policy
        self._previous = torch.zeros(0, policy.spec.num_actions)
        self._next_timestep = 0

    @property
    def num_steps(self) -> int:
        """The number of steps T that the policy decides."""
        return self._policy.num_steps

    @torch.no_grad()
    def __call__(self, features: Tensor, timestep: int) -> dict[str, Tensor]:
        """The decision for features (B, L, C): each component's values, (B,).

        Raises:
            ValueError: where the timestep is neither 0 nor the one after the last call's, or the
                batch has another size than at timestep 0.
        """
        size, spec = len(features), self._policy.spec
        if timestep == 0:
            self._previous = torch.zeros(size, spec.num_actions, device=features.device)
        elif timestep != self._next_timestep or size != len(self._previous):
            raise ValueError(
                f"timestep is {timestep} for {size} episodes, must be 0, or "
                f"{self._next_timestep} for the {len(self._previous)} episodes begun"
            )
        raw = self._policy.mode(
            {
                "features": features,
                "timestep": torch.full((size,), timestep, device=features.device),
                PREVIOUS_ACTION: self._previous,
            }
        )
        self._previous = spec.smooth(raw, self._previous)
        self._next_timestep = timestep + 1
        return spec.activate(self._previous, timestep)
