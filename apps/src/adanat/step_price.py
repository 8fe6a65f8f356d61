"""A price for decoding steps, so that a policy learns to end early where that costs little."""

from collections.abc import Callable, Mapping

from torch import Tensor


class StepPrice:
    """A reward less a price for each step that an episode used.

    A policy that masks nothing again has ended: the steps behind it draw nothing and are free.

    Args:
        reward: pays outcomes.
        price: of one step, in units of the reward.
    """

    def __init__(self, reward: Callable[[Mapping[str, Tensor]], Tensor], price: float) -> None:
        self._reward = reward
        self._price = price

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Reward (B,) of an outcome that counts its steps as `num_steps` (B,)."""
        reward = self._reward(outcome)
        return reward - self._price * outcome["num_steps"].to(reward)
