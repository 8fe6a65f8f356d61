"""Stage `report`: numbers, tables and pictures from what the other stages left behind."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from adanat import plots
from adanat.checkpoints import atomic_write_json, atomic_write_text
from adanat.contestants import ADAPTIVE, STATIC_SEARCHED, STATIC_TUNED, describe
from adanat.metrics_log import read_metrics
from adanat.report import (
    EvaluationProtocol,
    Highlight,
    ReportData,
    Row,
    Series,
    StepCurve,
    Table,
    TrainingFigure,
)
from adanat.report import write_report as render_page
from adanat.report_pictures import ReportPictures
from adanat.run import Run
from adanat.run_command import flow_command
from adanat.runs import config_to_json
from adanat.scoreboard import DISTANCE
from adanat.summary import (
    COLUMNS,
    is_too_small,
    markdown_table,
    mean_scores,
    notes,
    with_interval,
)


def write_report(run: Run) -> None:
    """Write `metrics.json`, `report.html`, `results.md` and `figures/` of an evaluated run."""
    run.require(run.stages.evaluation)
    found = run.stages.evaluation.results()
    seconds = {name: stage.seconds() for name, stage in run.stages.in_order().items()}
    means = mean_scores(found["scores"])
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
    pictures = ReportPictures(run)
    data = ReportData(
        title=f"AdaNAT on {run.recipe.data.source}",
        subtitle=_subtitle(run),
        tables=(_table(run, found),),
        highlights=_highlights(run, found),
        class_names=pictures.row_names(),
        samples=pictures.samples(),
        traces=pictures.traces(),
        parameter_curves=pictures.curves(),
        step_curves=_step_curves(run, found, means),
        step_metric="lite2 FD",
        training=_training_figures(run),
        notes=_notes(run),
        seconds=seconds,
        command=flow_command(run),
        config=config_to_json(run.recipe),
        versions=_versions(),
    )
    render_page(data, run.folder.report)
    atomic_write_text(run.folder.results_table, markdown_table(run))
    _write_figures(run, data)


def _write_figures(run: Run, data: ReportData) -> None:
    """The page's figures as PNG files, for documents."""
    folder = run.folder.figures
    folder.mkdir(parents=True, exist_ok=True)
    names = [*(curve.name for curve in data.parameter_curves), *(c.name for c in data.step_curves)]
    colours = plots.policy_colours(names)
    plots.save_png(
        plots.parameter_figure(data.parameter_curves, colours), folder / "parameters.png"
    )
    plots.save_png(
        plots.step_figure(data.step_curves, data.step_metric, colours), folder / "steps.png"
    )
    plots.save_png(plots.samples_figure(data.samples, data.class_names), folder / "samples.png")
    plots.save_png(plots.decoding_figure(data.traces), folder / "decoding.png")


def _table(run: Run, found: Mapping[str, Any]) -> Table:
    protocol = found["protocol"]
    found_steps = {row["policy"]: row["num_steps"] for row in found["scores"]}
    present = {key for row in found["scores"] for key in row}
    rows = [
        Row(
            name=name,
            values={
                column.key: with_interval(
                    [r[column.key] for r in found["scores"] if r["policy"] == name]
                )
                for column in COLUMNS
                if column.key in present
            },
            description=describe(name),
        )
        for name in found_steps
        if found_steps[name] == run.recipe.num_decoding_steps
    ]
    for name, description in (
        (
            "reconstructions",
            "validation images through the tokenizer: the floor for a good tokenizer",
        ),
        ("real_to_real", "validation images themselves"),
    ):
        bounds = found["bounds"][name]
        values = {c.key: bounds[c.key] for c in COLUMNS if c.key in bounds}
        text = f"{description}, {bounds['num_images']} of them"
        rows.append(Row(name=name, values=values, kind="bound", description=text))
    return Table(
        title=f"{run.recipe.num_decoding_steps} decoding steps",
        columns=tuple(column for column in COLUMNS if column.key in present),
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


def _highlights(run: Run, found: Mapping[str, Any]) -> tuple[Highlight, ...]:
    """For each policy seed its gain, where policies can be ranked at all."""
    if is_too_small(run):
        return ()
    shown = []
    for seed, comparison in found["comparisons"].items():
        gain, steps = comparison[f"{DISTANCE}_gain"], comparison["equivalent_steps"]
        if gain is None:
            continue
        equivalent = "more than measured" if steps is None else f"{steps:.1f}"
        shown.append(
            Highlight(
                label=f"policy seed {seed}: gain over the tuned schedule",
                value=f"{gain['mean']:.1f}",
                remark=(
                    f"lite2 FD, 95 % interval {gain['low']:.1f} to {gain['high']:.1f}, paired; "
                    f"{100 * comparison['relative_reduction']:.1f} % less; worth {equivalent} "
                    "tuned steps"
                ),
            )
        )
    return tuple(shown)


def _step_curves(
    run: Run, found: Mapping[str, Any], means: Mapping[str, Mapping[str, float]]
) -> tuple[StepCurve, ...]:
    comparison = found["comparisons"][str(run.recipe.policy.seeds[0])]
    tuned = {int(k): float(v) for k, v in comparison["tuned_distance_by_steps"].items()}
    steps = run.recipe.num_decoding_steps
    at_once = [name for name in (STATIC_SEARCHED, ADAPTIVE) if name in means]
    return (
        StepCurve(name=STATIC_TUNED, distances=tuned),
        *(StepCurve(name=name, distances={steps: means[name][DISTANCE]}) for name in at_once),
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


def _notes(run: Run) -> tuple[str, ...]:
    return (
        *notes(run),
        "lite2 FD is a Frechet distance on EfficientNet-Lite2 features. It is not FID and cannot "
        "be compared with published FIDs. Policies are trained on other features (Lite0); their "
        "checkpoint is chosen on validation images by lite2 FD.",
    )


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
