"""Which of the four numbers matter: policies that learn, or have, only some of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from natgen import DecodingPolicy
from torch import Tensor

from adanat.contestants import ADAPTIVE, STATIC_TUNED, of_seed
from adanat.judge import LITE2
from adanat.recipes.base import Recipe
from adanat.report import Value
from adanat.run import Run
from adanat.runs import Stage
from adanat.schedule_points import tuned_point
from adanat.scoreboard import DISTANCE
from adanat.stages import train_policies
from adanat.studies.scoring import Rows, gain, names_of_seeds, score, value

AblationKind = Literal["exchanged", "alone", "without"]
"""`exchanged`: the learned policies and the tuned schedule with single numbers of the other, which
needs no training. The other two train policies: for each number `alone`, for all `without` each."""


class Exchanged:
    """A decoding policy that has some of its numbers from another one.

    Args:
        policy: chooses the numbers.
        other: chooses those of `names` in its place; of as many steps.
        names: of the numbers, see `natgen.COMPONENTS`.
    """

    def __init__(self, policy: DecodingPolicy, other: DecodingPolicy, names: Sequence[str]) -> None:
        self._policy, self._other, self._names = policy, other, names

    @property
    def num_steps(self) -> int:
        """Number of decoding steps T."""
        return self._policy.num_steps

    def __call__(self, features: Tensor, timestep: int) -> Mapping[str, Tensor]:
        """Features (B, N, D) -> one (B,) tensor a number."""
        others = self._other(features, timestep)
        taken = {name: others[name] for name in self._names}
        return {**self._policy(features, timestep), **taken}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A line of the ablation: a mean over policy seeds, or over generation seeds if it is one.

    Attributes:
        distance: lite2 FD.
        recall: on the same features.
        gain: paired, in lite2 FD over the tuned schedule.
        policy_seeds: of how many policies it is.
    """

    distance: Value
    recall: Value
    gain: Value
    policy_seeds: int

    @classmethod
    def of(cls, rows: Rows, entries: Sequence[str]) -> "Measured":
        """Scores of the entries, which are one contestant's, beside those of the tuned schedule."""
        return cls(
            distance=value(rows, entries, DISTANCE),
            recall=value(rows, entries, f"{LITE2}_recall"),
            gain=gain(rows, [STATIC_TUNED], entries, DISTANCE),
            policy_seeds=len(entries),
        )


def ablate(
    run: Run, kinds: Sequence[AblationKind], num_seeds: int, scored: Stage
) -> tuple[dict[str, Measured], list[Stage]]:
    """Measure policies with some of the numbers that the run's policies learn.

    Args:
        run: with trained policies.
        kinds: which of them.
        num_seeds: of how many of the run's policy seeds.
        scored: the finished scores of the run's own contestants.

    Returns:
        The lines by name, the run's own policies first, and the stages that were done for them.
    """
    known = scored.results()["scores"]
    tuned = [row for row in known if row["policy"] == STATIC_TUNED]
    found = {"all": Measured.of(known, names_of_seeds(ADAPTIVE, run))}
    stages = []
    few = replace(run.recipe.policy, seeds=run.recipe.policy.seeds[:num_seeds])
    if "exchanged" in kinds and len(few.learned) > 1:
        exchanged = _variant(run, "exchanged", replace(run.recipe, policy=few))
        policies = list(exchanged.stages.policies.values())
        stage = score(exchanged, partial(_exchanged, exchanged), policies, scored)
        stages.append(stage)
        rows = [*tuned, *stage.results()["scores"]]
        for line in [form(name) for form in (_put_in, _taken_out) for name in few.learned]:
            found[line] = Measured.of(rows, names_of_seeds(line, exchanged))
    for name, learned in _subsets(few.learned, kinds).items():
        recipe = replace(run.recipe, policy=replace(few, learned=learned))
        fewer = _variant(run, name.replace(" ", "-"), recipe)
        train_policies(fewer)
        policies = list(fewer.stages.policies.values())
        stage = score(fewer, partial(_adaptive, fewer), policies, scored)
        stages += [*policies, stage]
        rows = [*tuned, *stage.results()["scores"]]
        found[name] = Measured.of(rows, names_of_seeds(ADAPTIVE, fewer))
    return found, stages


def _variant(run: Run, name: str, recipe: Recipe) -> Run:
    return replace(run, recipe=recipe, output_dir=run.output_dir / name, base=run)


def _subsets(learned: Sequence[str], kinds: Sequence[AblationKind]) -> dict[str, tuple[str, ...]]:
    """Numbers to learn, by a name: proper parts of those that the recipe's policy learns."""
    found: dict[str, tuple[str, ...]] = {}
    if len(learned) > 1 and "alone" in kinds:
        found |= {f"only {name}": (name,) for name in learned}
    if len(learned) > 2 and "without" in kinds:
        found |= {
            f"without {name}": tuple(other for other in learned if other != name)
            for name in learned
        }
    return found


def _put_in(name: str) -> str:
    return f"tuned with the policy's {name}"


def _taken_out(name: str) -> str:
    return f"all but {name}, which is the tuned one"


def _exchanged(run: Run) -> dict[str, DecodingPolicy]:
    found: dict[str, DecodingPolicy] = {}
    tuned = tuned_point(run).schedule()
    for seed in run.recipe.policy.seeds:
        learned = run.policy(seed)
        for name in run.recipe.policy.learned:
            found[of_seed(_put_in(name), run, seed)] = Exchanged(tuned, learned, [name])
            found[of_seed(_taken_out(name), run, seed)] = Exchanged(learned, tuned, [name])
    return found


def _adaptive(run: Run) -> dict[str, DecodingPolicy]:
    return {of_seed(ADAPTIVE, run, seed): run.policy(seed) for seed in run.recipe.policy.seeds}
