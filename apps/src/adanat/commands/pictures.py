"""The commands that use a finished run: draw pictures, or export what draws them."""

from pathlib import Path
from typing import Annotated

import tyro

from adanat import stages
from adanat.commands.options import OutputDir, RecipeChoice, open_run
from adanat.pipeline import NATPipeline


def sample(
    recipe: RecipeChoice,
    output_dir: OutputDir = None,
    policy: Annotated[
        str,
        tyro.conf.arg(help="static, static_tuned, static_searched, adaptive or adaptive_static."),
    ] = "adaptive",
    labels: Annotated[
        tuple[int, ...], tyro.conf.arg(help="Classes, used in turn. Default: all of them.")
    ] = (),
    prompts: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="Captions, used in turn, for a run with captions. Default: the test's."),
    ] = (),
    num_samples: int = 64,
    noise_seed: Annotated[int, tyro.conf.arg(help="Same seed, same pictures.")] = 0,
    candidates: Annotated[
        int, tyro.conf.arg(help="Drawn for each picture; the best by the trained reward is kept.")
    ] = 1,
) -> None:
    """Draw pictures from a finished run."""
    path = stages.sample(
        open_run(recipe, output_dir),
        policy=policy,
        labels=labels,
        prompts=prompts,
        num_samples=num_samples,
        seed=noise_seed,
        candidates=candidates,
    )
    print(path)


def export_pipeline(
    recipe: RecipeChoice,
    to: Annotated[Path, tyro.conf.arg(help="Folder of the pipeline.")],
    output_dir: OutputDir = None,
) -> None:
    """Save tokenizer, transformer and policy of a run as one folder for NATPipeline.

    A run without a policy yet is saved without one: its pictures follow the hand-made schedule, or
    the tuned one once `adanat search-schedule` is finished.
    """
    pipeline = NATPipeline.from_run(open_run(recipe, output_dir))
    pipeline.save_pretrained(to)
    if pipeline.policy is None:
        schedule = "published" if pipeline.schedule is None else "tuned"
        print(f"no policy is trained yet: pictures follow the {schedule} schedule")
    print(to)
