"""From sample indices to pictures: the NAT, a decoding policy and the tokenizer joined."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from natgen import NAT, DecodingPolicy, Generation, NoiseSource, generate
from torch import Tensor
from vqtok import Tokenizer

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

    def batches(
        self,
        policy: DecodingPolicy,
        *,
        seed: int,
        num_samples: int,
        start: int = 0,
        record: bool = False,
    ) -> Iterator[Batch]:
        """Yield the pictures of sample indices `start` to `start + num_samples - 1` in order.

        Args:
            policy: any decoding policy; its `num_steps` is the number of steps.
            seed: key of the noise.
            num_samples: how many images in all.
            start: first sample index.
            record: keep every decoding step in `Batch.generation.steps`.
        """
        noise = NoiseSource(seed)
        device = next(self.nat.parameters()).device
        for first in range(start, start + num_samples, self.batch_size):
            last = min(first + self.batch_size, start + num_samples)
            indices = torch.arange(first, last, device=device)
            labels = self.label_plan(indices)
            began = time.perf_counter()
            generation = generate(
                self.nat, policy, labels, sample_indices=indices, noise=noise, record=record
            )
            images = to_uint8(self.decode(generation.tokens)).cpu()  # waits for the device
            self.cost.add(last - first, time.perf_counter() - began, generation.num_passes)
            yield Batch(images, labels.cpu(), generation)

    def decode(self, tokens: Tensor) -> Tensor:
        """Token ids (B, L) in raster order to images (B, 3, H, W) in [0, 1]."""
        with torch.inference_mode():
            return self.tokenizer.decode(tokens.unflatten(1, self.tokenizer.grid_size))
