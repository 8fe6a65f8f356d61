"""What a benchmark notes beside its times."""

from pytest_benchmark.fixture import BenchmarkFixture


def record_rate(benchmark: BenchmarkFixture, unit: str, count: int) -> None:
    """Adds the batch and the rate of the median call to a benchmark's record."""
    benchmark.extra_info["batch_size"] = count
    if benchmark.stats is not None:
        median = benchmark.stats.stats.median
        benchmark.extra_info[f"{unit}_per_second"] = count / median
