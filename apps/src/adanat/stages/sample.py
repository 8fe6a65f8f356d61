"""Stage `sample`: pictures of a trained run under any of its policies."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import save_image

from adanat.contestants import contestants
from adanat.errors import AdanatError
from adanat.generation import Generator, from_uint8
from adanat.run import Run

_Plan = Callable[[Tensor], Tensor]
_CAPTIONS_PER_ROW = 8


def sample(
    run: Run,
    *,
    policy: str,
    labels: Sequence[int] = (),
    prompts: Sequence[str] = (),
    num_samples: int,
    seed: int,
) -> Path:
    """Write one picture of a grid of samples.

    Args:
        run: a run with a trained policy.
        policy: one of the names of an evaluation, such as `adaptive` or `static_tuned`.
        labels: classes, used in turn; all classes when empty, where classes condition.
        prompts: captions, used in turn; those of the test images when empty, where text conditions.
        num_samples: how many images.
        seed: key of the noise: the same seed gives the same pictures.

    Returns:
        Path of the PNG under `samples/`.

    Raises:
        AdanatError: an unknown policy, a label out of range, labels for a run with captions or
            prompts for one with classes, or no samples asked for.
    """
    if num_samples < 1:
        raise AdanatError(f"num_samples must be at least 1, got {num_samples}")
    policies = contestants(run)
    if policy not in policies:
        raise AdanatError(f"there is no policy {policy!r}; the policies are {', '.join(policies)}")
    text = run.recipe.text.encoder is not None
    plan, row = _captions(run, labels, prompts) if text else _classes(run, labels, prompts)
    generator = Generator(
        run.nat(), run.tokenizer(), plan, batch_size=run.recipe.evaluation.batch_size
    )
    batches = generator.batches(policies[policy], seed=seed, num_samples=num_samples)
    images = from_uint8(torch.cat([batch.images for batch in batches]))
    run.folder.samples.mkdir(parents=True, exist_ok=True)
    path = run.folder.samples / f"{policy}-seed-{seed}-{_name(labels, prompts)}-{num_samples}.png"
    save_image(images, path, nrow=row)
    return path


def _classes(run: Run, labels: Sequence[int], prompts: Sequence[str]) -> tuple[_Plan, int]:
    """The conditions of sample indices, and how many different ones there are."""
    num_classes = run.recipe.data.num_classes
    if prompts:
        raise AdanatError(f"{run.recipe.name} is conditioned on classes: give labels, not prompts")
    wrong = [label for label in labels if not 0 <= label < num_classes]
    if wrong:
        raise AdanatError(f"labels must be in [0, {num_classes - 1}], got {wrong}")
    cycle = torch.tensor(list(labels) or list(range(num_classes)), device=run.device)
    return lambda indices: cycle[indices % len(cycle)], len(cycle)


def _captions(run: Run, labels: Sequence[int], prompts: Sequence[str]) -> tuple[_Plan, int]:
    if labels:
        raise AdanatError(f"{run.recipe.name} is conditioned on text: give prompts, not labels")
    if not prompts:
        conditions = run.conditions("test")
        return lambda indices: conditions.of_samples(indices).generator, _CAPTIONS_PER_ROW
    features, _ = run.text_encoder(prompts)
    return lambda indices: features[indices % len(prompts)], len(prompts)


def _name(labels: Sequence[int], prompts: Sequence[str]) -> str:
    if prompts:
        return "prompts-" + hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:8]
    return "classes-" + "-".join(map(str, labels)) if labels else "all"
