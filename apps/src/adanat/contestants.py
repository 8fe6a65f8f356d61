"""The decoding policies that an evaluation compares."""

from natgen import DecodingPolicy, StaticSchedule

from adanat.run import Run
from adanat.schedule_points import default_point, tuned_point

STATIC = "static"
STATIC_TUNED = "static_tuned"
ADAPTIVE = "adaptive"
ADAPTIVE_STATIC = "adaptive_static"


def of_seed(name: str, run: Run, seed: int) -> str:
    """Name of a policy seed's entry: the first seed has the plain name."""
    return name if seed == run.recipe.policy.seeds[0] else f"{name}_{seed}"


def contestants(run: Run) -> dict[str, DecodingPolicy]:
    """Hand-made, tuned, each learned policy, and the first one's own average, by name."""
    found: dict[str, DecodingPolicy] = {
        STATIC: default_point(run.recipe.num_decoding_steps).schedule(),
        STATIC_TUNED: tuned_point(run).schedule(),
    }
    for seed in run.recipe.policy.seeds:
        policy = run.policy(seed)
        found[of_seed(ADAPTIVE, run, seed)] = policy
        if seed == run.recipe.policy.seeds[0]:
            found[ADAPTIVE_STATIC] = StaticSchedule(policy.to_static())
    return found


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
        ADAPTIVE: "learned policy, its mean action for each sample",
        ADAPTIVE_STATIC: "the learned policy's average, the same for all samples",
    }[base]
