"""Measures images on features that no policy was trained on (EfficientNet-Lite2 by default)."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from advreward import efficientnet_lite
from natgen import DecodingPolicy
from torch import Tensor

from adanat.batch_sharing import gather_rows, own_spans
from adanat.generation import Cost, Generator, Pictures
from adanat.metrics import (
    PooledFeatures,
    Reference,
    extract_features,
    extract_features_cached,
)
from adanat.metrics.features import FloatArray
from adanat.progress import ProgressReporter
from adanat.run import Run

LITE2 = "lite2"
"""Name of the evaluation features; opens the key of every score on them."""
_PICTURES = 16
"""Samples that are kept to look at."""


class Sampled(NamedTuple):
    """A policy's samples under one seed."""

    features: dict[str, FloatArray]
    """(N, D) of each extractor."""
    num_steps: Tensor
    """(N,) int64, the decoding steps that each took."""
    cost: Cost
    pictures: Tensor
    """(n, 3, H, W) uint8, the first samples of this process, to look at."""


class Judge:
    """Draws samples under any policy and embeds them batch by batch; few images are kept.

    The processes of the run share the work, and all get the results: call its methods on all.

    Args:
        run: whose models and data are used.
        extractors: further features beside `lite2`, by name.
        split: whose conditions the samples have.
    """

    def __init__(
        self,
        run: Run,
        extractors: Mapping[str, PooledFeatures] | None = None,
        *,
        split: str = "validation",
    ) -> None:
        self._run = run
        self.conditions = run.conditions(split)
        backbone = efficientnet_lite("lite2", input_size=run.recipe.evaluation.feature_size)
        self._extractors: dict[str, PooledFeatures] = {
            LITE2: backbone.to(run.device).pooled,
            **(extractors or {}),
        }

    @cached_property
    def generator(self) -> Generator:
        """The run's NAT and tokenizer."""
        return Generator(
            self._run.nat(),
            self._run.tokenizer(),
            lambda indices: self.conditions.of_samples(indices).generator,
            batch_size=self._run.recipe.evaluation.batch_size,
        )

    def embed(
        self, num_images: int, images: Callable[[slice], Tensor], *, description: str
    ) -> dict[str, FloatArray]:
        """Features (N, D) of each extractor.

        Args:
            num_images: N.
            images: rows of the images to uint8 (B, 3, H, W).
            description: of the progress bar.
        """
        engine, batch_size = self._run.engine, self._run.recipe.evaluation.batch_size
        spans = own_spans(engine, num_images, batch_size)
        parts: dict[str, list[FloatArray]] = {name: [] for name in self._extractors}
        own_images = sum(end - start for start, end in spans)
        with ProgressReporter(description, own_images, shown=engine.is_main) as progress:
            for start, end in spans:
                batch = images(slice(start, end))
                for name, pooled in self._extractors.items():
                    parts[name].append(extract_features(batch, pooled, device=self._run.device))
                progress.advance(end - start)
        return {
            name: gather_rows(
                engine, torch.from_numpy(np.concatenate(arrays)), num_images, batch_size
            ).numpy()
            for name, arrays in parts.items()
        }

    def references(self, split: str) -> dict[str, Reference]:
        """Features of all real images of a split, for each extractor."""
        recipe, images = self._run.recipe.evaluation, self._run.reference_images(split).images
        found = {}
        for name, pooled in self._extractors.items():
            with self._run.engine.main_first():  # it leaves the features on the disk
                features = extract_features_cached(
                    images,
                    pooled,
                    extractor_name=(
                        f"{name} at {recipe.feature_size} px, {self._version(name, images[:1])}"
                    ),
                    cache_folder=self._run.folder.features,
                    batch_size=recipe.batch_size,
                    device=self._run.device,
                )
            found[name] = Reference(features=features)
        return found

    def _version(self, name: str, image: Tensor) -> str:
        """What tells two networks of the same name apart: what a trained one makes of an image."""
        if name == LITE2:
            return "registry weights"
        seen = extract_features(image, self._extractors[name], device=self._run.device)
        return hashlib.sha256(seen.tobytes()).hexdigest()

    def sample(
        self, policy: DecodingPolicy, *, seed: int, num_samples: int, description: str
    ) -> Sampled:
        """Draw samples 0 to `num_samples` - 1 under a noise seed.

        Where the recipe lets images end early, they do, whatever the policy: so costs compare.
        """
        generator, engine = self.generator, self._run.engine
        generator.cost = Cost()
        batches = self._pictures(policy, seed, num_samples)
        num_steps: list[Tensor] = []
        first: list[Tensor] = []

        def images(_: slice) -> Tensor:
            batch = next(batches)
            num_steps.append(batch.num_steps)
            if not first:
                first.append(batch.images[:_PICTURES].clone())
            return batch.images

        features = self.embed(num_samples, images, description=description)
        steps = gather_rows(engine, torch.cat(num_steps), num_samples, generator.batch_size)
        return Sampled(features, steps, self._whole_cost(), torch.cat(first))

    def _pictures(self, policy: DecodingPolicy, seed: int, num_samples: int) -> Iterator[Pictures]:
        """This process's share, in the batches in which `embed` asks for them."""
        generator = self.generator
        spans = own_spans(self._run.engine, num_samples, generator.batch_size)
        draw = generator.stream if self._run.recipe.reveal_below else generator.pictures
        return draw(policy, spans, seed=seed)

    def _whole_cost(self) -> Cost:
        """Of all processes, which work at the same time."""
        own = self.generator.cost
        row = torch.tensor([[own.images, own.seconds, own.passes]], dtype=torch.float64)
        rows = self._run.engine.gather(row)
        images, _, passes = rows.sum(dim=0).tolist()
        return Cost(int(images), rows[:, 1].mean().item(), passes)
