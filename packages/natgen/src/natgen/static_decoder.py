"""Decoding with fixed shapes: on a GPU one CUDA graph replays all steps behind the first pass.

Launching the small kernels of a step costs the host more than they cost the GPU. Here the host
launches once a batch: what a step does depends neither on data nor on the device (no shape, no
branch, no value that the host reads), so the whole loop is captured the first time and replayed
ever after. The first pass stays outside: how many distinct conditions there are is data.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from natgen.decoding import DecodingState, Observation, apply, init_state, observe
from natgen.noise import NoiseSource
from natgen.protocols import DecodingPolicy, KnowsGuidance, LogitsModel

_WARM_UPS = 3  # before a capture, as PyTorch's documentation has it: kernels are chosen, loaded


class _Inputs(NamedTuple):
    """What the captured loop reads; a graph finds it at the same addresses every time."""

    condition: Tensor  # (B,) labels or (B, N, C) text features
    sample_indices: Tensor  # (B,) int64
    features: Tensor  # (B, N, D) of the first pass
    cond_logits: Tensor  # (B, L, V) of the first pass
    uncond_logits: Tensor  # (1, L, V) of the first pass


class StaticDecoder:
    """`generate` for batches of one size, from masks alone; the tokens are the same.

    On a CUDA device the first call captures a graph, the later ones replay it; elsewhere the same
    steps run one by one. Every step but an unguided one runs both branches in one batch, so the
    loop takes 2 (T - 1) B sequences. Guidance-free steps (`KnowsGuidance`) take B.

    The graph holds, beside its inputs (B (N D + L V) numbers), the peak memory of one step for as
    long as the decoder lives. It reads the weights where they lay at the capture: they may change
    in place, but not move. The precision is the model's own (`nat.to(torch.bfloat16)`); logits are
    processed in float32. Autocast would free its casts under the graph and is refused on a GPU.

    Args:
        model: in evaluation mode; on a GPU perhaps after `nat.compile(dynamic=False)`.
        policy: chooses by features and timestep alone, without reading values on the host, as
            `StaticSchedule` and policyrl's `GaussianPolicy` do.
        batch_size: B; smaller batches are filled up.
        noise: the run's noise.
        first: makes the first pass in the model's place: a `FirstStepCache`, or a copy that is not
            compiled for one shape, since the number of distinct conditions varies.
    """

    def __init__(
        self,
        model: LogitsModel,
        policy: DecodingPolicy,
        *,
        batch_size: int,
        noise: NoiseSource,
        first: LogitsModel | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._model = model
        self._policy = policy
        self._batch_size = batch_size
        self._noise = noise
        self._first = model if first is None else first
        self._captured: tuple[torch.cuda.CUDAGraph, _Inputs, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, condition: Tensor, sample_indices: Tensor) -> Tensor:
        """Decode up to B images.

        Args:
            condition: (n,) labels or (n, N, C) text features, on the model's device.
            sample_indices: (n,) int64, the samples' keys to the noise.

        Returns:
            (n, L) int64 in [0, V), in memory of their own.

        Raises:
            ValueError: n is above B, or see `init_state`.
            RuntimeError: on a GPU, under autocast.
        """
        inputs = self._inputs(init_state(self._first, condition, sample_indices))
        decode = self._replay if condition.device.type == "cuda" else self._loop
        return decode(inputs)[: len(sample_indices)].clone()

    def _inputs(self, state: DecodingState) -> _Inputs:
        """Fill the batch up with copies of its last sample, and make the first pass."""
        size = len(state.tokens)
        if size > self._batch_size:
            raise ValueError(f"a batch of {size} is larger than batch_size, {self._batch_size}")
        rows = torch.arange(self._batch_size, device=state.tokens.device).clamp(max=size - 1)
        observation = observe(self._first, state)  # guided: one row more
        return _Inputs(
            state.condition[rows],
            state.sample_indices[rows],
            observation.features[rows],
            observation.cond_logits[rows],
            observation.uncond_logits[:1],
        )

    def _loop(self, inputs: _Inputs) -> Tensor:
        """All steps behind the first pass, with fixed shapes and nothing read on the host."""
        size, length = inputs.cond_logits.shape[:2]
        tokens = torch.full(
            (size, length), self._model.mask_token_id, device=inputs.cond_logits.device
        )
        state = DecodingState(tokens, tokens, inputs.condition, inputs.sample_indices, 0, 0)
        uncond_logits = inputs.uncond_logits.expand(size, length, -1)
        given = Observation(inputs.features, inputs.cond_logits, uncond_logits, 0)
        state = self._step(state, given)
        # Each observation is handed on without a name: its logits end before the next pass begins.
        for _ in range(1, self._policy.num_steps):
            state = self._step(state, self._observe(state))
        return state.drawn

    def _step(self, state: DecodingState, observation: Observation) -> DecodingState:
        timestep = state.timestep
        parameters = self._policy(observation.features, timestep)
        last = timestep + 1 == self._policy.num_steps
        return apply(state, observation, parameters, self._noise, last=last)

    def _observe(self, state: DecodingState) -> Observation:
        policy = self._policy
        unguided = isinstance(policy, KnowsGuidance) and policy.guidance_free(state.timestep)
        return observe(self._model, state, guided=not unguided)

    def _replay(self, inputs: _Inputs) -> Tensor:
        if torch.is_autocast_enabled("cuda"):
            raise RuntimeError(
                "autocast frees its casts while the graph still reads them: leave it, and give a "
                "model in the wanted precision, such as nat.to(torch.bfloat16)"
            )
        if self._captured is None:
            self._captured = self._capture(inputs)
        graph, buffers, tokens = self._captured
        for buffer, given in zip(buffers, inputs, strict=True):
            buffer.copy_(given)
        graph.replay()
        return tokens

    def _capture(self, inputs: _Inputs) -> tuple[torch.cuda.CUDAGraph, _Inputs, Tensor]:
        """Record the loop. One stream for warming up and capturing: libraries keep state by it."""
        buffers = _Inputs(*(given.clone() for given in inputs))
        stream = torch.cuda.Stream(inputs.condition.device)
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._loop(buffers)
        torch.cuda.current_stream(stream.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            tokens = self._loop(buffers)
        return graph, buffers, tokens
