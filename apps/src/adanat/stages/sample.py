"""Stage `sample`: pictures of a trained run under any of its policies."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.utils import save_image

from adanat.contestants import contestants
from adanat.errors import AdanatError
from adanat.generation import Generator, from_uint8
from adanat.run import Run


def sample(run: Run, *, policy: str, labels: Sequence[int], num_samples: int, seed: int) -> Path:
    """Write one picture of a grid of samples.

    Args:
        run: a run with a trained policy.
        policy: one of the names of an evaluation, such as `adaptive` or `static_tuned`.
        labels: classes, used in turn; all classes when empty.
        num_samples: how many images.
        seed: key of the noise: the same seed gives the same pictures.

    Returns:
        Path of the PNG under `samples/`.

    Raises:
        AdanatError: an unknown policy, a label out of range, or no samples asked for.
    """
    num_classes = run.recipe.data.num_classes
    wrong = [label for label in labels if not 0 <= label < num_classes]
    if wrong:
        raise AdanatError(f"labels must be in [0, {num_classes - 1}], got {wrong}")
    if num_samples < 1:
        raise AdanatError(f"num_samples must be at least 1, got {num_samples}")
    policies = contestants(run)
    if policy not in policies:
        raise AdanatError(f"there is no policy {policy!r}; the policies are {', '.join(policies)}")
    cycle = torch.tensor(list(labels) or list(range(num_classes)), device=run.device)
    generator = Generator(
        run.nat(),
        run.tokenizer(),
        lambda indices: cycle[indices.remainder(len(cycle))],
        batch_size=run.recipe.evaluation.batch_size,
    )
    batches = generator.batches(policies[policy], seed=seed, num_samples=num_samples)
    images = from_uint8(torch.cat([batch.images for batch in batches]))
    run.folder.samples.mkdir(parents=True, exist_ok=True)
    classes = "-".join(map(str, labels)) or "all"
    path = run.folder.samples / f"{policy}-seed-{seed}-classes-{classes}-{num_samples}.png"
    save_image(images, path, nrow=len(cycle))
    return path
