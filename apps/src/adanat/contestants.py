"""The decoding policies that an evaluation compares."""

import torch
from natgen import DecodingPolicy, StaticSchedule

from adanat.run import Run
from adanat.schedule_points import default_point, tuned_point

STATIC = "static"
STATIC_TUNED = "static_tuned"
STATIC_SEARCHED = "static_searched"
ADAPTIVE = "adaptive"
ADAPTIVE_STATIC = "adaptive_static"


def of_seed(name: str, run: Run, seed: int) -> str:
    """Name of a policy seed's entry: the first seed has the plain name."""
    return name if seed == run.recipe.policy.seeds[0] else f"{name}_{seed}"


def contestants(run: Run) -> dict[str, DecodingPolicy]:
    """Hand-made, tuned, searched if the run does so, each learned policy and its average."""
    found: dict[str, DecodingPolicy] = {
        STATIC: default_point(run.recipe.num_decoding_steps).schedule(),
        STATIC_TUNED: tuned_point(run).schedule(),
    }
    if run.recipe.static_search.included:
        found[STATIC_SEARCHED] = searched_schedule(run)
    for seed in run.recipe.policy.seeds:
        policy = run.policy(seed)
        found[of_seed(ADAPTIVE, run, seed)] = policy
        found[of_seed(ADAPTIVE_STATIC, run, seed)] = StaticSchedule(policy.to_static())
    return found


def searched_schedule(run: Run) -> StaticSchedule:
    """The winner of the search without gradients."""
    run.require(run.stages.static_search)
    return StaticSchedule(torch.tensor(run.stages.static_search.results()["values"]))


def same_schedule(one: DecodingPolicy, other: DecodingPolicy) -> bool:
    """Whether both are schedules of equal numbers, and so draw the same images."""
    return (
        isinstance(one, StaticSchedule)
        and isinstance(other, StaticSchedule)
        and torch.equal(one.values, other.values)
    )


def tuned_at(num_steps: int) -> str:
    """Name of the tuned schedule's entry at a larger number of steps."""
    return f"{STATIC_TUNED}_T{num_steps}"


def describe(name: str) -> str:
    """A few words on an entry of an evaluation, for tables."""
    if name.startswith(tuned_prefix := tuned_at(0)[:-1]):
        return f"the tuned schedule at {name.removeprefix(tuned_prefix)} steps"
    base = name.rstrip("0123456789").rstrip("_")
    return {
        STATIC: "published hand-made schedule",
        STATIC_TUNED: "best of the grid, chosen on validation images",
        STATIC_SEARCHED: "searched without gradients on validation images",
        ADAPTIVE: "learned policy, its mean action for each sample",
        ADAPTIVE_STATIC: "the learned policy's average, the same for all samples",
    }[base]
