"""One figure of a judged source over its generation seeds, with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass

from adanat.evaluation.figures import METRICS, Metric, Sample
from adanat.metrics import t_interval


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number with all that is needed to judge it.

    Attributes:
        key: Name in tables, such as `lite2_fd`.
        value: Mean over the seeds.
        by_seed: The value under each generation seed (one entry, 0, for given images).
        low: Lower end of the 95 % interval; None without one.
        high: Upper end.
        interval: What the interval is over.
        protocol: How it was computed.
        better: Which direction is better.
        extractor: The features' identity.
        num_samples: Generated images a seed.
        num_reference: Real images; None without a real side, 0 where a file of statistics does
            not say.
        scoring_seed: Seed of what is drawn while scoring.
    """

    key: str
    value: float
    by_seed: Mapping[str, float]
    low: float | None
    high: float | None
    interval: str | None
    protocol: str
    better: str
    extractor: Mapping[str, str]
    num_samples: int
    num_reference: int | None
    scoring_seed: int

    @property
    def against(self) -> str:
        """How many real images, to follow the number of samples."""
        if self.num_reference is None:
            return ""
        if self.num_reference == 0:
            return " against given statistics"
        return f" against {self.num_reference} real"


def score(
    name: str,
    samples: Mapping[int, Sample],
    *,
    key: str,
    extractor: Mapping[str, str],
) -> Figure:
    """One figure over all generation seeds.

    With several seeds the interval is Student's over the seeds; with one it comes from resampling
    images, for the figures that this does not bias.

    Args:
        name: A key of `METRICS`.
        samples: By generation seed, at least one; all of equal size.
        key: The figure's name.
        extractor: The features' identity, for the record.
    """
    metric, first = METRICS[name], next(iter(samples.values()))
    values = {seed: metric.value(sample) for seed, sample in samples.items()}
    interval, over = None, None
    if len(values) > 1:
        interval = t_interval(list(values.values()))
        over = f"{len(values)} generation seeds, Student's t"
    elif metric.interval is not None:
        interval = metric.interval(first, next(iter(values.values())))
        over = "resampled images, bootstrap"
    return Figure(
        key=key,
        value=sum(values.values()) / len(values),
        by_seed={str(seed): value for seed, value in values.items()},
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        interval=over and f"95 % over {over}",
        protocol=metric.protocol,
        better=metric.better,
        extractor=extractor,
        num_samples=first.store.num_images,
        num_reference=_num_reference(metric, first),
        scoring_seed=first.seed,
    )


def _num_reference(metric: Metric, sample: Sample) -> int | None:
    """Real images behind a figure; a file's statistics may be of more than its images."""
    if metric.compares is None:
        return None
    by_image = metric.compares == "features"
    return sample.real.num_images if by_image else sample.real.statistics.count
