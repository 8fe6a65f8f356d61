"""The Gaussian policy: raw actions around a network's output, activated by an action spec."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import Tensor, nn

from policyrl.actions import ActionSpec
from policyrl.distributions import gaussian_entropy, gaussian_log_prob
from policyrl.networks import PolicyNetwork, PolicyNetworkConfig


def _encode_network(network: nn.Module) -> dict[str, Any] | None:
    return asdict(network.config) if isinstance(network, PolicyNetwork) else None


def _decode_network(config: Mapping[str, Any] | None) -> PolicyNetwork | None:
    return None if config is None else PolicyNetwork(PolicyNetworkConfig(**config))


class GaussianPolicy(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="policyrl",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2409.00342",
    coders={
        ActionSpec: (ActionSpec.to_config, ActionSpec.from_config),
        nn.Module: (_encode_network, _decode_network),
    },
):
    """A diagonal Gaussian over raw actions; exploration noise enters before the squashing.

    Calling the policy with features and a timestep gives its deterministic decision, which makes it
    a decoding policy for natgen. `save_pretrained` writes config.json (network, spec, std) and
    model.safetensors; `from_pretrained` reads them, strictly. A network that is not a
    `PolicyNetwork` is not described in the config and is handed to `from_pretrained(network=...)`.

    Args:
        network: maps an observation of B rows to means, (B, A) (`policyrl.ObservationNetwork`).
        spec: the A components and T steps of an action.
        std: the standard deviation of every component.
        learn_std: give each component a factor on the standard deviation that is trained with the
            network; at first 1.
        learn_offsets: add a trained number for each step and component to the network's means, at
            first 0. A network that starts without telling the steps apart, as the published one
            does, moves all steps together; offsets learn what is the same for every sample, step by
            step, and leave the network what differs.
    """

    std: Tensor
    statistics_count: Tensor
    statistics_mean: Tensor
    statistics_std: Tensor

    # Annotations here must stay classes, not strings: the mixin picks its decoders by them.
    def __init__(
        self,
        network: nn.Module,
        spec: ActionSpec,
        std: float = 0.6,
        learn_std: bool = False,
        learn_offsets: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        shape = (spec.num_steps, spec.num_actions)
        self.register_buffer("std", torch.zeros(()))
        self.register_buffer("statistics_count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("statistics_mean", torch.zeros(shape))
        self.register_buffer("statistics_std", torch.zeros(shape))
        self.log_std_factor = nn.Parameter(torch.zeros(spec.num_actions)) if learn_std else None
        self.offsets = nn.Parameter(torch.zeros(shape)) if learn_offsets else None
        self.set_std(std)

    @property
    def exploration_std(self) -> Tensor:
        """Standard deviation of the raw actions: a scalar, or (A,) with gradient if learned."""
        return self.std if self.log_std_factor is None else self.std * self.log_std_factor.exp()

    @property
    def num_steps(self) -> int:
        """The number of steps T that the policy decides."""
        return self.spec.num_steps

    def set_std(self, std: float) -> None:
        """Set the exploration noise of all components; learned factors stay on top of it."""
        if not (0 < std < math.inf):
            raise ValueError(f"std is {std}, must be positive and finite")
        self.std.fill_(std)

    @torch.no_grad()
    def act(self, observation: Mapping[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor]:
        """Turn standard normal noise (B, A), on any device, into exploring actions.

        Returns:
            raw: (B, A) raw actions, to be activated by `spec.activate`.
            log_prob: (B,) their log-density over the active components.
        """
        mean = self.mode(observation)
        raw = mean + self.exploration_std * noise.to(mean)
        active = self.spec.active_at(observation["timestep"])
        return raw, gaussian_log_prob(raw, mean, self.exploration_std, active)

    def mode(self, observation: Mapping[str, Tensor]) -> Tensor:
        """The mean raw action, (B, A) float32, with gradient."""
        mean: Tensor = self.network(observation)
        if mean.ndim != 2 or mean.shape[1] != self.spec.num_actions:
            raise ValueError(
                f"the network returned shape {tuple(mean.shape)}, "
                f"must be (B, {self.spec.num_actions}) for the components {self.spec.names}"
            )
        if self.offsets is None:
            return mean.float()
        return mean.float() + self.offsets[observation["timestep"]]

    def log_prob_entropy(
        self, observation: Mapping[str, Tensor], raw: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-density (with gradient) of given raw actions (B, A), and the entropy: both (B,)."""
        active = self.spec.active_at(observation["timestep"])
        std = self.exploration_std
        log_prob = gaussian_log_prob(raw, self.mode(observation), std, active)
        return log_prob, gaussian_entropy(std, active)

    @torch.no_grad()
    def forward(self, features: Tensor, timestep: int) -> dict[str, Tensor]:
        """The deterministic decision for features (B, L, C): each component's values, (B,).

        Raises:
            RuntimeError: where the actions are smoothed, which takes the previous one.
        """
        if self.spec.smoothing:
            raise RuntimeError(
                "the policy's actions are smoothed, a decision depends on the one before: "
                "decode with policyrl.PolicySession(policy), which remembers it"
            )
        steps = torch.full((len(features),), timestep, device=features.device)
        raw = self.mode({"features": features, "timestep": steps})
        return self.spec.activate(raw, timestep)

    @torch.no_grad()
    def fit_statistics(self, values: Tensor) -> None:
        """Remember the mean and spread of decisions, for `describe` and `to_static`.

        Args:
            values: (N, T, A) activated values of N episodes, such as a generation's parameters.
        """
        shape = (self.spec.num_steps, self.spec.num_actions)
        if values.ndim != 3 or len(values) == 0 or tuple(values.shape[1:]) != shape:
            raise ValueError(
                f"values has shape {tuple(values.shape)}, must be (N, *{shape}), N > 0"
            )
        values = values.double()
        self.statistics_count.fill_(len(values))
        self.statistics_mean.copy_(values.mean(dim=0))
        self.statistics_std.copy_(values.std(dim=0, correction=0))

    def to_static(self) -> Tensor:
        """The policy's own average as a schedule, (T, A) activated values.

        Raises:
            RuntimeError: where `fit_statistics` was never called.
        """
        if not self.statistics_count:
            raise RuntimeError("the policy has no statistics: call fit_statistics(values) first")
        return self.statistics_mean.clone()

    def describe(self) -> str:
        """A table of what the policy does: one row a step, one column a component.

        Shows mean +- spread over the fitted episodes, or the prior before any were seen; entries
        that the policy does not set are in brackets.
        """
        fitted = bool(self.statistics_count)
        mean = self.statistics_mean if fitted else self.spec.prior
        rows = [["step", *self.spec.names]]
        for step in range(self.num_steps):
            row = [str(step)]
            for i in range(self.spec.num_actions):
                text = f"{mean[step, i].item():.3f}"
                if not self.spec.active[step, i]:
                    text = f"({text})"
                elif fitted:
                    text += f" +- {self.statistics_std[step, i].item():.3f}"
                row.append(text)
            rows.append(row)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        source = f"{self.statistics_count.item()} episodes" if fitted else "prior, nothing fitted"
        std = " ".join(f"{value:g}" for value in self.exploration_std.reshape(-1).tolist())
        return "\n".join([f"{self.num_steps} steps, std {std}, {source}", *table])

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **kwargs: Any) -> Self:
        # The mixin loads leniently by default and would go on with an untrained policy.
        for name in ("network", "spec"):
            if kwargs.get(name) is None:
                raise ValueError(
                    f"{kwargs['model_id']}: config.json is missing or does not describe {name!r}; "
                    f"pass it as from_pretrained(..., {name}=...)"
                )
        try:
            policy: Self = super()._from_pretrained(strict=strict, **kwargs)
            return policy
        except (RuntimeError, SafetensorError) as error:
            raise RuntimeError(
                f"the weights in {str(kwargs['model_id'])!r} do not fit the policy that its "
                f"config.json describes, or are damaged: {error}"
            ) from error
