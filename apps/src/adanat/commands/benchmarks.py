"""The commands of a benchmark's flow: look before days are spent, then train."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from adanat.commands.flow import StageName, run_stages
from adanat.commands.options import BenchmarkChoice, OutputDir, PreparedDir, open_run
from adanat.doctor import examine, report
from adanat.errors import AdanatError
from adanat.plan import format_plan, missing_reward_files, plan, unequal_batches
from adanat.recipes.benchmarks.smoke import prepare_stand_in
from adanat.recipes.benchmarks.smoke import smoke as smoke_recipe
from adanat.run import Run
from adanat.tracking import mirror_to_wandb


def train(
    recipe: BenchmarkChoice,
    output_dir: OutputDir = None,
    data_dir: PreparedDir = None,
    stage: Annotated[
        StageName | None,
        tyro.conf.arg(help="The last stage. Default: policy; report with --smoke."),
    ] = None,
    tokenizer: Annotated[
        Path | None, tyro.conf.arg(help="Take this tokenizer over instead of training one.")
    ] = None,
    generator: Annotated[
        Path | None, tyro.conf.arg(help="Take this transformer over instead of training one.")
    ] = None,
    dry_run: Annotated[
        bool, tyro.conf.arg(help="Print sizes, costs and what is missing; do nothing.")
    ] = False,
    gpu_tflops: Annotated[
        float, tyro.conf.arg(help="TFLOP/s that a GPU reaches, for the plan's GPU-hours.")
    ] = 400.0,
    smoke: Annotated[
        bool, tyro.conf.arg(help="One update a stage at the true sizes, on stand-in data.")
    ] = False,
    depth: Annotated[
        int | None, tyro.conf.arg(help="With --smoke: blocks of the transformer.")
    ] = None,
    wandb: Annotated[
        str | None, tyro.conf.arg(help="Weights & Biases project that mirrors TensorBoard.")
    ] = None,
) -> None:
    """Run a benchmark's flow up to a stage. The same command goes on where it was stopped.

    On several GPUs: `torchrun --nproc-per-node 8 -m adanat train in256 ...`.
    """
    if depth is not None and not smoke:
        raise ValueError("--depth belongs to --smoke; otherwise set --generator.depth")
    if tokenizer is not None:
        recipe = replace(recipe, tokenizer=replace(recipe.tokenizer, weights=tokenizer))
    if generator is not None:
        recipe = replace(recipe, generator=replace(recipe.generator, weights=generator))
    if dry_run:
        print(format_plan(plan(recipe, data_dir, gpu_tflops=gpu_tflops)))
        return
    run = open_run(recipe, output_dir, data_dir)
    if smoke:
        run = replace(run, recipe=smoke_recipe(recipe, depth))
    if smoke and data_dir is None:
        with run.engine.main_first():
            data_dir = prepare_stand_in(run.recipe, run.output_dir / "stand-in")
        run = replace(run, data_dir=data_dir)
    if wrong := unequal_batches(run.recipe, run.engine.num_processes):
        raise ValueError(
            f"{run.engine.num_processes} processes cannot share equally {', '.join(wrong)}: "
            "choose multiples of their number"
        )
    _refuse_missing_weights(run)
    if wandb is not None and run.engine.is_main:
        mirror_to_wandb(wandb, run.output_dir)
    run_stages(run, stage or ("report" if smoke else "policy"))
    run.engine.close()


def _refuse_missing_weights(run: Run) -> None:
    """Rather at once than when their stage's turn comes."""
    for stage, path in (
        (run.stages.tokenizer, run.recipe.tokenizer.weights),
        (run.stages.generator, run.recipe.generator.weights),
    ):
        if path is not None and not path.exists() and not stage.is_done():
            raise ValueError(f"{path} does not exist: it is to be taken over")
    missing = missing_reward_files(run.recipe)
    if missing and not all(stage.is_done() for stage in run.stages.policies.values()):
        raise ValueError(f"{missing[0]} does not exist: the reward needs it")


def doctor(
    recipe: BenchmarkChoice,
    output_dir: OutputDir = None,
    data_dir: PreparedDir = None,
    batch_size: Annotated[int, tyro.conf.arg(help="Of each timed step on this device.")] = 8,
    episodes: Annotated[
        int | None,
        tyro.conf.arg(help="Of the timed policy update on this device. Default: the batch size."),
    ] = None,
) -> None:
    """Look at machine and data and time a step of each stage, before days are spent."""
    run = open_run(recipe, output_dir, data_dir)
    findings = examine(
        recipe, run.output_dir, data_dir, run.engine, batch_size=batch_size, episodes=episodes
    )
    well = report(findings, run.engine)
    run.engine.close()
    if not well:
        raise AdanatError("not everything is ready: see the lines that say LOOK")
