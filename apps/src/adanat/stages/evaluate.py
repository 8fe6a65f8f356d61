"""Stage `evaluate`: every policy on test images, with the same labels and the same noise."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from natgen import DecodingPolicy

from adanat.caption_judge import CaptionJudge
from adanat.checkpoints import atomic_write_json, read_json
from adanat.contestants import (
    ADAPTIVE,
    ADAPTIVE_STATIC,
    STATIC_TUNED,
    contestants,
    of_seed,
    tuned_at,
)
from adanat.judge import LITE2, Judge
from adanat.metrics import (
    Classifier,
    ClassifierConfig,
    ClassifierTrainingConfig,
    Interval,
    Reference,
    accuracy,
    all_scores,
    equivalent_steps,
    frechet_score,
    gap_share,
    paired_gain,
    t_interval,
    to_uint8,
    train_classifier,
)
from adanat.metrics.features import FloatArray
from adanat.progress import ProgressReporter
from adanat.run import Run, load_model
from adanat.schedule_points import tuned_points_of_more_steps
from adanat.seeding import derive_seed

CLASSIFIER = "classifier"
"""Name of the confirming features, of a classifier trained on the data set itself."""
DISTANCE = f"{LITE2}_fd"


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
        if not run.engine.is_main:
            return
        scores = _Scores(run)
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
                    str(seed): _compare(run, scores, of_seed(ADAPTIVE, run, seed))
                    for seed in run.recipe.policy.seeds
                },
            }
        )


class _Scores:
    """Scores by policy and seed, kept on disk."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._path = run.folder.evaluation / "scores.json"
        self.rows: list[dict[str, Any]] = read_json(self._path) if self._path.is_file() else []
        self.classifier = _load_or_train_classifier(run)
        self._judge = Judge(run, {CLASSIFIER: self.classifier.features}, split="test")
        self.label_plan = self._judge.conditions.plan
        self._captions = None if run.recipe.text.encoder is None else CaptionJudge(run)

    def measure(self, name: str, policy: DecodingPolicy, seed: int) -> None:
        """Score `policy` under one generation seed, unless that is known."""
        if any(row["policy"] == name and row["seed"] == seed for row in self.rows):
            return
        sampled = self._judge.sample(
            policy,
            seed=derive_seed(self._run.recipe.seed, "test", seed),
            num_samples=self._run.recipe.evaluation.num_samples,
            description=f"evaluate {name}, seed {seed}",
        )
        self.rows.append(
            {
                "policy": name,
                "seed": seed,
                "num_steps": policy.num_steps,
                **self._score(sampled.features),
                **self._caption_score(sampled.features),
                "network_passes": sampled.cost.passes_per_image,
                "images_per_second": sampled.cost.images_per_second,
            }
        )
        atomic_write_json(self._path, self.rows)

    def values(self, name: str, key: str) -> dict[int, float]:
        """One score of a policy by seed."""
        return {row["seed"]: float(row[key]) for row in self.rows if row["policy"] == name}

    def bounds(self) -> dict[str, dict[str, float]]:
        """The floor and the real-to-real distance, with as many images as samples if there are."""
        run, batch_size = self._run, self._run.recipe.evaluation.batch_size
        real = run.images("validation").images[: run.recipe.evaluation.num_samples]
        codes, _ = run.tokens("validation").batch(range(len(real)))
        decode = self._judge.generator.tokenizer.decode
        rebuilt = (to_uint8(decode(chunk.to(run.device))) for chunk in codes.split(batch_size))
        return {
            "real_to_real": {
                "num_images": len(real),
                **self._score(self._judge.embed(real.split(batch_size))),
            },
            "reconstructions": {
                "num_images": len(real),
                **self._score(self._judge.embed(rebuilt)),
            },
        }

    def caption_protocol(self) -> dict[str, float]:
        """How far the caption score can be believed; nothing where classes condition."""
        if self._captions is None:
            return {}
        return {"caption_score_of_validation_pairs": self._captions.score_of_real_pairs()}

    def _caption_score(self, features: dict[str, FloatArray]) -> dict[str, float]:
        if self._captions is None:
            return {}
        return {"caption_score": self._captions.score(features[LITE2])}

    @cached_property
    def _references(self) -> dict[str, Reference]:
        return self._judge.references("test")

    def _score(self, features: dict[str, FloatArray]) -> dict[str, float]:
        return {
            **all_scores(features[LITE2], self._references[LITE2], prefix=LITE2),
            # A confirmation needs no more than the distance.
            f"{CLASSIFIER}_fd": frechet_score(features[CLASSIFIER], self._references[CLASSIFIER]),
        }


def _load_or_train_classifier(run: Run) -> Classifier:
    path = run.folder.evaluation / "classifier"
    if path.is_dir():
        return load_model(Classifier.from_pretrained, path).to(run.device).eval()
    fit = run.reference_images("fit")
    steps = run.recipe.evaluation.classifier_steps
    with ProgressReporter("classifier", steps) as progress:
        classifier = train_classifier(
            fit.images,
            fit.labels,
            ClassifierConfig(num_classes=run.recipe.data.num_classes),
            ClassifierTrainingConfig(
                num_steps=steps, seed=derive_seed(run.recipe.seed, "classifier")
            ),
            on_step=lambda _, loss: progress.advance(values={"loss": loss}),
        )
    half_written = path.with_name(".tmp-classifier")
    classifier.save_pretrained(half_written)
    half_written.replace(path)
    return classifier.to(run.device)


def _compare(run: Run, scores: _Scores, name: str) -> dict[str, Any]:
    """What a learned policy gains, paired over the seeds; None where it cannot be said."""
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
        # What choosing for each sample adds to a better schedule for all (first policy seed only).
        "gain_over_own_average": _gain(scores.values(ADAPTIVE_STATIC, DISTANCE), adaptive)
        if name == ADAPTIVE
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
