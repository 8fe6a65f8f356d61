"""The study of adaptive length: what does a price for decoding steps save, and at what cost?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from natgen import COMPONENTS, DecodingPolicy

from adanat import plots, run_command
from adanat.contestants import ADAPTIVE, of_seed
from adanat.evaluation.tradeoff import TradeoffPoint, tradeoff_figure
from adanat.judge import LITE2
from adanat.report import Value
from adanat.report_data import ValueArray
from adanat.run import Run
from adanat.runs import Stage
from adanat.schedule_points import tuned_point
from adanat.scoreboard import DISTANCE
from adanat.stages import train_policies
from adanat.studies import differences, pages
from adanat.studies.scoring import Rows, gain, names_of_seeds, prepare, score, value

NAME = "adaptive-length"
StepArray = npt.NDArray[np.int64]
_LEARNED = "learned, by price"
_FIXED = "tuned schedule, by steps"


@dataclass(frozen=True, kw_only=True)
class LengthPoint:
    """A point of the curve: a mean over policy seeds, or over generation seeds if it is one.

    Attributes:
        steps: decoding steps an image.
        spread: standard deviation of the steps between the images.
        passes: network passes an image, both branches of guidance counted.
        distance: lite2 FD.
        precision: on the same features.
        recall: on the same features.
        gain: paired, in lite2 FD over the tuned schedule with all its steps.
    """

    steps: Value
    spread: Value
    passes: Value
    distance: Value
    precision: Value
    recall: Value
    gain: Value

    @classmethod
    def of(cls, rows: Rows, entries: Sequence[str], baseline: str) -> "LengthPoint":
        """Scores of the entries, which are one contestant's."""
        return cls(
            steps=value(rows, entries, "steps_used"),
            spread=value(rows, entries, "steps_spread"),
            passes=value(rows, entries, "network_passes"),
            distance=value(rows, entries, DISTANCE),
            precision=value(rows, entries, f"{LITE2}_precision"),
            recall=value(rows, entries, f"{LITE2}_recall"),
            gain=gain(rows, [baseline], entries, DISTANCE),
        )

    def cells(self) -> list[str]:
        """As a line of the page's table."""
        digits = {
            "steps": 2, "spread": 2, "passes": 2,
            "distance": 2, "precision": 3, "recall": 3, "gain": 2,
        }  # fmt: skip
        return [pages.cell(getattr(self, name), count) for name, count in digits.items()]


def study_length(run: Run, *, prices: Sequence[float]) -> Path:
    """Train policies at several prices of a decoding step, and draw quality over network passes.

    Beside them stands the tuned schedule with all its steps and with fewer. All are decoded by
    continuous batching with the first step's outputs kept, so that their passes compare.

    The folder `studies/adaptive-length` of the run gets the page `adaptive-length.md`,
    `figures.json` and a picture. Everything shares the run's models; an interrupted study goes on
    where it stopped, and further prices may be asked for later.

    Args:
        run: its recipe but for the price, with `reveal_below` above 0.
        prices: of a step, in units of the reward.

    Returns:
        The page.

    Raises:
        ValueError: no prices, one below 0, or a recipe whose policies cannot end early.
    """
    _check(run, prices)
    folder = run.folder.study(NAME)
    prepare(run)
    fixed = replace(run, output_dir=folder / "schedules", base=run)
    like = score(fixed, partial(_shortened, run), [run.stages.schedule])
    stages: list[Stage] = [like]
    baseline = _shortened_name(run.recipe.num_decoding_steps)
    known = like.results()["scores"]
    learned: dict[float, LengthPoint] = {}
    chosen: dict[float, differences.Chosen] = {}
    for price in sorted(set(prices)):
        variant = _priced(run, price)
        train_policies(variant)
        policies = list(variant.stages.policies.values())
        scored = score(variant, partial(_adaptive, variant), policies, like)
        chose, path = differences.choose(variant, run.recipe.policy.seeds[0])
        stages += [*policies, scored, chose]
        rows = [*known, *scored.results()["scores"]]
        learned[price] = LengthPoint.of(rows, names_of_seeds(ADAPTIVE, variant), baseline)
        chosen[price] = differences.read(path)
    page = folder / f"{NAME}.md"
    if not run.engine.is_main:
        return page
    schedules = {n: LengthPoint.of(known, [_shortened_name(n)], baseline) for n in _counts(run)}
    _draw(learned, schedules, folder / "curve.png")
    options = ["--prices", *(f"{price:g}" for price in learned)]
    protocol = pages.protocol(run, run_command.command("study-length", run, *options), stages)
    return _write(folder, run, learned, schedules, chosen, protocol)


def steps_taken(parameters: ValueArray, num_tokens: int) -> StepArray:
    """After how many steps nothing is masked any more.

    Args:
        parameters: (N, T, 4) that a policy chose, in the order of natgen.COMPONENTS.
        num_tokens: L of an image.

    Returns:
        (N,) int64 in [1, T].
    """
    ratios = parameters[:, :, COMPONENTS.index("mask_ratio")]
    complete = np.floor(ratios * num_tokens) == 0
    complete[:, -1] = True  # the last step reveals everything
    steps: StepArray = complete.argmax(axis=1) + 1
    return steps


def _check(run: Run, prices: Sequence[float]) -> None:
    recipe = run.recipe
    if not prices or min(prices) < 0:
        raise ValueError(f"prices must be one or more numbers of at least 0, got {list(prices)}")
    if not recipe.reveal_below or "mask_ratio" not in recipe.policy.learned:
        raise ValueError(
            f"policies cannot end early with reveal_below {recipe.reveal_below} and the learned "
            f"numbers {recipe.policy.learned}: give --reveal-below, and learn the mask_ratio"
        )


def _priced(run: Run, price: float) -> Run:
    recipe = replace(run.recipe, policy=replace(run.recipe.policy, step_price=price))
    name = f"below-{recipe.reveal_below:g}-price-{price:g}"
    return replace(run, recipe=recipe, output_dir=run.folder.study(NAME) / name, base=run)


def _adaptive(run: Run) -> dict[str, DecodingPolicy]:
    return {of_seed(ADAPTIVE, run, seed): run.policy(seed) for seed in run.recipe.policy.seeds}


def _counts(run: Run) -> range:
    most = run.recipe.num_decoding_steps
    return range((most + 1) // 2, most + 1)


def _shortened_name(num_steps: int) -> str:
    return f"tuned_{num_steps}"


def _shortened(run: Run) -> dict[str, DecodingPolicy]:
    """The tuned schedule's three scales at its own and at smaller numbers of steps."""
    tuned = tuned_point(run)
    return {_shortened_name(n): replace(tuned, num_steps=n).schedule() for n in _counts(run)}


def _draw(
    learned: Mapping[float, LengthPoint], schedules: Mapping[int, LengthPoint], path: Path
) -> None:
    named = [
        *((_FIXED, f"{n} steps", point) for n, point in schedules.items()),
        *((_LEARNED, f"price {price:g}", point) for price, point in learned.items()),
    ]
    points = [
        TradeoffPoint(
            curve=curve,
            cost=point.passes.mean,
            value=point.distance.mean,
            half_width=point.distance.half_width,
            note=note,
        )
        for curve, note, point in named
    ]
    plots.save_png(
        tradeoff_figure(points, cost="network passes an image", metric="lite2 FD, lower is better"),
        path,
    )


def _write(
    folder: Path,
    run: Run,
    learned: Mapping[float, LengthPoint],
    schedules: Mapping[int, LengthPoint],
    chosen: Mapping[float, differences.Chosen],
    protocol: str,
) -> Path:
    recipe = run.recipe
    num_tokens = run.nat().seq_len
    steps = {p: steps_taken(choices.parameters, num_tokens) for p, choices in chosen.items()}
    shares = {p: _shares(taken, recipe.num_decoding_steps) for p, taken in steps.items()}
    by_class = {p: _by_class(run, steps[p], choices) for p, choices in chosen.items()}
    header = ["", "steps", "std between images", "passes / image"]
    header += ["lite2 FD", "precision", "recall", "gain in lite2 FD"]
    lines = [[f"tuned schedule, {n} steps", *p.cells()] for n, p in schedules.items()]
    lines += [[f"learned, price {price:g}", *p.cells()] for price, p in learned.items()]
    counts = [f"{n} steps" for n in range(1, recipe.num_decoding_steps + 1)]
    return pages.write(
        folder,
        NAME,
        {"learned": learned, "schedules": schedules, "shares": shares, "by_class": by_class},
        [
            f"# Adaptive length on {recipe.data.source}",
            f"Policies of at most {recipe.num_decoding_steps} decoding steps, trained with a price "
            "for each step that an image took. A policy ends an image by a mask ratio below "
            f"{recipe.reveal_below:g}, which reveals everything; the image's place in the batch "
            "then goes to the next one. The gain is paired, over the tuned schedule with all its "
            "steps, and positive where the policy is better.",
            pages.table(header, lines),
            "![Distance over network passes](curve.png)",
            "## Who takes how many steps",
            f"Share of the test images of policy seed {recipe.policy.seeds[0]}, and the classes "
            "with the fewest and the most steps on average.",
            pages.table(
                ["price", *counts, "fewest", "most"],
                [
                    [f"{p:g}", *(f"{share:.2f}" for share in shares[p]), *_extremes(by_class[p])]
                    for p in learned
                ],
            ),
            "## How it was measured",
            protocol,
        ],
    )


def _shares(steps: StepArray, most: int) -> list[float]:
    counts = np.bincount(steps, minlength=most + 1)[1:]
    return [float(count) for count in counts / len(steps)]


def _by_class(run: Run, steps: StepArray, chosen: differences.Chosen) -> dict[str, float]:
    """Mean steps of each class; nothing where captions take their place."""
    if run.recipe.text.encoder is not None:
        return {}
    names = run.stages.data.results()["class_names"]
    return {
        names[int(group)]: float(steps[chosen.groups == group].mean())
        for group in np.unique(chosen.groups)
    }


def _extremes(by_class: Mapping[str, float]) -> list[str]:
    if not by_class:
        return ["-", "-"]
    ends = (
        min(by_class, key=by_class.__getitem__),
        max(by_class, key=by_class.__getitem__),
    )
    return [f"{name} ({by_class[name]:.2f})" for name in ends]
