"""Do captions matter? Guided samples, scored for their own captions and for those of others."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from matplotlib.figure import Figure
from natgen import StaticSchedule
from torch import Tensor

from adanat.caption_judge import CaptionJudge
from adanat.checkpoints import atomic_write_json
from adanat.data import EMOJI_SCENES
from adanat.data.emoji_scenes import near_misses
from adanat.errors import AdanatError
from adanat.generation import Generator, decode_grids
from adanat.judge import LITE2, Judge
from adanat.metrics import Interval, t_interval, to_uint8
from adanat.metrics.features import FloatArray
from adanat.plots import samples_figure, save_png
from adanat.report import SampleSet
from adanat.run import Run
from adanat.schedule_points import default_point
from adanat.seeding import derive_seed
from adanat.text.scorer import CaptionScores

_PICTURED = 8


@dataclass(frozen=True, kw_only=True)
class CaptionCheck:
    """How well one row of images shows its captions.

    Attributes:
        images: what they are: real ones, their reconstructions, or samples at a guidance scale.
        own: mean score for the own captions, in [-1, 1].
        others: mean score for all other images' captions.
        gain: own minus others, paired by image, with Student's interval over the images.
        win_share: share of comparisons that the own caption wins; 0.5 is chance.
        near_misses: the same against captions that are wrong in one thing, by what is wrong; empty
            where no such captions can be made (`adanat.data.emoji_scenes.near_misses` can).
    """

    images: str
    own: float
    others: float
    gain: Interval
    win_share: float
    near_misses: Mapping[str, float]

    @classmethod
    def of(
        cls, images: str, scores: CaptionScores, near_misses: Mapping[str, float]
    ) -> "CaptionCheck":
        """Summarise the scores of single images."""
        return cls(
            images=images,
            own=float(scores.own.mean()),
            others=float(scores.others.mean()),
            gain=t_interval((scores.own - scores.others).tolist()),
            win_share=scores.win_share,
            near_misses=near_misses,
        )


def check_captions(
    run: Run, *, guidance_scales: Sequence[float], num_samples: int, num_steps: int, seed: int = 0
) -> list[CaptionCheck]:
    """Score samples of test captions at several guidance scales, beside the real test images.

    All rows have the same captions, the first ones of the test split, and the samples share their
    noise. They are drawn by the published schedule (`default_point`), so that the run needs no more
    than its transformer. The rows are also written to `caption-check.json` in the run folder, the
    first images of each to `caption-check.png`.

    Args:
        run: conditioned on captions, with a trained transformer.
        guidance_scales: at the last step; guidance rises linearly to it. At least 0.
        num_samples: images a row, in [2, number of test images].
        num_steps: decoding steps.
        seed: of the noise.

    Returns:
        The real images, their reconstructions, and one row a guidance scale.

    Raises:
        AdanatError: the run is conditioned on classes, or the number of samples is out of range.
    """
    if run.recipe.text.encoder is None:
        raise AdanatError(f"{run.recipe.name} is conditioned on classes: there are no captions")
    schedules = {
        f"guidance {scale:g}": replace(default_point(num_steps), guidance_scale=scale).schedule()
        for scale in guidance_scales
    }
    judge = Judge(run, split="test")
    real = judge.references("test")[LITE2].features
    if not 2 <= num_samples <= len(real):
        raise AdanatError(
            f"num_samples must be in [2, {len(real)}], the number of test images, got {num_samples}"
        )
    images = {
        "real": real[:num_samples],
        "reconstructions": _reconstructions(run, judge, num_samples),
    }
    noise_seed = derive_seed(run.recipe.seed, "caption check", seed)
    for name, schedule in schedules.items():
        drawn = judge.sample(schedule, seed=noise_seed, num_samples=num_samples, description=name)
        images[name] = drawn.features[LITE2]
    captions = CaptionJudge(run)
    wrong = _near_misses(run, num_samples)
    checks = [
        CaptionCheck.of(
            name,
            captions.compare(rows),
            {what: captions.wins_over(rows, given) for what, given in wrong.items()},
        )
        for name, rows in images.items()
    ]
    if run.engine.is_main:
        atomic_write_json(run.folder.caption_check, [asdict(check) for check in checks])
        count = min(_PICTURED, num_samples)
        figure = _picture(run, judge.generator, schedules, noise_seed, count)
        save_png(figure, run.folder.caption_check.with_suffix(".png"))
    return checks


def text_table(checks: Sequence[CaptionCheck]) -> str:
    """The rows, at least one, aligned for a terminal."""
    wrong = "".join(f"{f'wrong {what}':>16}" for what in checks[0].near_misses)
    lines = [
        f"{'images':<18}{'own':>8}{'others':>8}  {'own - others, 95 %':<24}{'own wins':>8}{wrong}"
    ]
    for check in checks:
        gain = f"{check.gain.mean:.3f} [{check.gain.low:.3f}, {check.gain.high:.3f}]"
        shares = "".join(f"{share:>16.3f}" for share in check.near_misses.values())
        lines.append(
            f"{check.images:<18}{check.own:>8.3f}{check.others:>8.3f}  {gain:<24}"
            f"{check.win_share:>8.3f}{shares}"
        )
    return "\n".join(lines)


def _near_misses(run: Run, count: int) -> dict[str, dict[int, str]]:
    """Wrong captions of the first test images."""
    if run.recipe.data.source != EMOJI_SCENES:
        return {}
    found = near_misses(run.images("test").captions[:count])
    return {what: given for what, given in found.items() if given}


def _reconstructions(run: Run, judge: Judge, count: int) -> FloatArray:
    """Features of the first test images after the tokenizer: what no sample can be better than."""
    codes, _ = run.tokens("test").batch(range(count))

    def rebuild(rows: slice) -> Tensor:
        return _rebuild(judge.generator, codes[rows].to(run.device))

    return judge.embed(count, rebuild, description="reconstructions")[LITE2]


def _rebuild(generator: Generator, codes: Tensor) -> Tensor:
    return to_uint8(decode_grids(generator.tokenizer, codes))


def _picture(
    run: Run,
    generator: Generator,
    schedules: Mapping[str, StaticSchedule],
    noise_seed: int,
    count: int,
) -> Figure:
    """The first images of every kind, a row for each caption."""
    test = run.images("test")
    codes, _ = run.tokens("test").batch(range(count))
    images = {
        "real": test.images[:count],
        "reconstruction": _rebuild(generator, codes.to(run.device)).cpu(),
    }
    for name, schedule in schedules.items():
        batches = generator.batches(schedule, seed=noise_seed, num_samples=count)
        images[name] = torch.cat([batch.images for batch in batches])
    sets = [SampleSet(name=name, images=rows[:, None].numpy()) for name, rows in images.items()]
    return samples_figure(sets, test.captions[:count])
