"""Where everything of one run lies: the only place that knows the folder names."""

from dataclasses import dataclass
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
    policy/seed-K/   checkpoints/, model/, metrics.jsonl
    evaluation/      classifier/, scores.json
    features/        of the real images, by content
    text/            features of the captions, by content
    samples/         pictures
    metrics.json, report.html, results.md, figures/
    ```
    """

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def tokenizer_model(self) -> Path:
        return self.tokenizer / "model"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens"

    def token_store(self, split: str) -> Path:
        return self.tokens / split

    @property
    def generator(self) -> Path:
        return self.root / "generator"

    @property
    def generator_model(self) -> Path:
        return self.generator / "model"

    @property
    def schedule(self) -> Path:
        return self.root / "schedule"

    @property
    def more_steps(self) -> Path:
        return self.root / "schedule-more-steps"

    def policy(self, seed: int) -> Path:
        return self.root / "policy" / f"seed-{seed}"

    def policy_model(self, seed: int) -> Path:
        return self.policy(seed) / "model"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def text(self) -> Path:
        return self.root / "text"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

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
