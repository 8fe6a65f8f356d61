"""PPO of policyrl on a Gymnasium task: swing a pendulum up and hold it there.

    python examples/gymnasium_control.py

policyrl was made for decisions inside a generative process, but it asks only for a batch of
episodes in lockstep. Three things are written here: the environment, the networks, the settings.
"""

import gymnasium
import torch
from policyrl import ActionComponent, ActionSpec, GaussianPolicy, PPOConfig, PPOTrainer, collect
from torch import Tensor, nn

NUM_STEPS = 200  # Pendulum-v1 ends its episodes after as many
MAX_TORQUE = 2.0
# Untrained policies get about -1200, a pendulum held upright from the first moment 0. What a good
# policy gets is the cost of the swing, between -130 and -200 on average.
GOOD_RETURN = -200.0


class Pendulum:
    """Pendulum-v1 in batch; an episode's number is the seed of its start."""

    num_steps = NUM_STEPS

    def reset(self, episodes: Tensor) -> dict[str, Tensor]:
        self.envs = gymnasium.make_vec("Pendulum-v1", num_envs=len(episodes))
        state, _ = self.envs.reset(seed=episodes.tolist())
        self.t = 0
        return self._observe(state)

    def step(self, action: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        state, reward, terminated, _, _ = self.envs.step(action["torque"][:, None].numpy())
        self.t = min(self.t + 1, NUM_STEPS - 1)
        # Returns of about -1000 are too large for a value network at its usual learning rate.
        return self._observe(state), torch.from_numpy(reward) / 100, torch.from_numpy(terminated)

    def _observe(self, state) -> dict[str, Tensor]:
        observed = torch.from_numpy(state).float()
        return {"state": observed, "timestep": torch.full((len(observed),), self.t)}


class Network(nn.Module):
    """Reads the state (cosine, sine and speed of the angle) and how far the episode is."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, num_outputs)
        )

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        clock = observation["timestep"][:, None] / NUM_STEPS
        return self.layers(torch.cat([observation["state"], clock], dim=1))


def average_return(policy: GaussianPolicy, num_episodes: int = 100) -> float:
    """Average return without exploration, on starts that training has not seen."""
    episodes = torch.arange(1_000_000, 1_000_000 + num_episodes)
    noise = torch.zeros(NUM_STEPS, num_episodes, 1)
    rollout = collect(Pendulum(), policy, Network(1), episodes, noise)
    return 100 * rollout.episode_rewards.mean().item()


def train(num_updates: int = 60, seed: int = 0) -> GaussianPolicy:
    torch.manual_seed(seed)
    torque = ActionComponent(name="torque", squash="identity", bounds=(-MAX_TORQUE, MAX_TORQUE))
    spec = ActionSpec.without_prior([torque], num_steps=NUM_STEPS)
    policy = GaussianPolicy(Network(1), spec, std=1.0, learn_std=True)
    config = PPOConfig(
        learning_rate=1e-3,
        gamma=0.95,
        gae_lambda=0.95,
        num_minibatches=16,
        update_epochs=10,
        normalize_returns=False,
        normalize_advantages=True,
        max_grad_norm=0.5,
        target_kl=0.03,
        ent_coef=0.0,
    )
    trainer = PPOTrainer(policy, Network(1), config, seed=seed)
    env = Pendulum()
    for update in range(num_updates):
        metrics = trainer.update(trainer.collect(env, num_episodes=16))
        if update % 10 == 9:
            noisy_return, std = 100 * metrics["reward_mean"], metrics["std"]
            print(
                f"update {update + 1:3d}: return while exploring {noisy_return:.1f}, std {std:.2f}"
            )
    return policy


if __name__ == "__main__":
    print(f"average return {average_return(train()):.1f} (good: above {GOOD_RETURN:g})")
