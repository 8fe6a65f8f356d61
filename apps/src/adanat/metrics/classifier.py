"""A small classifier of the data set itself, whose features confirm a distance.

A gain that shows on ImageNet features should also show on features that were trained to tell
this data set's classes apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional

MIN_IMAGE_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Shape of the classifier.

    Attributes:
        num_classes: Number of classes, at least 2.
        channels: Width of the three convolutions; the last is the feature's dimension.
    """

    num_classes: int
    channels: tuple[int, int, int] = (32, 64, 128)

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"num_classes is {self.num_classes}; it must be at least 2")
        object.__setattr__(self, "channels", tuple(self.channels))  # a list, when read from JSON
        if len(self.channels) != 3 or min(self.channels) < 1:
            raise ValueError(f"channels are {self.channels}; three positive widths are needed")


@dataclass(frozen=True, kw_only=True)
class ClassifierTrainingConfig:
    """How the classifier is trained.

    Attributes:
        num_steps: Optimizer steps, at least 1.
        batch_size: Images a step, at least 2.
        learning_rate: Peak of the one-cycle schedule, above 0.
        weight_decay: AdamW's, at least 0.
        seed: Seed of the initial weights and the order of the images.
    """

    num_steps: int = 1200
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; it must be at least 1")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}; it must be at least 2")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be at least 0")


class Classifier(
    nn.Module,
    PyTorchModelHubMixin,
    tags=["image-classification"],
):
    """Three convolutions with batch normalisation, pooled to one feature vector an image.

    The first convolution strides on images above 16 pixels, so that small ones keep their detail.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.channels
        self.first = _block(3, first)
        self.second = _block(first, second)
        self.third = _block(second, third)
        self.head = nn.Linear(third, config.num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1], at least 8x8, to features (B, channels[-1])."""
        if min(images.shape[-2:]) < MIN_IMAGE_SIZE:
            raise ValueError(
                f"images have the shape {tuple(images.shape)}; "
                f"sides of at least {MIN_IMAGE_SIZE} pixels are needed"
            )
        hidden = images * 2 - 1
        hidden = self.first(hidden)
        if min(images.shape[-2:]) > 16:
            hidden = functional.max_pool2d(hidden, 2)
        hidden = functional.max_pool2d(self.second(hidden), 2)
        pooled: Tensor = self.third(hidden).mean(dim=(2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [0, 1] to class logits (B, num_classes)."""
        logits: Tensor = self.head(self.features(images))
        return logits


def train_classifier(
    images: Tensor,
    labels: Tensor,
    config: ClassifierConfig,
    training: ClassifierTrainingConfig,
    *,
    on_step: Callable[[int, float], None] | None = None,
) -> Classifier:
    """Train a classifier; deterministic in its arguments, and short enough to simply run again.

    Args:
        images: uint8 (N, 3, H, W) of the fit split.
        labels: int64 (N,) in [0, num_classes).
        config: Shape of the network.
        training: How to train it.
        on_step: Called with (step, loss) after every step, for progress.

    Returns:
        The classifier in evaluation mode.

    Raises:
        ValueError: If images and labels do not fit each other or the configuration.
    """
    _check_data(images, labels, config.num_classes)
    batch_size = min(training.batch_size, len(images))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = Classifier(config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=training.learning_rate, total_steps=training.num_steps
    )
    generator = torch.Generator().manual_seed(training.seed)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(training.num_steps):
        if len(order) < batch_size:
            order = torch.randperm(len(images), generator=generator)
        chosen, order = order[:batch_size], order[batch_size:]
        logits = model(images[chosen].float() / 255)
        loss = functional.cross_entropy(logits, labels[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, loss.item())
    return model.eval()


def accuracy(model: Classifier, images: Tensor, labels: Tensor, *, batch_size: int = 500) -> float:
    """Share of uint8 images (N, 3, H, W) whose likeliest class is the label (N,)."""
    _check_data(images, labels, model.config.num_classes)
    device = next(model.parameters()).device
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            logits = model(images[start : start + batch_size].to(device).float() / 255)
            truth = labels[start : start + batch_size].to(device)
            correct += int((logits.argmax(dim=1) == truth).sum())
    return correct / len(images)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


def _check_data(images: Tensor, labels: Tensor, num_classes: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or len(images) < 2:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; "
            "uint8 of shape (N, 3, H, W) with N >= 2 is needed"
        )
    if labels.shape != (len(images),):
        raise ValueError(f"labels have the shape {tuple(labels.shape)}; ({len(images)},) is needed")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels run from {low} to {high}; 0 to {num_classes - 1} is allowed")
