"""What the report shows besides numbers: samples, decodings and chosen values, drawn anew."""

import torch
from natgen import DecodingPolicy, Generation, StaticSchedule

from adanat.contestants import (
    ADAPTIVE,
    ADAPTIVE_STATIC,
    STATIC,
    STATIC_SEARCHED,
    STATIC_TUNED,
    contestants,
    same_schedule,
)
from adanat.generation import Generator
from adanat.metrics import to_uint8
from adanat.report import DecodingTrace, ParameterCurves, SampleSet
from adanat.run import Run
from adanat.seeding import derive_seed

_SAMPLES_PER_ROW = 6
_ROWS = 10
_CURVE_SAMPLES = 500


class ReportPictures:
    """Samples, decodings and chosen numbers of the report, drawn anew (a few hundred images)."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._by_class = run.recipe.text.encoder is None
        captions = run.images("test").captions
        self._rows = min(_ROWS, run.recipe.data.num_classes if self._by_class else len(captions))
        # A run of few samples gets a page of few pictures.
        available = run.recipe.evaluation.num_samples
        self._per_row = min(_SAMPLES_PER_ROW, max(1, available // self._rows // 2))
        self._num_curves = min(_CURVE_SAMPLES, available)
        conditions = run.conditions("test")
        self._generator = Generator(
            run.nat(),
            run.tokenizer(),
            lambda indices: conditions.of_samples(indices % self._rows).generator,
            batch_size=max(self._rows, run.recipe.evaluation.batch_size),
        )
        self._seed = derive_seed(run.recipe.seed, "report")
        found = contestants(run)
        self._policies: dict[str, DecodingPolicy] = {
            name: found[name]
            for name in (STATIC, STATIC_TUNED, STATIC_SEARCHED, ADAPTIVE, ADAPTIVE_STATIC)
            if name in found
        }

    def row_names(self) -> tuple[str, ...]:
        """The class or the caption of each row of `samples`."""
        if self._by_class:
            return tuple(self._run.stages.data.results()["class_names"][: self._rows])
        return tuple(self._run.images("test").captions[: self._rows])

    def samples(self) -> tuple[SampleSet, ...]:
        """The same labels and noise under each policy."""
        sets, drawn = [self._real()], dict[str, torch.Tensor]()
        for name, policy in self._policies.items():
            twin = next((n for n, p in self._policies.items() if same_schedule(p, policy)), name)
            if twin not in drawn:
                drawn[twin] = self._draw(policy)
            sets.append(SampleSet(name=name, images=drawn[twin].numpy()))
        return tuple(sets)

    def _real(self) -> SampleSet:
        """The first test images of each class; of a caption its one image, repeated."""
        data = self._run.images("test")
        chosen = [
            data.images[(data.labels == row).nonzero()[: self._per_row, 0]]
            if self._by_class
            else data.images[row].expand(self._per_row, -1, -1, -1)
            for row in range(self._rows)
        ]
        return SampleSet(name="real", images=torch.stack(chosen).numpy())

    def traces(self) -> tuple[DecodingTrace, ...]:
        """Step by step: three rows, under the tuned schedule and the learned policy."""
        chosen = sorted({0, self._rows // 3, 2 * self._rows // 3})
        drawn = {
            name: self._generator.record(
                self._policies[name], seed=self._seed, num_samples=self._rows
            )
            for name in (STATIC_TUNED, ADAPTIVE)
        }
        names = self.row_names()
        return tuple(
            self._trace(f"{names[index]}, {policy}", generation, index)
            for index in chosen
            for policy, generation in drawn.items()
        )

    def curves(self) -> tuple[ParameterCurves, ...]:
        """The four numbers: schedules as lines, the learned policies with their spread."""
        curves = []
        for name in (STATIC, STATIC_TUNED, STATIC_SEARCHED):
            schedule = self._policies.get(name)
            if isinstance(schedule, StaticSchedule):
                curves.append(ParameterCurves(name=name, values=schedule.values.numpy()))
        parameters = self._generator.parameters(
            self._policies[ADAPTIVE], seed=self._seed, num_samples=self._num_curves
        )
        values = parameters.cpu().numpy()
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

    def _draw(self, policy: DecodingPolicy) -> torch.Tensor:
        """(rows, per row, 3, H, W) uint8."""
        count = self._per_row * self._rows
        drawn = self._generator.batches(policy, seed=self._seed, num_samples=count)
        images = torch.cat([batch.images for batch in drawn])
        by_row: torch.Tensor = images.unflatten(0, (self._per_row, self._rows))
        return by_row.transpose(0, 1)
