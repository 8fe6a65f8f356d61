"""What the report shows besides numbers: samples, decodings and chosen values, drawn anew."""

from functools import partial

import torch
from natgen import DecodingPolicy, Generation, StaticSchedule

from adanat.contestants import ADAPTIVE, ADAPTIVE_STATIC, STATIC, STATIC_TUNED, contestants
from adanat.generation import Generator, balanced_labels
from adanat.metrics import to_uint8
from adanat.report import DecodingTrace, ParameterCurves, SampleSet
from adanat.run import Run
from adanat.seeding import derive_seed

_SAMPLES_PER_CLASS = 6
_CURVE_SAMPLES = 500


class ReportPictures:
    """Samples, decodings and chosen numbers of the report, drawn anew (a few hundred images)."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._classes = run.recipe.data.num_classes
        self._generator = Generator(
            run.nat(),
            run.tokenizer(),
            partial(balanced_labels, num_classes=self._classes),
            batch_size=_CURVE_SAMPLES,
        )
        self._seed = derive_seed(run.recipe.seed, "report")
        found = contestants(run)
        self._policies: dict[str, DecodingPolicy] = {
            name: found[name] for name in (STATIC, STATIC_TUNED, ADAPTIVE, ADAPTIVE_STATIC)
        }

    def samples(self) -> tuple[SampleSet, ...]:
        """The same labels and noise under each policy."""
        sets = [self._real()]
        for name, policy in self._policies.items():
            images, _ = self._draw(policy, _SAMPLES_PER_CLASS * self._classes)
            by_class = images.unflatten(0, (_SAMPLES_PER_CLASS, self._classes)).transpose(0, 1)
            sets.append(SampleSet(name=name, images=by_class.numpy()))
        return tuple(sets)

    def _real(self) -> SampleSet:
        """The first test images of each class."""
        data = self._run.images("test")
        chosen = [
            data.images[data.labels == label][:_SAMPLES_PER_CLASS] for label in range(self._classes)
        ]
        return SampleSet(name="real", images=torch.stack(chosen).numpy())

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
