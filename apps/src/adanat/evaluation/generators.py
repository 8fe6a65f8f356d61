"""A trained generator as a source of images: sample i is the same whoever draws it and when."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from natgen import NoiseSource, TextEncoder
from torch import Tensor

from adanat.errors import DataError
from adanat.evaluation.models import Models
from adanat.evaluation.sources import Item
from adanat.generation import Generator, balanced_labels
from adanat.seeding import derive_seed


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What every sample is asked to show.

    Attributes:
        description: The plan in a few words, printed with every figure.
        of: Sample indices (B,) to labels (B,) or text features (B, N, C).
        captions: The text of every sample, where there is text.
    """

    description: str
    of: Callable[[Tensor], Tensor]
    captions: Sequence[str] | None = None


def balanced(num_classes: int, num_samples: int) -> Conditions:
    """Sample i has class i mod the number of classes: 50 a class at 50,000 samples of 1,000.

    Where the samples cannot be shared out evenly, the first classes have one more.
    """
    each, left = divmod(num_samples, num_classes)
    share = f"{each} or {each + 1}" if left else f"{each}"
    return Conditions(
        description=f"balanced labels ({num_classes} classes, {share} samples each)",
        of=partial(balanced_labels, num_classes=num_classes),
    )


def random(num_classes: int, *, seed: int) -> Conditions:
    """Each sample's class is uniform, and a function of (seed, sample index) alone."""
    noise = NoiseSource(derive_seed(seed, "labels"))

    def labels(indices: Tensor) -> Tensor:
        uniforms = noise.uniform(indices, 0, 0, 1)[:, 0]
        return (uniforms * num_classes).long().clamp(max=num_classes - 1)

    return Conditions(description=f"random labels ({num_classes} classes)", of=labels)


def captioned(captions: Sequence[str], encoder: TextEncoder) -> Conditions:
    """Sample i shows caption i."""
    return Conditions(
        description=f"{len(captions)} captions, encoded by {encoder.name}",
        of=lambda indices: encoder([captions[i] for i in indices.tolist()])[0].to(indices.device),
        captions=captions,
    )


class GeneratedSource:
    """Samples 0 to `num_samples` - 1 of a generator.

    Args:
        models: The networks and how to decode.
        conditions: What each sample shows.
        num_samples: How many images there are.
        seed: Generation seed. Under the same one, `adanat evaluate RECIPE` draws the same images
            where the recipe's own seed is 0.
        batch_size: Images generated at once.
    """

    def __init__(
        self,
        models: Models,
        conditions: Conditions,
        *,
        num_samples: int,
        seed: int,
        batch_size: int,
    ) -> None:
        captions = conditions.captions
        if captions is not None and len(captions) < num_samples:
            raise DataError(f"{num_samples} samples asked for, but only {len(captions)} captions")
        self.models, self._conditions = models, conditions
        self._num_samples, self._seed = num_samples, seed
        self.generator = Generator(models.nat, models.tokenizer, conditions.of, batch_size)

    @property
    def label_plan(self) -> str:
        """What the samples were asked to show."""
        return self._conditions.description

    @property
    def description(self) -> str:
        return (
            f"{self._num_samples} samples of {self.models.name}, "
            f"{self.models.policy.num_steps} steps, {self.label_plan}, "
            f"seed {self._seed}"
        )

    @cached_property
    def key(self) -> str:
        """Hash of the weights and of all else that decides which images these are."""
        plan = (self._conditions.description, self._seed, self._num_samples)
        digest = hashlib.sha256(repr((plan, self.generator.batch_size)).encode())
        for text in self._conditions.captions or ():
            digest.update(text.encode() + b"\0")
        self.models.feed(digest.update)
        return digest.hexdigest()

    def __len__(self) -> int:
        return self._num_samples

    def items(self, start: int, stop: int) -> Iterator[Item]:
        size, end = self.generator.batch_size, min(stop, self._num_samples)
        spans = [(first, min(first + size, end)) for first in range(start, end, size)]
        seed = derive_seed(0, "test", self._seed)
        drawn = self.generator.pictures(self.models.policy, spans, seed=seed)
        captions = self._conditions.captions
        for span, pictures in zip(spans, drawn, strict=True):
            images = pictures.images.permute(0, 2, 3, 1).numpy()
            if captions is None:
                yield from map(Item, images, self._conditions.of(torch.arange(*span)).tolist())
            else:
                for image, caption in zip(images, captions[slice(*span)], strict=True):
                    yield Item(image, caption=caption)
