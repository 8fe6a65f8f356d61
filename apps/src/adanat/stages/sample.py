"""Stage `sample`: pictures of a trained run under any of its policies."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from adanat.conditions import PROMPT_NUMBERS, Condition
from adanat.contestants import ADAPTIVE, ADAPTIVE_STATIC, contestants, of_seed
from adanat.errors import AdanatError
from adanat.generation import Generator, from_uint8
from adanat.refinement import refined_batches
from adanat.rewards import trained_reward
from adanat.run import Run

_Plan = Callable[[Tensor], Condition]
_CAPTIONS_PER_ROW = 8


def sample(
    run: Run,
    *,
    policy: str,
    labels: Sequence[int] = (),
    prompts: Sequence[str] = (),
    num_samples: int,
    seed: int,
    candidates: int = 1,
) -> Path:
    """Write one picture of a grid of samples, and print what drawing them cost.

    Args:
        run: a run with a trained policy.
        policy: one of the names of an evaluation, such as `adaptive` or `static_tuned`.
        labels: classes, used in turn; all classes when empty, where classes condition.
        prompts: captions, used in turn; those of the test images when empty, where text conditions.
        num_samples: how many images.
        seed: key of the noise: the same seed gives the same pictures.
        candidates: how many images are drawn for each one that is kept, by the reward that trained
            the policy (for a schedule, that of the first policy seed): see `adanat.refinement`.

    Returns:
        Path of the PNG under `samples/`.

    Raises:
        AdanatError: an unknown policy, a label out of range, labels for a run with captions or
            prompts for one with classes, no samples or candidates asked for, or several candidates
            where the run has no reward of one image (`trained_reward`).
    """
    for name, count in (("num_samples", num_samples), ("candidates", candidates)):
        if count < 1:
            raise AdanatError(f"{name} must be at least 1, got {count}")
    policies = contestants(run)
    if policy not in policies:
        raise AdanatError(f"there is no policy {policy!r}; the policies are {', '.join(policies)}")
    text = run.recipe.text.encoder is not None
    plan, row = _captions(run, labels, prompts) if text else _classes(run, labels, prompts)
    generator = Generator(
        run.nat(),
        run.tokenizer(),
        lambda indices: plan(indices).generator,
        batch_size=run.recipe.evaluation.batch_size,
    )
    name = f"{policy}-seed-{seed}-{_name(labels, prompts)}-{num_samples}"
    if candidates == 1:
        batches = generator.batches(policies[policy], seed=seed, num_samples=num_samples)
        images = torch.cat([batch.images for batch in batches])
    else:
        captions = (prompts or run.images("test").captions)[:num_samples] if text else ()

        def judged(indices: Tensor) -> Mapping[str, Tensor]:
            condition = plan(indices).judge
            if not text:
                return {"labels": condition}
            return {"condition": condition, PROMPT_NUMBERS: indices % len(captions)}

        refined = list(
            refined_batches(
                generator,
                policies[policy],
                trained_reward(run, _policy_seed(run, policy), captions=captions),
                judged,
                candidates=candidates,
                seed=seed,
                num_samples=num_samples,
            )
        )
        images = torch.cat([batch.images for batch in refined])
        rewards = torch.cat([batch.rewards for batch in refined], dim=1)
        name += f"-best-of-{candidates}"
        kept, drawn = rewards.amax(dim=0).mean(), rewards.mean()
        print(f"kept 1 of {candidates} candidates: mean reward {kept:.3f}, of all {drawn:.3f}")
    print(f"{generator.cost.passes / num_samples:.2f} network passes for each image kept")
    from torchvision.utils import save_image  # imports PyTorch's compiler: only where it is used

    run.folder.samples.mkdir(parents=True, exist_ok=True)
    path = run.folder.samples / f"{name}.png"
    save_image(from_uint8(images), path, nrow=row)
    return path


def _policy_seed(run: Run, policy: str) -> int:
    """The seed of a learned policy; of a schedule, the first."""
    seeds = run.recipe.policy.seeds
    entries = {of_seed(name, run, s): s for name in (ADAPTIVE, ADAPTIVE_STATIC) for s in seeds}
    return entries.get(policy, seeds[0])


def _classes(run: Run, labels: Sequence[int], prompts: Sequence[str]) -> tuple[_Plan, int]:
    """The conditions of sample indices, and how many different ones there are."""
    num_classes = run.recipe.data.num_classes
    if prompts:
        raise AdanatError(f"{run.recipe.name} is conditioned on classes: give labels, not prompts")
    wrong = [label for label in labels if not 0 <= label < num_classes]
    if wrong:
        raise AdanatError(f"labels must be in [0, {num_classes - 1}], got {wrong}")
    cycle = torch.tensor(list(labels) or list(range(num_classes)), device=run.device)

    def plan(indices: Tensor) -> Condition:
        chosen = cycle[indices % len(cycle)]
        return Condition(chosen, chosen)

    return plan, len(cycle)


def _captions(run: Run, labels: Sequence[int], prompts: Sequence[str]) -> tuple[_Plan, int]:
    if labels:
        raise AdanatError(f"{run.recipe.name} is conditioned on text: give prompts, not labels")
    if not prompts:
        conditions = run.conditions("test")
        return conditions.of_samples, _CAPTIONS_PER_ROW
    tokens, pooled = run.text_encoder(prompts)

    def plan(indices: Tensor) -> Condition:
        rows = indices % len(prompts)
        return Condition(tokens[rows], pooled[rows])

    return plan, len(prompts)


def _name(labels: Sequence[int], prompts: Sequence[str]) -> str:
    if prompts:
        return "prompts-" + hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:8]
    return "classes-" + "-".join(map(str, labels)) if labels else "all"
