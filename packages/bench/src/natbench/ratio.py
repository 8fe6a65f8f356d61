"""natgen's decoding against the published loop: pairs of runs in turns, medians of their ratios.

Both sides use the same network, attention kernel, policy network and batch. Three runs make a
round:

- the published loop, 2T + 1 passes of the batch (`generate_plainly`);
- warm: the first step's outputs are kept (`natgen.FirstStepCache`), as in an evaluation or a policy
  training, which come back to the same classes;
- cold: as if every label were new: of the first step, only the unconditional output is kept.

The policy is a network around the published schedule, whose guidance is above 0 at every step, so
that neither side ever skips the unconditional branch.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from natgen import NAT, FirstStepCache, NATConfig, NoiseSource, generate
from policyrl import GaussianPolicy, PolicyNetwork, PolicyNetworkConfig, published_decoding_spec
from vqtok import Tokenizer, TokenizerConfig

from natbench.reference_loop import generate_plainly

_FIRST_STEP_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One line of the comparison.

    Attributes:
        name: such as "L256_T4".
        nat: the network's sizes; class-conditional.
        num_steps: T.
        batch_size: images a run.
    """

    name: str
    nat: NATConfig
    num_steps: int
    batch_size: int = 4

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.batch_size < 1:
            raise ValueError(
                f"{self.name}: num_steps and batch_size must be positive, "
                f"got {self.num_steps} and {self.batch_size}"
            )
        if self.nat.num_classes is None or self.nat.num_classes < self.batch_size:
            raise ValueError(
                f"{self.name}: needs a class for each of the {self.batch_size} images of a batch, "
                f"got {self.nat.num_classes}"
            )


class Round(NamedTuple):
    """Seconds of the three runs, made directly after one another."""

    reference: float
    warm: float
    cold: float


Clock = Callable[[], float]


def measure(
    contests: Sequence[Contest], *, seconds: float, clock: Clock = time.perf_counter
) -> dict[str, list[Round]]:
    """Measure rounds of all contests in turns, as many as the time allows, at least one.

    Args:
        contests: of different names; equal networks share their weights.
        seconds: no turn begins that would not end by then, judged by the longest one so far.
        clock: in seconds.

    Returns:
        The rounds of each contest, by its name.
    """
    if not contests:
        raise ValueError("nothing to compare: give at least one contest")
    began = clock()
    networks = {contest.nat: _network(contest.nat) for contest in contests}
    sides = {contest.name: _Sides(contest, networks[contest.nat]) for contest in contests}
    rounds: dict[str, list[Round]] = {contest.name: [] for contest in contests}
    longest = 0.0
    turn = 0
    while turn == 0 or clock() - began + longest < seconds:
        turn_began = clock()
        for name, runs in sides.items():
            rounds[name].append(_round(runs, turn, clock))
        longest = max(longest, clock() - turn_began)
        turn += 1
    return rounds


def ratios(rounds: Mapping[str, Sequence[Round]], *, besides: float = 0.0) -> dict[str, float]:
    """How many times as fast natgen is: the median over rounds, warm as NAME, cold as NAME_cold.

    Args:
        rounds: as measured.
        besides: seconds that every side takes besides, such as those of decoding the pictures.
    """
    result = {}
    for name, measured in rounds.items():
        for suffix, side in (("", "warm"), ("_cold", "cold")):
            result[name + suffix] = statistics.median(
                (each.reference + besides) / (getattr(each, side) + besides) for each in measured
            )
    return result


def picture_seconds(config: TokenizerConfig, batch_size: int, *, tries: int = 2) -> float:
    """Seconds of decoding a batch of token grids to pictures: the best of some tries."""
    tokenizer = Tokenizer(config).eval()
    grid = torch.zeros(batch_size, *config.grid_size, dtype=torch.int64)
    seconds = []
    for _ in range(tries):
        began = time.perf_counter()
        tokenizer.decode(grid)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


class _Sides:
    """The runs of one contest."""

    def __init__(self, contest: Contest, nat: NAT) -> None:
        self.nat = nat
        self.policy = _policy(contest)
        self.labels = torch.arange(contest.batch_size)
        self.generator = torch.Generator().manual_seed(0)
        self.noise = NoiseSource(0)
        self.keeps_all = FirstStepCache(nat, max_bytes=_FIRST_STEP_BYTES)
        self.keeps_unconditional = FirstStepCache(nat, max_bytes=0)
        # Ahead of all timing: the first calls are slow, and what is to be kept must be there.
        with torch.inference_mode():
            self.keeps_all.first_step(self.labels)
            for cache in (self.keeps_all, self.keeps_unconditional):
                cache.first_step(nat.null_condition(1))

    def reference(self) -> None:
        generate_plainly(self.nat, self.policy, self.labels, generator=self.generator)

    def warm(self) -> None:
        self._generate(self.keeps_all)

    def cold(self) -> None:
        self._generate(self.keeps_unconditional)

    def _generate(self, model: FirstStepCache) -> None:
        generate(
            model,
            self.policy,
            self.labels,
            sample_indices=torch.arange(len(self.labels)),
            noise=self.noise,
        )


def _round(sides: _Sides, turn: int, clock: Clock) -> Round:
    """Run the three sides, each turn beginning with another one: a drift of the machine cancels."""
    runs = {"reference": sides.reference, "warm": sides.warm, "cold": sides.cold}
    order = list(runs)
    shift = turn % len(order)
    seconds = {}
    for name in order[shift:] + order[:shift]:
        began = clock()
        runs[name]()
        seconds[name] = clock() - began
    return Round(**seconds)


def _network(config: NATConfig) -> NAT:
    torch.manual_seed(0)
    return NAT(config).eval()


def _policy(contest: Contest) -> GaussianPolicy:
    network = PolicyNetwork(
        PolicyNetworkConfig(
            feature_dim=contest.nat.embed_dim, grid_size=contest.nat.feature_grid, num_outputs=4
        )
    )
    return GaussianPolicy(network, published_decoding_spec(contest.num_steps, residual=True)).eval()
