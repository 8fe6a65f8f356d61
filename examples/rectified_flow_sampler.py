"""A second generator for policyrl: the timesteps and the guidance of a rectified flow.

    python examples/rectified_flow_sampler.py

A small rectified flow (arXiv 2209.03003) learns six classes of points in the plane, in seconds. It
is sampled with four Euler steps; each step needs two numbers, how far to go and how strongly to
guide (arXiv 2207.12598). By hand: equal steps and one guidance scale. The policy looks at the
flow's own hidden features at each step and sets both for each point. Its reward is how close it
gets to what 100 steps make of the same noise, with the guidance set by hand.
"""

import math

import policyrl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_CLASSES = 6
NUM_STEPS = 4
FINE_STEPS = 100
GUIDANCE = 1.0  # by hand; the velocity is cond + scale (cond - uncond)
WIDTH = 64


def draw_data(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points (B, 2) on six curved blades around the origin, and their classes (B,)."""
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    radius = 0.5 + 1.5 * torch.rand(count, generator=generator)
    angle = 2 * math.pi * labels / NUM_CLASSES + 0.8 * radius
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return points + 0.05 * torch.randn(count, 2, generator=generator), labels


class Flow(nn.Module):
    """Velocity of points x (B, 2) at times t (B,) for labels (B,); NUM_CLASSES is no class."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.first = nn.Embedding(NUM_CLASSES + 1, WIDTH), nn.Linear(3, WIDTH)
        self.middle = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.last = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 2))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity (B, 2) and the hidden features (B, WIDTH)."""
        features = self.first(torch.cat([x, t[:, None]], dim=1)) + self.embedding(labels)
        features = self.middle(features)
        return self.last(features), features

    def guided(self, x: Tensor, t: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
        (cond, _), (uncond, _) = self(x, t, labels), self(x, t, 0 * labels + NUM_CLASSES)
        return cond + scale[:, None] * (cond - uncond)


def train_flow(generator: torch.Generator, num_updates: int = 1000, size: int = 256) -> Flow:
    """Regress the straight line from noise (t = 0) to data (t = 1); one label in ten is dropped."""
    flow = Flow()
    optimizer = torch.optim.Adam(flow.parameters(), lr=2e-3)
    for _ in range(num_updates):
        data, labels = draw_data(size, generator)
        noise, t = torch.randn(size, 2, generator=generator), torch.rand(size, generator=generator)
        dropped = torch.rand(size, generator=generator) < 0.1
        labels = torch.where(dropped, NUM_CLASSES, labels)
        velocity, _ = flow(noise + t[:, None] * (data - noise), t, labels)
        optimizer.zero_grad()
        F.mse_loss(velocity, data - noise).backward()
        optimizer.step()
    return flow.eval().requires_grad_(False)


class Sampling:
    """An episode is the sampling of one point; its number decides its noise and its class."""

    num_steps = NUM_STEPS

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def reset(self, episodes: Tensor) -> dict[str, Tensor]:
        draws = [torch.Generator().manual_seed(int(episode)) for episode in episodes]
        self.x = torch.stack([torch.randn(2, generator=draw) for draw in draws])
        self.labels, self.t, self.step_number = episodes % NUM_CLASSES, torch.zeros(len(draws)), 0
        self.fine, scale = self.x, torch.full_like(self.t, GUIDANCE)
        for t in torch.arange(FINE_STEPS) / FINE_STEPS:
            velocity = self.flow.guided(self.fine, self.t + t, self.labels, scale)
            self.fine = self.fine + velocity / FINE_STEPS
        return self._observe()

    def step(self, action: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        size = action["fraction"] * (1 - self.t)  # of the way that is left
        velocity = self.flow.guided(self.x, self.t, self.labels, action["guidance"])
        self.x, self.t = self.x + size[:, None] * velocity, self.t + size
        self.step_number += 1
        ended = torch.full_like(self.labels, self.step_number) == NUM_STEPS
        reward = torch.where(ended, -(self.x - self.fine).norm(dim=1), 0.0)
        return self._observe(), reward, ended

    def _observe(self) -> dict[str, Tensor]:
        _, features = self.flow(self.x, self.t, self.labels)
        timestep = torch.full_like(self.labels, min(self.step_number, NUM_STEPS - 1))
        return {"features": features[:, None], "timestep": timestep}  # a feature grid of 1x1


def network(num_outputs: int) -> policyrl.PolicyNetwork:
    sizes = {"feature_dim": WIDTH, "hidden_dim": WIDTH, "conv_channels": WIDTH, "time_dim": 32}
    config = {"grid_size": (1, 1), "num_outputs": num_outputs, "mlp_dims": (WIDTH,), **sizes}
    return policyrl.PolicyNetwork(policyrl.PolicyNetworkConfig(**config))


def make_policy(schedule: Tensor) -> policyrl.GaussianPolicy:
    """Untrained, it is the schedule (T, 2); the last step always takes all that is left."""
    fraction = policyrl.ActionComponent(name="fraction", squash="sigmoid")
    guidance = policyrl.ActionComponent(name="guidance", squash="identity", bounds=(-2.0, 6.0))
    active = torch.ones(NUM_STEPS, 2, dtype=torch.bool)
    active[-1, 0] = False
    spec = policyrl.ActionSpec([fraction, guidance], schedule, active)
    return policyrl.GaussianPolicy(network(2), spec, std=0.3, learn_std=True)


def error(env: Sampling, policy: policyrl.GaussianPolicy, count: int = 1000) -> float:
    """Mean distance to the fine samples, without exploration, on noise never trained on."""
    episodes, noise = torch.arange(10**6, 10**6 + count), torch.zeros(NUM_STEPS, count, 2)
    rollout = policyrl.collect(env, policy, network(1), episodes, noise)
    values = [policy.spec.activate(raw, t) for t, raw in enumerate(rollout.raw_actions)]
    policy.fit_statistics(torch.stack([torch.stack([*v.values()], dim=1) for v in values], dim=1))
    return -rollout.episode_rewards.mean().item()


def main(num_updates: int = 40, seed: int = 0) -> dict[str, float]:
    """Train both; returns the errors by hand, of the policy, and of its average as a schedule."""
    torch.manual_seed(seed)
    env = Sampling(train_flow(torch.Generator().manual_seed(seed)))
    # Equal steps: of what is left the first takes 1/4, then 1/3, 1/2, and the last one all.
    fractions = 1 / torch.arange(NUM_STEPS, 0, -1)
    policy = make_policy(torch.stack([fractions, torch.full((NUM_STEPS,), GUIDANCE)], dim=1))
    errors = {"by hand": error(env, policy)}
    config = policyrl.PPOConfig(learning_rate=2e-3, num_minibatches=4, ent_coef=0.0)
    trainer = policyrl.PPOTrainer(policy, network(1), config, seed=seed)
    for _ in range(num_updates):
        trainer.update(trainer.collect(env, num_episodes=512))
    errors["policy"] = error(env, policy)
    errors["its average"] = error(env, make_policy(policy.to_static()))
    print(policy.describe(), f"mean distance to {FINE_STEPS} steps: {errors}", sep="\n")
    return errors


if __name__ == "__main__":
    main()
