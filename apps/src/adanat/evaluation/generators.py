"""A trained generator as a source of images: sample i is the same whoever draws it and when."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from natgen import NAT, DecodingPolicy, NoiseSource, StaticSchedule
from natgen.protocols import TextEncoder
from policyrl import GaussianPolicy
from torch import Tensor, nn
from vqtok import Tokenizer

from adanat.checkpoints import read_json
from adanat.contestants import (
    ADAPTIVE,
    ADAPTIVE_STATIC,
    STATIC,
    STATIC_SEARCHED,
    STATIC_TUNED,
    tuned_at,
)
from adanat.errors import DataError, StageError
from adanat.evaluation.sources import Item
from adanat.generation import Generator, balanced_labels
from adanat.run import load_model
from adanat.run_folder import RunFolder
from adanat.runs import DONE_FILE
from adanat.schedule_points import SchedulePoint, default_point
from adanat.seeding import derive_seed

Network = TypeVar("Network", bound=nn.Module)


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


def balanced(num_classes: int) -> Conditions:
    """Sample i has class i mod the number of classes: 50 a class at 50,000 samples of 1,000."""
    return Conditions(
        description=f"balanced labels ({num_classes} classes)",
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
        of=lambda indices: encoder([captions[index] for index in indices.tolist()])[0],
        captions=captions,
    )


def is_run_folder(path: Path) -> bool:
    """Whether a folder holds a run's trained tokenizer and transformer."""
    folder = RunFolder(path)
    return folder.tokenizer_model.is_dir() and folder.generator_model.is_dir()


@dataclass(frozen=True, kw_only=True)
class Models:
    """What makes images: the two networks and a decoding policy.

    Attributes:
        name: Where they come from and which policy, for tables.
        nat: The transformer, in evaluation mode and frozen.
        tokenizer: Its decoder makes the pixels.
        policy: Decides every step.
    """

    name: str
    nat: NAT
    tokenizer: Tokenizer
    policy: DecodingPolicy

    @classmethod
    def load(
        cls, root: Path, *, policy: str, num_steps: int | None, device: torch.device
    ) -> "Models":
        """Read a run folder.

        Args:
            root: The run folder.
            policy: Name of the decoding policy, see `load_policy`.
            num_steps: Decoding steps of the schedule `static`; None for the others.
            device: Where the networks run.

        Raises:
            StageError: A model is missing or damaged, or there is no such policy.
        """
        folder = RunFolder(root)
        tokenizer = load_model(Tokenizer.from_pretrained, folder.tokenizer_model)
        return cls(
            name=f"{root}, policy {policy}",
            nat=_frozen(load_model(NAT.from_pretrained, folder.generator_model), device),
            tokenizer=_frozen(tokenizer, device),
            policy=load_policy(folder, policy, num_steps, device),
        )

    def feed(self, update: Callable[[bytes], None]) -> None:
        """Hand all weights and settings to a hash."""
        modules: list[nn.Module] = [self.nat, self.tokenizer]
        update(repr((self.nat.config, self.tokenizer.config, self.policy.num_steps)).encode())
        if isinstance(self.policy, StaticSchedule):
            update(repr(self.policy).encode())
        elif isinstance(self.policy, nn.Module):
            modules.append(self.policy)
        for module in modules:
            for name, tensor in module.state_dict().items():
                update(name.encode())
                update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def load_policy(
    folder: RunFolder, name: str, num_steps: int | None, device: torch.device
) -> DecodingPolicy:
    """A decoding policy of a run by the name that its evaluation uses.

    Args:
        folder: The run.
        name: `static` (the published schedule, at any number of steps), `static_tuned` (the
            winner of the grid), `static_tuned_T8` (tuned at 8 steps), `static_searched` (searched
            without gradients), `adaptive` (policy seed 0), `adaptive_1` (seed 1), or
            `adaptive_static` (the average of seed 0).
        num_steps: Steps of `static`, which needs them; the others have their own.
        device: Where a learned policy runs.

    Raises:
        StageError: The run has no such policy.
        ValueError: Unknown name, or steps given or left out wrongly.
    """
    if (name == STATIC) != (num_steps is not None):
        raise ValueError(
            f"num_steps is {num_steps} for policy {name!r}: `static` needs a number of steps, "
            "every other policy has its own"
        )
    if num_steps is not None:
        return default_point(num_steps).schedule()
    if name == STATIC_TUNED:
        return _searched(folder.schedule)["best"].schedule()
    if name == STATIC_SEARCHED:
        return StaticSchedule(torch.tensor(_results(folder.static_search)["values"]))
    if name.startswith(tuned_at(0)[:-1]):
        points = _searched(folder.more_steps)
        if name not in points:
            raise StageError(f"{folder.more_steps} has no {name}; it has {', '.join(points)}")
        return points[name].schedule()
    base, _, seed = name.partition("_")
    if base != ADAPTIVE or not (seed in ("", "static") or seed.isdecimal()):
        raise ValueError(
            f"unknown policy {name!r}: give static, static_tuned, static_tuned_T8 (for 8 steps), "
            "static_searched, adaptive, adaptive_1 (for policy seed 1) or adaptive_static"
        )
    learned = load_model(
        GaussianPolicy.from_pretrained, folder.policy_model(int(seed) if seed.isdecimal() else 0)
    )
    learned = _frozen(learned, device)
    return StaticSchedule(learned.to_static()) if name == ADAPTIVE_STATIC else learned


def _frozen(model: Network, device: torch.device) -> Network:
    return model.to(device).eval().requires_grad_(False)


def _searched(folder: Path) -> dict[str, SchedulePoint]:
    """The schedules that a search stage found: `best`, or by the names of the step counts."""
    results = _results(folder)
    if "best" in results:
        return {"best": SchedulePoint(**results["best"])}
    points = [SchedulePoint(**point) for point in results["points"]]
    return {tuned_at(point.num_steps): point for point in points}


def _results(folder: Path) -> dict[str, Any]:
    """What a finished stage left."""
    path = folder / DONE_FILE
    if not path.is_file():
        raise StageError(f"{folder} is not finished: run that stage first")
    results: dict[str, Any] = read_json(path)["results"]
    return results


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
        captions = self._conditions.captions
        batches = self.generator.batches(
            self.models.policy,
            seed=derive_seed(0, "test", self._seed),
            num_samples=min(stop, self._num_samples) - start,
            start=start,
        )
        index = start
        for batch in batches:
            for position, image in enumerate(batch.images.permute(0, 2, 3, 1).numpy()):
                if captions is None:
                    yield Item(image, label=int(batch.labels[position]))
                else:
                    yield Item(image, caption=captions[index])
                index += 1
