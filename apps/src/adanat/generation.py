"""From sample indices to pictures: the NAT, a decoding policy and the tokenizer joined."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from natgen import NAT, DecodingPolicy, Generation, NoiseSource, generate
from policyrl import GaussianPolicy, PolicySession
from torch import Tensor
from vqtok import Tokenizer

from adanat.engine import AccelerateEngine
from adanat.metrics import to_uint8


def from_uint8(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255.0)


def balanced_labels(indices: Tensor, num_classes: int) -> Tensor:
    """The label plan of training and evaluation: sample i has class i mod num_classes."""
    return indices.remainder(num_classes)


class Batch(NamedTuple):
    """Pictures of consecutive sample indices."""

    images: Tensor
    """(B, 3, H, W) uint8."""
    labels: Tensor
    """(B,) int64."""
    generation: Generation


@dataclass
class Cost:
    """What generating took, added up over batches."""

    images: int = 0
    seconds: float = 0.0
    passes: float = 0.0
    """Sample passes through the network, both branches of guidance counted."""

    def add(self, images: int, seconds: float, passes_per_image: float) -> None:
        self.images += images
        self.seconds += seconds
        self.passes += passes_per_image * images

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else float("nan")

    @property
    def passes_per_image(self) -> float:
        return self.passes / self.images if self.images else float("nan")


@dataclass
class Generator:
    """Draws images.

    The same sample index under the same seed has the same label and noise, whatever the policy
    and the batching.
    """

    nat: NAT
    tokenizer: Tokenizer
    label_plan: Callable[[Tensor], Tensor]
    """Sample indices (B,) to labels (B,)."""
    batch_size: int
    cost: Cost = field(default_factory=Cost)
    engine: AccelerateEngine | None = None
    """Processes that share the batches: each draws some, all get all of them."""

    def batches(
        self,
        policy: DecodingPolicy,
        *,
        seed: int,
        num_samples: int,
        start: int = 0,
    ) -> Iterator[Batch]:
        """Yield the pictures of sample indices `start` to `start + num_samples - 1` in order.

        Args:
            policy: any decoding policy; its `num_steps` is the number of steps.
            seed: key of the noise.
            num_samples: how many images in all.
            start: first sample index.
        """
        policy, noise = _decoding(policy), NoiseSource(seed)
        end = start + num_samples
        spans = [(a, min(a + self.batch_size, end)) for a in range(start, end, self.batch_size)]
        engine = self.engine
        width = engine.num_processes if engine is not None else 1
        for first in range(0, len(spans), width):
            batches = spans[first : first + width]
            began = time.perf_counter()
            if engine is None or width == 1:
                drawn = [self._draw(policy, batches[0], noise)]
            else:
                # Whoever finds no batch left draws the last one, too: all have something to send.
                own = batches[min(engine.process_index, len(batches) - 1)]
                drawn = self._shared(engine, self._draw(policy, own, noise), batches)
            seconds = time.perf_counter() - began
            for batch in drawn:
                images = len(batch.images)
                self.cost.add(images, seconds / len(drawn), batch.generation.num_passes)
                yield batch

    def _draw(self, policy: DecodingPolicy, span: tuple[int, int], noise: NoiseSource) -> Batch:
        indices = torch.arange(*span, device=self._device)
        generation = self._generate(policy, indices, noise)
        images = to_uint8(self.decode(generation.tokens)).cpu()  # waits for the device
        return Batch(images, self.label_plan(indices).cpu(), generation)

    def _generate(
        self, policy: DecodingPolicy, indices: Tensor, noise: NoiseSource, *, record: bool = False
    ) -> Generation:
        labels = self.label_plan(indices)
        return generate(
            self.nat, policy, labels, sample_indices=indices, noise=noise, record=record
        )

    @property
    def _device(self) -> torch.device:
        return next(self.nat.parameters()).device

    def _shared(
        self, engine: AccelerateEngine, own: Batch, spans: Sequence[tuple[int, int]]
    ) -> list[Batch]:
        """The batches of all processes, equal to those that one process would have drawn."""

        def everyone(tensor: Tensor) -> tuple[Tensor, ...]:
            padding = tensor.new_zeros((self.batch_size - len(tensor), *tensor.shape[1:]))
            parts: tuple[Tensor, ...] = engine.gather(torch.cat([tensor, padding])).split(
                self.batch_size
            )
            return parts

        passes = engine.gather(torch.tensor([own.generation.num_passes])).tolist()
        columns = (own.images, own.generation.tokens, own.generation.parameters)
        batches = []
        for span, images, tokens, parameters, num_passes in zip(
            spans, *map(everyone, columns), passes, strict=False
        ):
            size = span[1] - span[0]
            labels = self.label_plan(torch.arange(*span, device=tokens.device)).cpu()
            generation = Generation(tokens[:size], parameters[:size], (), num_passes)
            batches.append(Batch(images[:size], labels, generation))
        return batches

    def parameters(self, policy: DecodingPolicy, *, seed: int, num_samples: int) -> Tensor:
        """(N, T, 4) that `policy` chooses for samples 0 to N - 1, without their pictures."""
        policy, noise = _decoding(policy), NoiseSource(seed)
        indices = torch.arange(num_samples, device=self._device).split(self.batch_size)
        return torch.cat([self._generate(policy, part, noise).parameters for part in indices])

    def record(self, policy: DecodingPolicy, *, seed: int, num_samples: int) -> Generation:
        """Every decoding step of samples 0 to N - 1, in one batch, without their pictures."""
        indices = torch.arange(num_samples, device=self._device)
        return self._generate(_decoding(policy), indices, NoiseSource(seed), record=True)

    def decode(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) in raster order to images (B, 3, H, W) in [0, 1]."""
        with torch.inference_mode():
            return self.tokenizer.decode(tokens.unflatten(1, self.tokenizer.grid_size))


def _decoding(policy: DecodingPolicy) -> DecodingPolicy:
    """The policy with a memory of the step before, where its action smoothing needs one."""
    return PolicySession(policy) if isinstance(policy, GaussianPolicy) else policy
