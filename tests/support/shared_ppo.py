"""A small PPO training that several processes share; `worker` is what each of them runs.

A module of its own, so that a spawned process finds it by name.
"""

import pytest
import torch
import torch.distributed as dist
from policyrl import (
    ActionComponent,
    ActionSpec,
    GaussianPolicy,
    LocalEngine,
    PPOConfig,
    PPOTrainer,
)

EPISODES = 12
CONFIG = PPOConfig(
    learning_rate=1e-2,
    update_epochs=2,
    normalize_advantages=True,
    max_grad_norm=0.5,
    gae_lambda=0.9,
    chunk_size=7,
)


class Engine(LocalEngine):
    """Averages the gradients of all processes after every backward pass."""

    num_processes = property(lambda self: dist.get_world_size())
    process_index = property(lambda self: dist.get_rank())

    def __init__(self, parameters):
        self.parameters = list(parameters)

    def backward(self, loss):
        # What was there is equal in all processes, so averaging it again leaves it as it is.
        loss.backward()
        for parameter in self.parameters:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()

    def gather(self, tensor):
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)


class Target:
    """Two steps; the reward is highest where `x` meets a number of the episode's own.

    If `early` is set, of twelve episodes the second six end with their first step, all but one.
    """

    num_steps = 2

    def __init__(self, early):
        self.early = early

    def _observe(self):
        number = torch.sin(self.episodes.float() + self.t)
        return {"number": number, "timestep": torch.full_like(self.episodes, min(self.t, 1))}

    def reset(self, episodes):
        self.episodes, self.t = episodes, 0
        return self._observe()

    def step(self, action):
        reward = -(action["x"] - torch.sin(self.episodes.float() + self.t)).square()
        self.t += 1
        ends_early = self.early & (self.episodes % EPISODES > EPISODES // 2)
        return self._observe(), reward, ends_early | (self.t == 2)

    def outcome(self):
        return {"episodes": self.episodes}


class Linear(torch.nn.Linear):
    def forward(self, observation):
        numbers = torch.stack([observation["number"], observation["timestep"].float()], dim=1)
        return super().forward(numbers)


def train(distributed, early):
    torch.manual_seed(0)
    policy, critic = _policy(), Linear(2, 1)
    parameters = [*policy.parameters(), *critic.parameters()]
    engine = Engine(parameters) if distributed else None
    trainer = PPOTrainer(policy, critic, CONFIG, engine, seed=5)
    episodes, metrics, gradients = [], [], []
    for _ in range(2):
        rollout = trainer.collect(Target(early), EPISODES, batch_size=5)
        episodes.append(rollout.outcome["episodes"].tolist())
        metrics.append(trainer.update(rollout))
        gradients.append(torch.cat([p.grad.flatten() for p in parameters]))
    return {
        "episodes": episodes,
        "metrics": metrics,
        "gradients": gradients,
        "weights": torch.cat([p.detach().flatten() for p in parameters]),
        "generator": trainer.state_dict()["generator"],
    }


def _policy():
    spec = ActionSpec([ActionComponent(name="x", squash="identity")], torch.zeros(2, 1))
    return GaussianPolicy(Linear(2, 1), spec, learn_std=True)


def worker(rank, folder, early):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    uneven = PPOTrainer(_policy(), Linear(2, 1), CONFIG, Engine([]))
    with pytest.raises(ValueError, match=r"num_episodes is 3, .* processes \(2\)"):
        uneven.collect(Target(early), 3)
    torch.save(train(True, early), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
