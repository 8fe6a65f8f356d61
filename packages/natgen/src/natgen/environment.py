"""Decoding as a Markov decision process: a batch of generations in lockstep (AdaNAT, sec. 3)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from natgen.decoding import (
    DecodingState,
    Observation,
    add_guidance,
    apply,
    defers_guidance,
    init_state,
    observe,
)
from natgen.noise import NoiseSource
from natgen.protocols import GridLogitsModel
from natgen.schedules import COMPONENTS


class DecodingEnvironment:
    """An episode is the generation of one image, an action the four parameters of a step.

    The reward is 0 throughout: a reward model judges the `outcome`. An episode's index is its key
    to the condition and to the noise, so that episodes do not depend on how they are batched.

    Args:
        model: in evaluation mode; never differentiated.
        num_steps: decoding steps T of an episode.
        conditions: episode indices (B,) int64 -> labels (B,) or text features (B, N, C), on the
            model's device.
        noise: the run's noise.
        initial_tokens: episode indices (B,) int64 -> codes to keep and mask tokens to decode, as
            of `init_state`; default masks alone.
    """

    def __init__(
        self,
        model: GridLogitsModel,
        *,
        num_steps: int,
        conditions: Callable[[Tensor], Tensor],
        noise: NoiseSource,
        initial_tokens: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        self._model = model
        self._num_steps = num_steps
        self._conditions = conditions
        self._noise = noise
        self._initial_tokens = initial_tokens
        # Without an observation once the episodes have ended: its logits need not live on.
        self._current: tuple[DecodingState, Observation | None] | None = None
        self._steps_taken = torch.zeros(0, dtype=torch.int64)

    @property
    def num_steps(self) -> int:
        """Length T of every episode."""
        return self._num_steps

    @torch.no_grad()
    def reset(self, episodes: Tensor) -> dict[str, Tensor]:
        """Start episodes.

        Args:
            episodes: (B,) int64 indices, at least 0.

        Returns:
            "features" (B, N, D), N positions of the model's feature grid, and "timestep" (B,)
            int64, all 0.
        """
        given = None if self._initial_tokens is None else self._initial_tokens(episodes)
        state = init_state(self._model, self._conditions(episodes), episodes, initial_tokens=given)
        observation = observe(self._model, state, guided=not defers_guidance(state))
        self._current = state, observation
        self._steps_taken = torch.zeros_like(state.sample_indices)
        return self._view(observation, 0)

    @torch.no_grad()
    def step(self, action: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Decode one step.

        Args:
            action: activated values, (B,) by the names of `COMPONENTS`.

        Returns:
            The observation, the reward (B,) of zeros, and whether each episode has ended (B,) bool:
            with the last step, or before it where nothing is masked any more, since what follows
            then changes nothing. The last step is followed by no network pass: it repeats its
            observation.

        Raises:
            RuntimeError: before `reset`, or after the last step.
            KeyError: a component is missing.
        """
        state, observation = self._started()
        if observation is None:
            raise RuntimeError(f"the episodes ended after {self._num_steps} steps; call reset()")
        missing = [name for name in COMPONENTS if name not in action]
        if missing:
            raise KeyError(f"the action lacks {missing}; it has {sorted(action)}")
        ends = state.timestep + 1 == self._num_steps
        if defers_guidance(state):
            scale = action["guidance_scale"]
            observation = add_guidance(self._model, state, observation, scale)
        masked = state.tokens == self._model.mask_token_id
        self._steps_taken = self._steps_taken + masked.any(dim=1)
        state = apply(state, observation, action, self._noise, last=ends)
        if not ends:
            observation = observe(self._model, state, guided=not defers_guidance(state))
        self._current = state, None if ends else observation
        view = self._view(observation, min(state.timestep, self._num_steps - 1))
        reward = torch.zeros(len(state.tokens), device=state.tokens.device)
        return view, reward, (state.tokens != self._model.mask_token_id).all(dim=1)

    def outcome(self) -> dict[str, Tensor]:
        """The finished images.

        Returns:
            "tokens" (B, h, w) int64, the episodes' indices as "episodes" (B,) int64, the steps that
            each needed until nothing was masked as "num_steps" (B,) int64, for a reward with a
            price per step, and the condition as "labels" (B,) or, for text, "context" (B, N, C).

        Raises:
            RuntimeError: the episodes have not ended.
        """
        state, observation = self._started()
        if observation is not None:
            raise RuntimeError(
                f"the episodes are at step {state.timestep} of {self._num_steps}: no outcome yet"
            )
        condition_name = "labels" if state.condition.ndim == 1 else "context"
        return {
            "tokens": state.drawn.view(-1, *self._model.grid_size),
            "episodes": state.sample_indices,
            "num_steps": self._steps_taken,
            condition_name: state.condition,
        }

    def _started(self) -> tuple[DecodingState, Observation | None]:
        if self._current is None:
            raise RuntimeError("call reset() first")
        return self._current

    @staticmethod
    def _view(observation: Observation, timestep: int) -> dict[str, Tensor]:
        features = observation.features
        return {
            "features": features,
            "timestep": features.new_full((len(features),), timestep, dtype=torch.int64),
        }
