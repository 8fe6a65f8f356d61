"""How much memory a rollout takes, computed and measured.

    python examples/rollout_memory.py --num-episodes 128

Plays episodes whose observations have the size of a NAT's features and compares the rollout's
bytes with the growth of the process (on a GPU, of its allocations), so what collecting holds for a
moment is in it: one batch's observation, in float32.
"""

import argparse
import resource

import torch
from policyrl import ActionComponent, ActionSpec, GaussianPolicy, collect
from torch import Tensor, nn

MIB = 2**20


class Features:
    """Random features (L, C); the first step's depend on the class alone."""

    def __init__(self, num_steps: int, shape: tuple[int, int], num_classes: int) -> None:
        self.num_steps, self.shape, self.num_classes = num_steps, shape, num_classes

    def reset(self, episodes: Tensor) -> dict[str, Tensor]:
        self.t, self.labels = 0, self.classes(episodes)
        features = self.labels[:, None, None] + torch.zeros(*self.shape, device=episodes.device)
        return {"features": features, "timestep": torch.zeros_like(episodes)}

    def step(self, action: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        self.t += 1
        features = torch.randn(len(self.labels), *self.shape, device=self.labels.device)
        timestep = torch.full_like(self.labels, min(self.t, self.num_steps - 1))
        return {"features": features, "timestep": timestep}, action["x"], timestep < 0

    def classes(self, episodes: Tensor) -> Tensor:
        return episodes % self.num_classes


class FirstNumber(nn.Module):
    """The smallest network: what is measured is the rollout."""

    def forward(self, observation: dict[str, Tensor]) -> Tensor:
        return observation["features"][:, 0, :1].float()


def allocated(device: str) -> int:
    """The most bytes that were in use so far."""
    if device == "cpu":
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in KiB
    return torch.cuda.max_memory_allocated()


def main() -> tuple[int, int]:
    """Play once; returns the rollout's bytes and the measured growth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-episodes", type=int, default=4096)
    parser.add_argument("--num-steps", type=int, default=8)
    parser.add_argument("--feature-shape", type=int, nargs=2, default=(256, 768))
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    env = Features(args.num_steps, tuple(args.feature_shape), args.num_classes)
    component = ActionComponent(name="x", squash="identity")
    spec = ActionSpec.without_prior([component], args.num_steps)
    policy = GaussianPolicy(FirstNumber(), spec).to(args.device)
    # A batch of its own first, so that what the libraries load is not counted.
    for num_episodes in (2, args.num_episodes):
        before = allocated(args.device)
        rollout = collect(
            env,
            policy,
            FirstNumber(),
            torch.arange(num_episodes, device=args.device),
            torch.randn(args.num_steps, num_episodes, 1),
            batch_size=args.batch_size,
            shared_first_step=env.classes,
            feature_dtype=torch.bfloat16,
        )
    growth = allocated(args.device) - before
    print(f"rollout {rollout.num_bytes / MIB:.0f} MiB, growth {growth / MIB:.0f} MiB")
    return rollout.num_bytes, growth


if __name__ == "__main__":
    main()
