"""What policyrl asks of the code around it. A leaf: imports nothing of the package."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from torch import Tensor


class Environment(Protocol):
    """A batch of B episodes in lockstep, at most `num_steps` decisions long.

    `step` is called exactly `num_steps` times after each `reset`. What an environment answers for
    an episode that has already terminated is ignored. The horizon ends every episode: nothing is
    bootstrapped from the observation after the last step.
    """

    @property
    def num_steps(self) -> int:
        """The horizon T."""
        ...

    def reset(self, episodes: Tensor) -> Mapping[str, Tensor]:
        """Start the episodes with these indices, (B,) int64.

        Returns:
            The first observation: tensors with B rows, among them "timestep" (B,) int64.
        """
        ...

    def step(self, action: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Tensor, Tensor]:
        """Apply one action, each named component (B,).

        Returns:
            The next observation, the reward (B,), and whether the episode has terminated (B,) bool.
        """
        ...


@runtime_checkable
class GenerativeEnvironment(Environment, Protocol):
    """An environment whose finished episodes leave something to be judged, such as images."""

    def outcome(self) -> Mapping[str, Tensor]:
        """What the episodes produced: tensors with B rows."""
        ...


class RewardModel(Protocol):
    """Judges the outcome of a batch of episodes."""

    def __call__(self, outcome: Mapping[str, Tensor]) -> Tensor:
        """Returns the reward of each episode, (B,)."""
        ...


class ObservationNetwork(Protocol):
    """Anything that maps an observation of B rows to (B, n) numbers."""

    def __call__(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Map an observation to (B, n)."""
        ...


class Engine(Protocol):
    """How the loop around a trainer runs: precision, backward pass, processes."""

    @property
    def num_processes(self) -> int:
        """How many processes train together."""
        ...

    @property
    def process_index(self) -> int:
        """Which of them this one is, in [0, num_processes)."""
        ...

    def autocast(self) -> AbstractContextManager[object]:
        """A fresh context for the forward passes."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients; several processes average theirs."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate a tensor over the processes in their order: (n, ...) -> (P * n, ...)."""
        ...
