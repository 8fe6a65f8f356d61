"""The PPO objective and the reward normalisation against the record (reference section 7)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from policyrl import (
    GaussianPolicy,
    PPOConfig,
    PPOTrainer,
    Rollout,
    compute_targets,
    ppo_loss,
    published_decoding_spec,
    returns_to_go,
)
from safetensors import safe_open
from torch import Tensor

TOLERANCE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-5}
LAYERS = ("actor", "critic")


class Linear(torch.nn.Linear):
    """One layer on the recorded observations."""

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(observation["obs"])


class Record:
    """The recorded numbers and networks with the recorded weights."""

    def __init__(self, folder: Path) -> None:
        with safe_open(folder / "ppo.safetensors", "pt") as file:
            self.sizes: dict[str, Any] = json.loads(file.metadata()["config"])
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        sizes = self.sizes
        self.actor = Linear(sizes["D"], sizes["action_dim"])
        self.critic = Linear(sizes["D"], 1)
        for name, layer in zip(LAYERS, (self.actor, self.critic), strict=True):
            layer.load_state_dict(
                {kind: self[f"state.{name}.{kind}"] for kind in ("weight", "bias")}
            )
        spec = published_decoding_spec(sizes["T"], residual=False)
        self.policy = GaussianPolicy(self.actor, spec, std=sizes["action_std"])
        steps = torch.arange(sizes["T"])[None, :, None]
        timestep = steps.expand(sizes["n"], -1, sizes["B"]).flatten()
        self.observation = {"obs": self["in.obs"], "timestep": timestep}

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def config(self, **changes: Any) -> PPOConfig:
        return PPOConfig(
            clip_range=self.sizes["eps_clip"],
            vf_coef=self.sizes["value_coef"],
            ent_coef=self.sizes["entropy_coef"],
            gamma=self.sizes["gamma"],
            **changes,
        )

    def time_first(self, tensor: Tensor) -> Tensor:
        """(n, T, B, ...) or flattened (N, ...) -> (T, n * B, ...)."""
        n, steps, batch = (self.sizes[name] for name in ("n", "T", "B"))
        if tensor.shape[:3] == (n, steps, batch):
            tensor = tensor.flatten(0, 2)
        tensor = tensor.unflatten(0, (n, steps, batch))
        return tensor.transpose(0, 1).flatten(1, 2)

    def check_gradients(self) -> None:
        for name, layer in zip(LAYERS, (self.actor, self.critic), strict=True):
            for kind, parameter in layer.named_parameters():
                expected = self[f"out.grad.{name}.{kind}"]
                torch.testing.assert_close(parameter.grad, expected, **TOLERANCE)


def test_loss_and_gradients(reference_dir: Path) -> None:
    record = Record(reference_dir)
    config = record.config()
    log_probs, entropy = record.policy.log_prob_entropy(record.observation, record["in.actions"])
    values = record.critic(record.observation).squeeze(1)
    parts = ppo_loss(
        log_probs=log_probs,
        old_log_probs=record["in.old_logprobs"],
        advantages=record["in.advantages"],
        values=values,
        returns=record["in.rewards"],
        entropy=entropy,
        clip_range=config.clip_range,
        vf_coef=config.vf_coef,
        ent_coef=config.ent_coef,
    )
    parts.loss.backward()
    mean = record.policy.mode(record.observation)
    torch.testing.assert_close(mean, record["out.mean"], **TOLERANCE)
    torch.testing.assert_close(values, record["out.values"], **TOLERANCE)
    torch.testing.assert_close(log_probs, record["out.logprobs"], **TOLERANCE)
    torch.testing.assert_close(entropy, record["out.entropy"], **TOLERANCE)
    torch.testing.assert_close(parts.loss, record["out.loss"].squeeze(), **TOLERANCE)
    record.check_gradients()


def test_returns_and_advantages(reference_dir: Path) -> None:
    record = Record(reference_dir)
    rewards = record.time_first(record["norm.in.step_rewards"])
    valid = torch.ones_like(rewards, dtype=torch.bool)
    returns = returns_to_go(rewards, valid, record.sizes["gamma"])
    torch.testing.assert_close(returns, record.time_first(record["norm.out.returns"]), **TOLERANCE)
    targets = compute_targets(
        rewards,
        record.time_first(record["norm.in.values"]),
        valid,
        gamma=record.sizes["gamma"],
        gae_lambda=1.0,
        normalize_returns=True,
        normalize_advantages=False,
        gather=lambda tensor: tensor,
    )
    for ours, theirs in ((targets.returns, "rewards"), (targets.advantages, "advantages")):
        expected = record.time_first(record[f"norm.out.{theirs}"])
        torch.testing.assert_close(ours, expected, **TOLERANCE)


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_one_pass_of_the_trainer(reference_dir: Path, chunk_size: int | None) -> None:
    """From step rewards to gradients: the trainer's defaults are the published objective."""
    record = Record(reference_dir)
    config = record.config(update_epochs=1, chunk_size=chunk_size)
    rewards = record.time_first(record["norm.in.step_rewards"])
    rollout = Rollout(
        observations={k: record.time_first(v).flatten(0, 1) for k, v in record.observation.items()},
        rows=torch.arange(rewards.numel()).view_as(rewards),
        raw_actions=record.time_first(record["in.actions"]),
        log_probs=record.time_first(record["in.old_logprobs"]),
        values=record.time_first(record["norm.in.values"]),
        rewards=rewards,
        valid=torch.ones_like(rewards, dtype=torch.bool),
        outcome={},
    )
    metrics = PPOTrainer(record.policy, record.critic, config).update(rollout)
    expected = record["out.loss"].item()
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    record.check_gradients()
