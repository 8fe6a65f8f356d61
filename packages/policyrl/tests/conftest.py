"""Small environments and networks shared by the tests."""

import pytest
import torch
from policyrl import ActionComponent, ActionSpec, GaussianPolicy


class Bandit:
    """T independent guesses: observation (B, 2), reward -(x - target)^2 each step.

    The target depends on the observation and the timestep, so a constant action cannot be best.
    Episodes end at different steps if `early` is set: episode e after 1 + e mod T steps.
    """

    def __init__(self, num_steps=2, early=False):
        self.num_steps = num_steps
        self.early = early

    def _observe(self):
        seed = self.episodes[:, None] * 31 + self.t * 17 + torch.tensor([3, 5])
        self.numbers = torch.sin(seed.float())
        return {"numbers": self.numbers, "timestep": torch.full_like(self.episodes, self.t)}

    def reset(self, episodes):
        self.episodes, self.t = episodes, 0
        self.total = torch.zeros(len(episodes))
        return self._observe()

    def step(self, action):
        target = self.numbers[:, 0] - 0.5 * self.numbers[:, 1] + 0.8 * (-1) ** self.t
        reward = -(action["x"] - target).square()
        self.total += reward
        length = 1 + self.episodes % self.num_steps if self.early else self.num_steps
        self.t += 1
        terminated = torch.full_like(self.episodes, self.t) >= length
        self.t = min(self.t, self.num_steps - 1)
        return self._observe(), reward, terminated


class Silent(Bandit):
    """The same, with the reward only in its outcome."""

    def step(self, action):
        observation, reward, terminated = super().step(action)
        return observation, torch.zeros_like(reward), terminated

    def outcome(self):
        return {"total": self.total, "episodes": self.episodes}


class Numbers(torch.nn.Module):
    """A small network over the bandit's observation."""

    def __init__(self, num_outputs, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = torch.nn.Sequential(
                torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, num_outputs)
            )

    def forward(self, observation):
        clock = torch.nn.functional.one_hot(observation["timestep"], 2)
        return self.net(torch.cat([observation["numbers"].float(), clock.float()], dim=1))


class Toys:
    """What the fixture hands out."""

    Bandit = Bandit
    Silent = Silent
    Numbers = Numbers

    @staticmethod
    def spec(num_steps=2):
        components = [
            ActionComponent(name="x", squash="identity"),
            ActionComponent(name="idle", squash="sigmoid"),
        ]
        prior = torch.tensor([[0.0, 0.5]]).repeat(num_steps, 1)
        active = torch.tensor([[True, False]]).repeat(num_steps, 1)
        return ActionSpec(components, prior, active)

    @classmethod
    def policy(cls, std=0.4, seed=0):
        return GaussianPolicy(Numbers(2, seed), cls.spec(), std=std)


@pytest.fixture(scope="session")
def toys():
    return Toys
