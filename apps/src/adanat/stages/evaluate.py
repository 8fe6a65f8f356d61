"""Stage `evaluate`: every policy on test images, with the same labels and the same noise."""

from collections.abc import Sequence
from typing import Any

import torch

from adanat.contestants import (
    ADAPTIVE,
    ADAPTIVE_STATIC,
    STATIC_SEARCHED,
    STATIC_TUNED,
    contestants,
    of_seed,
    tuned_at,
)
from adanat.judge import LITE2
from adanat.metrics import (
    Interval,
    accuracy,
    equivalent_steps,
    gap_share,
    paired_gain,
    t_interval,
)
from adanat.run import Run
from adanat.schedule_points import tuned_points_of_more_steps
from adanat.scoreboard import CLASSIFIER, DISTANCE, Scoreboard


def evaluate(run: Run) -> None:
    """Score all policies under all seeds, the bounds, and the tuned schedule at more steps.

    Each score is written down as soon as it is known; an interrupted evaluation goes on there.
    """
    stage = run.stages.evaluation
    if stage.is_done():
        return
    recipe = run.recipe.evaluation
    policies = contestants(run)
    with stage:
        scores = Scoreboard(run, stage.folder)
        for seed in recipe.seeds:
            for name, policy in policies.items():
                scores.measure(name, policy, seed)
        for seed in recipe.seeds:
            for point in tuned_points_of_more_steps(run):
                scores.measure(tuned_at(point.num_steps), point.schedule(), seed)
        test_images = run.reference_images("test")
        stage.finish(
            {
                "protocol": {
                    "num_samples": recipe.num_samples,
                    "seeds": list(recipe.seeds),
                    "label_plan": scores.label_plan,
                    "features": f"EfficientNet-Lite2 pooled, images at {recipe.feature_size} px",
                    "reference": f"{len(test_images.images)} test images",
                    "classifier_accuracy": accuracy(
                        scores.classifier, test_images.images, test_images.labels
                    ),
                    **scores.caption_protocol(),
                },
                "bounds": scores.bounds(),
                "scores": scores.rows,
                "comparisons": {
                    str(seed): _compare(run, scores, seed) for seed in run.recipe.policy.seeds
                },
            }
        )


def _compare(run: Run, scores: Scoreboard, policy_seed: int) -> dict[str, Any]:
    """What a learned policy gains, paired over the seeds; None where it cannot be said."""
    name = of_seed(ADAPTIVE, run, policy_seed)
    average = of_seed(ADAPTIVE_STATIC, run, policy_seed)
    seeds = run.recipe.evaluation.seeds
    tuned_by_steps = {run.recipe.num_decoding_steps: scores.values(STATIC_TUNED, DISTANCE)}
    for point in tuned_points_of_more_steps(run):
        tuned_by_steps[point.num_steps] = scores.values(tuned_at(point.num_steps), DISTANCE)
    adaptive, tuned = scores.values(name, DISTANCE), scores.values(STATIC_TUNED, DISTANCE)
    few, many = (tuned_by_steps[extreme(tuned_by_steps)] for extreme in (min, max))
    steps = equivalent_steps({k: _mean(v) for k, v in tuned_by_steps.items()}, _mean(adaptive))
    shrinks = all(many[seed] < few[seed] for seed in seeds)
    return {
        **{
            f"{key}_gain": _gain(scores.values(STATIC_TUNED, key), scores.values(name, key))
            for key in (DISTANCE, f"{LITE2}_recall", f"{CLASSIFIER}_fd")
        },
        # The published form: how much of the distance is gone.
        "relative_reduction": 1 - _mean(adaptive) / _mean(tuned),
        # What choosing for each sample adds to a better schedule for all.
        "gain_over_own_average": _gain(scores.values(average, DISTANCE), adaptive),
        "gain_over_searched": _gain(scores.values(STATIC_SEARCHED, DISTANCE), adaptive)
        if run.recipe.static_search.included
        else None,
        "equivalent_steps": steps if steps < torch.inf else None,  # JSON has no infinity
        "gap_share": _spread([gap_share(few[s], adaptive[s], many[s]) for s in seeds])
        if shrinks
        else None,
        "tuned_distance_by_steps": {str(k): _mean(v) for k, v in tuned_by_steps.items()},
    }


def _mean(values: dict[int, float]) -> float:
    return sum(values.values()) / len(values)


def _gain(baseline: dict[int, float], candidate: dict[int, float]) -> dict[str, float] | None:
    """Interval of baseline - candidate over the seeds, None with a single one."""
    if len(candidate) < 2:
        return None
    seeds = sorted(candidate)
    return _ends(paired_gain([baseline[s] for s in seeds], [candidate[s] for s in seeds]))


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    return _ends(t_interval(values)) if len(values) > 1 else None


def _ends(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
