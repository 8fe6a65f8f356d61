"""Where everything of one run lies: the only place that knows the folder names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The output folder of a run and its parts.

    ```
    data/            webdataset shards per split
    tokenizer/       checkpoints/, model/, metrics.jsonl
    tokens/SPLIT/    memory-mapped codes
    generator/       checkpoints/, model/, metrics.jsonl
    schedule/        measured.json: the grid; its winner in done.json
    schedule-more-steps/  the same at more decoding steps
    static-search/   measured.json: the searched schedules
    policy/seed-K/   checkpoints/, model/ (the best on validation images), last/, metrics.jsonl
    evaluation/      classifier/, scores.json
    features/        of the real images, by content
    text/            features of the captions, by content
    samples/         pictures
    studies/         comparisons of several trainings
    caption-check.json  scores of samples for their own captions and for others
    metrics.json, report.html, results.md, figures/
    ```

    Args:
        root: the output folder.
        shared: parts, as they are named above, that lie in another run's folder, and where.
    """

    root: Path
    shared: Mapping[str, Path] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self._part("data")

    @property
    def tokenizer(self) -> Path:
        return self._part("tokenizer")

    @property
    def tokenizer_model(self) -> Path:
        return self.tokenizer / "model"

    @property
    def tokens(self) -> Path:
        return self._part("tokens")

    def token_store(self, split: str) -> Path:
        return self.tokens / split

    @property
    def generator(self) -> Path:
        return self._part("generator")

    @property
    def generator_model(self) -> Path:
        return self.generator / "model"

    @property
    def schedule(self) -> Path:
        return self._part("schedule")

    @property
    def more_steps(self) -> Path:
        return self._part("schedule-more-steps")

    @property
    def static_search(self) -> Path:
        return self._part("static-search")

    def policy(self, seed: int) -> Path:
        return self._part(f"policy/seed-{seed}")

    def policy_model(self, seed: int) -> Path:
        return self.policy(seed) / "model"

    def last_policy_model(self, seed: int) -> Path:
        return self.policy(seed) / "last"

    @property
    def evaluation(self) -> Path:
        return self._part("evaluation")

    @property
    def features(self) -> Path:
        return self._part("features")

    @property
    def text(self) -> Path:
        return self._part("text")

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    def study(self, name: str) -> Path:
        return self.root / "studies" / name

    @property
    def caption_check(self) -> Path:
        return self.root / "caption-check.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def results_table(self) -> Path:
        return self.root / "results.md"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    def of_stage(self, name: str) -> Path:
        """The folder of a stage by its name."""
        others = {
            "train-tokenizer": "tokenizer",
            "tokenize": "tokens",
            "train-generator": "generator",
            "search-schedule": "schedule",
            "search-more-steps": "schedule-more-steps",
            "search-static": "static-search",
            "evaluate": "evaluation",
        }
        if name.startswith("train-policy-"):
            return self.policy(int(name.removeprefix("train-policy-")))
        return self._part(others.get(name, name))

    def _part(self, name: str) -> Path:
        return self.shared.get(name, self.root / name)
