"""What an evaluation measures of each policy and seed, with the same labels and the same noise."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from natgen import DecodingPolicy
from torch import Tensor

from adanat.caption_judge import CaptionJudge
from adanat.checkpoints import atomic_write_json, read_json
from adanat.contestants import same_schedule
from adanat.generation import decode_grids
from adanat.judge import LITE2, Judge
from adanat.metrics import (
    Classifier,
    ClassifierConfig,
    ClassifierTrainingConfig,
    Reference,
    all_scores,
    frechet_score,
    to_uint8,
    train_classifier,
)
from adanat.metrics.features import FloatArray
from adanat.progress import ProgressReporter
from adanat.run import Run, load_model
from adanat.seeding import derive_seed

CLASSIFIER = "classifier"
"""Name of the confirming features, of a classifier trained on the data set itself."""
DISTANCE = f"{LITE2}_fd"


class Scoreboard:
    """Scores by policy and seed on test images, kept on disk.

    Args:
        run: whose models, data and evaluation settings are used.
        folder: of a stage; holds `scores.json` and the classifier that confirms the distances.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        self._run = run
        self._path = folder / "scores.json"
        self.rows: list[dict[str, Any]] = read_json(self._path) if self._path.is_file() else []
        run.engine.require_equal(len(self.rows), f"scores in {self._path}")
        self._policies: dict[str, DecodingPolicy] = {}
        with run.engine.main_first():  # it trains
            self.classifier = _load_or_train_classifier(run, folder / "classifier")
        self._judge = Judge(run, {CLASSIFIER: self.classifier.features}, split="test")
        self.label_plan = self._judge.conditions.plan
        self._captions = None if run.recipe.text.encoder is None else CaptionJudge(run)

    def measure(self, name: str, policy: DecodingPolicy, seed: int) -> None:
        """Score `policy` under one generation seed, unless that is known."""
        self._policies[name] = policy
        if self._find(name, seed) is not None:
            return
        for other, known in self._policies.items():
            row = self._find(other, seed)
            if row is not None and same_schedule(known, policy):  # the grid may keep the default
                self._add(row | {"policy": name})
                return
        sampled = self._judge.sample(
            policy,
            seed=derive_seed(self._run.recipe.seed, "test", seed),
            num_samples=self._run.recipe.evaluation.num_samples,
            description=f"evaluate {name}, seed {seed}",
        )
        self._add(
            {
                "policy": name,
                "seed": seed,
                "num_steps": policy.num_steps,
                **self._score(sampled.features),
                **self._caption_score(sampled.features),
                "steps_used": sampled.num_steps.double().mean().item(),
                "steps_spread": sampled.num_steps.double().std(correction=0).item(),
                "network_passes": sampled.cost.passes_per_image,
                "images_per_second": sampled.cost.images_per_second,
            }
        )

    def _find(self, name: str, seed: int) -> dict[str, Any] | None:
        rows = (row for row in self.rows if row["policy"] == name and row["seed"] == seed)
        return next(rows, None)

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self._run.engine.is_main:
            atomic_write_json(self._path, self.rows)

    def values(self, name: str, key: str) -> dict[int, float]:
        """One score of a policy by seed."""
        return {row["seed"]: float(row[key]) for row in self.rows if row["policy"] == name}

    def bounds(self) -> dict[str, dict[str, float]]:
        """The floor and the real-to-real distance, with as many images as samples if there are."""
        run = self._run
        real = run.images("validation").images[: run.recipe.evaluation.num_samples]
        codes, _ = run.tokens("validation").batch(range(len(real)))
        tokenizer = self._judge.generator.tokenizer

        def rebuild(rows: slice) -> Tensor:
            return to_uint8(decode_grids(tokenizer, codes[rows].to(run.device)))

        images: dict[str, Callable[[slice], Tensor]] = {
            "real_to_real": real.__getitem__,
            "reconstructions": rebuild,
        }
        return {
            name: {
                "num_images": len(real),
                **self._score(self._judge.embed(len(real), rows_of, description=name)),
            }
            for name, rows_of in images.items()
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


def _load_or_train_classifier(run: Run, path: Path) -> Classifier:
    if path.is_dir():
        return load_model(Classifier.from_pretrained, path).to(run.device).eval()
    fit = run.reference_images("fit")
    steps = run.recipe.evaluation.classifier_steps
    with ProgressReporter("classifier", steps) as progress:
        classifier = train_classifier(
            fit.images,
            fit.labels,
            # Data sets of captions alone have one class; there it confirms nothing.
            ClassifierConfig(num_classes=max(2, run.recipe.data.num_classes)),
            ClassifierTrainingConfig(
                num_steps=steps, seed=derive_seed(run.recipe.seed, "classifier")
            ),
            on_step=lambda _, loss: progress.advance(values={"loss": loss}),
        )
    half_written = path.with_name(".tmp-classifier")
    classifier.save_pretrained(half_written)
    half_written.replace(path)
    return classifier.to(run.device)
