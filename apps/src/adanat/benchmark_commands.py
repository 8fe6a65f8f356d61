"""The commands of the benchmarks: prepare a data set, train a flow."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from adanat.doctor import examine, report
from adanat.engine import AccelerateEngine
from adanat.errors import AdanatError
from adanat.plan import format_plan, plan
from adanat.prepare import Preparation, PreparedIndex, prepare_cc3m, prepare_coco, prepare_imagenet
from adanat.recipes.base import Recipe
from adanat.recipes.benchmarks import BENCHMARKS, smoke
from adanat.recipes.benchmarks.smoke import prepare_stand_in
from adanat.run import Run
from adanat.stages import (
    evaluate,
    prepare_data,
    search_more_steps,
    search_schedule,
    search_static_if_included,
    tokenize,
    train_generator,
    train_policies,
    train_tokenizer,
    write_report,
)
from adanat.summary import text_table
from adanat.tracking import mirror_to_wandb

BENCHMARK_HELP = {
    "in256": "ImageNet at 256 pixels by class, the large NAT: GPU-days.",
    "in512": "ImageNet at 512 pixels by class, the large NAT: GPU-days.",
    "coco": "MS-COCO at 256 pixels by caption: GPU-days.",
    "cc3m": "CC3M at 256 pixels by caption, the text NAT: GPU-days.",
}
if TYPE_CHECKING:
    _Benchmark = Recipe  # the union below is made at run time
else:
    _Benchmark = Annotated[
        tyro.extras.subcommand_type_from_defaults(
            {name: build() for name, build in BENCHMARKS.items()}, BENCHMARK_HELP
        ),
        tyro.conf.arg(name=""),
    ]

StageName = Literal["tokenizer", "tokens", "generator", "schedule", "policy", "report"]
_WORK: Sequence[tuple[StageName, Callable[[Run], None]]] = (
    ("tokenizer", prepare_data),
    ("tokenizer", train_tokenizer),
    ("tokens", tokenize),
    ("generator", train_generator),
    ("schedule", search_schedule),
    ("schedule", search_static_if_included),
    ("policy", train_policies),
    ("report", search_more_steps),
    ("report", evaluate),
)


def train(
    recipe: _Benchmark,
    output_dir: Annotated[
        Path | None, tyro.conf.arg(help="Folder of the run. Default: runs/RECIPE.")
    ] = None,
    data_dir: Annotated[
        Path | None, tyro.conf.arg(help="Folder that `adanat prepare` has made.")
    ] = None,
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
    folder = output_dir or Path("runs") / recipe.name
    if dry_run:
        print(format_plan(plan(recipe, data_dir, gpu_tflops=gpu_tflops)))
        return
    if smoke:
        recipe = _smoke(recipe, depth)
    run = Run(recipe, folder, data_dir)
    if smoke and data_dir is None:
        with run.engine.main_first():
            run = replace(run, data_dir=prepare_stand_in(recipe, folder / "stand-in"))
    if wandb is not None and run.engine.is_main:
        mirror_to_wandb(wandb, folder)
    run_stages(run, stage or ("report" if smoke else "policy"))
    run.engine.close()


_smoke = smoke  # within `train` the name is the flag's


def run_stages(run: Run, last: StageName) -> None:
    """Run the stages in order up to the last one; finished ones do nothing."""
    names = [name for name, _ in _WORK]
    for name, work in _WORK:
        if names.index(name) <= names.index(last):
            work(run)
    if last == "report" and run.engine.is_main:
        write_report(run)
        print(f"\n{text_table(run)}\n\nmetrics: {run.folder.metrics}\nreport:  {run.folder.report}")


def prepare(
    dataset: Annotated[
        Literal["imagenet", "coco", "cc3m"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="DATASET", help="imagenet, coco or cc3m."),
    ],
    preparation: Annotated[Preparation, tyro.conf.arg(name="")],
    source: Annotated[
        Path | None,
        tyro.conf.arg(help="imagenet, coco: folder of the published files."),
    ] = None,
    train: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="cc3m: img2dataset's shards to learn from: paths, {0..9}, *, http(s)."),
    ] = (),
    test: Annotated[tuple[str, ...], tyro.conf.arg(help="cc3m: the validation shards.")] = (),
    num_classes: Annotated[int, tyro.conf.arg(help="imagenet: how many classes.")] = 1000,
    allow_commands: Annotated[
        bool, tyro.conf.arg(help="cc3m: run the commands of `pipe:COMMAND` entries, in a shell.")
    ] = False,
    timeout: Annotated[
        float, tyro.conf.arg(help="cc3m: seconds without a byte until a source counts as stuck.")
    ] = 60.0,
) -> None:
    """Make a benchmark's data set ready: once, in parallel, resumable."""
    if dataset == "cc3m":
        if source is not None or not train or not test:
            raise ValueError("cc3m is prepared from --train SHARDS and --test SHARDS")
        index = prepare_cc3m(
            train, test, preparation, allow_commands=allow_commands, timeout=timeout
        )
    elif source is None:
        raise ValueError(f"{dataset} is prepared from --source FOLDER")
    elif dataset == "coco":
        index = prepare_coco(source, preparation)
    else:
        index = prepare_imagenet(source, preparation, num_classes)
    print(_counts(index, preparation.output))


def _counts(index: PreparedIndex, folder: Path) -> str:
    lines = [f"{index.dataset} in {folder}: {len(index.shards)} shards"]
    lines += [f"  {split}: {count:,} samples" for split, count in index.splits.items()]
    for title, counts in index.counts.items():
        rows = counts if isinstance(counts, dict) else {"samples": counts}
        lines += [f"  {title}, {reason}: {count:,}" for reason, count in rows.items() if count]
    return "\n".join(lines)


def doctor(
    recipe: _Benchmark,
    output_dir: Annotated[Path | None, tyro.conf.arg(help="Where the run would be.")] = None,
    data_dir: Annotated[
        Path | None, tyro.conf.arg(help="Folder that `adanat prepare` has made.")
    ] = None,
    batch_size: Annotated[int, tyro.conf.arg(help="Of each timed step on this device.")] = 8,
) -> None:
    """Look at machine and data and time a step of each stage, before days are spent."""
    engine = AccelerateEngine(recipe.precision)
    folder = output_dir or Path("runs") / recipe.name
    well = report(examine(recipe, folder, data_dir, engine, batch_size=batch_size))
    engine.close()
    if not well:
        raise AdanatError("not everything is ready: see the lines that say LOOK")
