"""Stage `report`: metrics.json and report.html from what the other stages left behind."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from natgen import DecodingPolicy, Generation, StaticSchedule

from adanat.checkpoints import atomic_write_json
from adanat.contestants import (
    ADAPTIVE,
    ADAPTIVE_STATIC,
    STATIC,
    STATIC_TUNED,
    contestants,
    describe,
)
from adanat.generation import Generator, balanced_labels
from adanat.judge import LITE2
from adanat.metrics import t_interval, to_uint8
from adanat.report import (
    Column,
    DecodingTrace,
    EvaluationProtocol,
    Highlight,
    ParameterCurves,
    ReportData,
    Row,
    SampleSet,
    Series,
    StepCurve,
    Table,
    TrainingFigure,
    Value,
)
from adanat.report import write_report as render_page
from adanat.run import Run
from adanat.runs import config_to_json, read_metrics
from adanat.seeding import derive_seed
from adanat.stages.evaluate import CLASSIFIER, DISTANCE

_SAMPLES_PER_CLASS = 8
_CURVE_SAMPLES = 500
_SMALL_TEST_SET = 1000
"""Below this many test images no ranking of policies is claimed."""

_COLUMNS = (
    Column(key=DISTANCE, label="lite2 FD", better="lower"),
    Column(key=f"{LITE2}_kid", label="lite2 KID", better="lower", digits=4),
    Column(key=f"{LITE2}_fd_pca64", label="lite2 FD, 64 PC", better="lower"),
    Column(key=f"{LITE2}_precision", label="precision", better="higher", digits=3),
    Column(key=f"{LITE2}_recall", label="recall", better="higher", digits=3),
    Column(key=f"{CLASSIFIER}_fd", label="classifier FD", better="lower", digits=3),
    Column(key="network_passes", label="passes / image", digits=1),
    Column(key="images_per_second", label="images / s", digits=0),
)


def write_report(run: Run) -> None:
    """Write `metrics.json` and `report.html` of a finished run."""
    run.require(run.stages.evaluation)
    found = run.stages.evaluation.results()
    seconds = {name: stage.seconds() for name, stage in run.stages.in_order().items()}
    means = _means(found["scores"])
    atomic_write_json(
        run.folder.metrics,
        {
            **means,
            **found["bounds"],
            "comparisons": found["comparisons"],
            "num_samples": found["protocol"]["num_samples"],
            "protocol": found["protocol"],
            "seconds": seconds,
        },
    )
    pictures = _Pictures(run)
    render_page(
        ReportData(
            title=f"AdaNAT on {run.recipe.data.source}",
            subtitle=_subtitle(run),
            tables=(_table(run, found),),
            highlights=_highlights(run, found),
            class_names=tuple(run.stages.data.results()["class_names"]),
            samples=pictures.samples(),
            traces=pictures.traces(),
            parameter_curves=pictures.curves(),
            step_curves=_step_curves(run, found, means),
            step_metric="lite2 FD",
            training=_training_figures(run),
            notes=_notes(run, found),
            seconds=seconds,
            command=f"adanat run {run.recipe.name} --output-dir {run.output_dir.name}",
            config=config_to_json(run.recipe),
            versions=_versions(),
        ),
        run.folder.report,
    )


def headline(run: Run) -> str:
    """The result as lines for a terminal."""
    means = _means(run.stages.evaluation.results()["scores"])
    keys = [c.key for c in _COLUMNS if any(c.key in row for row in means.values())]
    labels = {column.key: column.label for column in _COLUMNS}
    digits = {column.key: column.digits for column in _COLUMNS}
    rows = [["policy", *(labels[key] for key in keys)]]
    for name, row in means.items():
        rows.append([name, *(f"{row[key]:.{digits[key]}f}" if key in row else "-" for key in keys)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in rows
    )


def _means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean scores over seeds by policy."""
    names = list(dict.fromkeys(row["policy"] for row in rows))
    return {
        name: {
            key: float(np.mean([row[key] for row in rows if row["policy"] == name]))
            for key in rows[0]
            if key not in ("policy", "seed")
        }
        for name in names
    }


def _table(run: Run, found: Mapping[str, Any]) -> Table:
    protocol = found["protocol"]
    names = dict.fromkeys(row["policy"] for row in found["scores"])
    present = {key for row in found["scores"] for key in row}
    rows = [
        Row(
            name=name,
            values={
                column.key: _value([r[column.key] for r in found["scores"] if r["policy"] == name])
                for column in _COLUMNS
                if column.key in present
            },
            description=describe(name),
        )
        for name in names
        if not name.startswith(f"{STATIC_TUNED}_T")
    ]
    for name, description in (
        ("reconstructions", "the floor: validation images through the tokenizer"),
        ("real_to_real", "validation images themselves"),
    ):
        bounds = found["bounds"][name]
        values = {c.key: bounds[c.key] for c in _COLUMNS if c.key in bounds}
        text = f"{description}, {bounds['num_images']} of them"
        rows.append(Row(name=name, values=values, kind="bound", description=text))
    return Table(
        title=f"{run.recipe.num_decoding_steps} decoding steps",
        columns=tuple(column for column in _COLUMNS if column.key in present),
        rows=tuple(rows),
        protocol=EvaluationProtocol(
            num_samples=protocol["num_samples"],
            seeds=tuple(protocol["seeds"]),
            label_plan=protocol["label_plan"],
            features=protocol["features"],
            reference=protocol["reference"],
        ),
        caption=(
            "Same transformer, labels and noise for every policy. Distances are biased upwards at "
            "finite sample counts: compare within the table, and with the two bounds. The "
            f"confirming classifier is right on {100 * protocol['classifier_accuracy']:.1f} % of "
            "the test images."
        ),
    )


def _value(values: list[float]) -> Value:
    if len(values) < 2:
        return Value(mean=values[0])
    interval = t_interval(values)
    return Value(mean=interval.mean, half_width=interval.half_width)


def _highlights(run: Run, found: Mapping[str, Any]) -> tuple[Highlight, ...]:
    comparison = found["comparisons"][str(run.recipe.policy.seeds[0])]
    shown = []
    if gain := comparison.get(f"{DISTANCE}_gain"):
        shown.append(
            Highlight(
                label="gain over the tuned schedule",
                value=f"{gain['mean']:.2f}",
                remark=f"lite2 FD, 95 % interval {gain['low']:.2f} to {gain['high']:.2f}, paired",
            )
        )
    steps = comparison["equivalent_steps"]
    shown.append(
        Highlight(
            label="step equivalence",
            value="beyond the measured" if steps is None else f"{steps:.1f} steps",
            remark=f"of the tuned schedule, for {run.recipe.num_decoding_steps} of the policy",
        )
    )
    if (share := comparison["gap_share"]) is not None:
        last = max(map(int, comparison["tuned_distance_by_steps"]))
        shown.append(
            Highlight(
                label="share of the step gap closed",
                value=f"{100 * share:.0f} %",
                remark=f"between {run.recipe.num_decoding_steps} and {last} tuned steps",
            )
        )
    return tuple(shown)


def _step_curves(
    run: Run, found: Mapping[str, Any], means: Mapping[str, Mapping[str, float]]
) -> tuple[StepCurve, ...]:
    comparison = found["comparisons"][str(run.recipe.policy.seeds[0])]
    tuned = {int(k): float(v) for k, v in comparison["tuned_distance_by_steps"].items()}
    steps = run.recipe.num_decoding_steps
    return (
        StepCurve(name=STATIC_TUNED, distances=tuned),
        StepCurve(name=ADAPTIVE, distances={steps: means[ADAPTIVE][DISTANCE]}),
    )


def _training_figures(run: Run) -> tuple[TrainingFigure, ...]:
    folder = run.folder
    policies = {seed: folder.policy(seed) for seed in run.recipe.policy.seeds}

    def series(path: Any, key: str, label: str) -> list[Series]:
        rows = [r for r in read_metrics(path) if r.get(key) is not None]
        if not rows:
            return []
        steps, values = ([row[name] for row in rows] for name in ("step", key))
        return [Series(label=label, steps=np.array(steps), values=np.array(values))]

    def of_policies(key: str) -> tuple[Series, ...]:
        parts = [series(path, key, f"seed {seed}") for seed, path in policies.items()]
        return tuple(part for found in parts for part in found)

    figures = (
        TrainingFigure(
            title="Tokenizer: loss",
            series=(
                *series(folder.tokenizer, "loss", "training"),
                *series(folder.tokenizer, "validation_l1", "validation L1"),
            ),
            log_y=True,
        ),
        TrainingFigure(
            title="Tokenizer: codebook usage",
            series=(*series(folder.tokenizer, "validation_usage", "validation"),),
        ),
        TrainingFigure(
            title="Transformer: loss on masked tokens",
            series=(
                *series(folder.generator, "loss", "training, smoothed labels"),
                *series(folder.generator, "validation_loss", "validation"),
            ),
        ),
        TrainingFigure(title="Policy: reward", series=of_policies("reward_mean"), x_label="cycle"),
        TrainingFigure(
            title="Policy: validation lite2 FD",
            series=of_policies("validation_lite2_fd"),
            x_label="cycle",
        ),
        TrainingFigure(
            title="Discriminator: accuracy",
            series=of_policies("discriminator_accuracy"),
            x_label="cycle",
        ),
        TrainingFigure(
            title="PPO: approximate KL", series=of_policies("approx_kl"), x_label="cycle"
        ),
        TrainingFigure(
            title="PPO: explained variance",
            series=of_policies("explained_variance"),
            x_label="cycle",
        ),
    )
    return tuple(figure for figure in figures if figure.series)


def _notes(run: Run, found: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    count = run.stages.data.results()["images"]["test"]
    if count < _SMALL_TEST_SET:
        notes.append(
            f"{count} test images of {run.recipe.data.source} are too few to rank policies: the "
            "figures show that every part works, and no order is claimed."
        )
    if len(found["protocol"]["seeds"]) < 5:
        notes.append("Fewer than five generation seeds: the intervals are a rough guide.")
    notes.append(
        "lite2 FD is a Frechet distance on EfficientNet-Lite2 features. It is not FID and cannot "
        "be compared with published FIDs; policies were trained on other features (Lite0)."
    )
    return tuple(notes)


def _subtitle(run: Run) -> str:
    nat, tokens = run.stages.generator.results(), run.tokenizer()
    height, width = tokens.grid_size
    return (
        f"{run.recipe.data.image_size} px images as {height}x{width} tokens of "
        f"{tokens.codebook_size} codes; a transformer of {nat['parameters'] / 1e6:.2f} M parameters"
    )


def _versions() -> dict[str, str]:
    names = ("adanat", "vqtok", "natgen", "policyrl", "advreward", "torch", "numpy")
    found = {name: version(name) for name in names}
    return found | {"python": platform.python_version(), "platform": platform.platform()}


class _Pictures:
    """Samples, decodings and chosen numbers of the report, drawn anew (a few hundred images)."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._classes = run.recipe.data.num_classes
        self._generator = Generator(
            run.nat(),
            run.tokenizer(),
            lambda indices: balanced_labels(indices, self._classes),
            batch_size=_CURVE_SAMPLES,
        )
        self._seed = derive_seed(run.recipe.seed, "report")
        found = contestants(run)
        self._policies: dict[str, DecodingPolicy] = {
            name: found[name] for name in (STATIC, STATIC_TUNED, ADAPTIVE, ADAPTIVE_STATIC)
        }

    def samples(self) -> tuple[SampleSet, ...]:
        """The same labels and noise under each policy."""
        sets = []
        for name, policy in self._policies.items():
            images, _ = self._draw(policy, _SAMPLES_PER_CLASS * self._classes)
            by_class = images.unflatten(0, (_SAMPLES_PER_CLASS, self._classes)).transpose(0, 1)
            sets.append(SampleSet(name=name, images=by_class.numpy()))
        return tuple(sets)

    def traces(self) -> tuple[DecodingTrace, ...]:
        """Step by step: three classes, under the tuned schedule and the learned policy."""
        chosen = sorted({0, self._classes // 3, 2 * self._classes // 3})
        drawn = {
            name: self._draw(self._policies[name], self._classes, record=True)[1]
            for name in (STATIC_TUNED, ADAPTIVE)
        }
        names = self._run.stages.data.results()["class_names"]
        return tuple(
            self._trace(f"{names[index]}, {policy}", generation, index)
            for index in chosen
            for policy, generation in drawn.items()
        )

    def curves(self) -> tuple[ParameterCurves, ...]:
        """The four numbers: schedules as lines, the learned policies with their spread."""
        curves = []
        for name in (STATIC, STATIC_TUNED):
            schedule = self._policies[name]
            if isinstance(schedule, StaticSchedule):
                curves.append(ParameterCurves(name=name, values=schedule.values.numpy()))
        _, generation = self._draw(self._policies[ADAPTIVE], _CURVE_SAMPLES)
        values = generation.parameters.cpu().numpy()
        curves.append(ParameterCurves(name=ADAPTIVE, values=values))
        return tuple(curves)

    def _trace(self, name: str, generation: Generation, index: int) -> DecodingTrace:
        grid = self._generator.tokenizer.grid_size
        drawn = torch.stack([step.drawn[index] for step in generation.steps])
        tokens = torch.stack([step.tokens[index] for step in generation.steps])
        revealed = tokens != self._generator.nat.mask_token_id
        return DecodingTrace(
            name=name,
            revealed=revealed.unflatten(1, grid).cpu().numpy(),
            images=to_uint8(self._generator.decode(drawn)).cpu().numpy(),
            parameters=generation.parameters[index].cpu().numpy(),
        )

    def _draw(
        self, policy: DecodingPolicy, count: int, *, record: bool = False
    ) -> tuple[torch.Tensor, Generation]:
        """One batch of `count` images."""
        batches = self._generator.batches(policy, seed=self._seed, num_samples=count, record=record)
        batch = next(iter(batches))
        return batch.images, batch.generation
