"""The stages in order, up to the report: `run`, `quickstart` and `report`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from adanat import stages
from adanat.commands.options import DataDir, OutputDir, Overwrite, clear, open_run, run_command
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.runs import Stage
from adanat.stages.write_report import write_report
from adanat.summary import text_table

StageName = Literal["tokenizer", "tokens", "generator", "schedule", "policy", "report"]
_WORK: Sequence[tuple[StageName, Callable[[Run], None]]] = (
    ("tokenizer", stages.prepare_data),
    ("tokenizer", stages.train_tokenizer),
    ("tokens", stages.tokenize),
    ("generator", stages.train_generator),
    ("schedule", stages.search_schedule),
    ("schedule", stages.search_static_if_included),
    ("policy", stages.train_policies),
    ("report", stages.search_more_steps),
    ("report", stages.evaluate),
)
_QUICKSTART_RECIPES = {"digits": "digits", "fashion-mnist": "fashion-mnist-quick"}


def run_stages(run: Run, last: StageName) -> None:
    """Run the stages in order up to the last one; finished ones do nothing."""
    names = [name for name, _ in _WORK]
    for name, work in _WORK:
        if names.index(name) <= names.index(last):
            work(run)
    if last == "report":
        _report(run)


def quickstart(
    data: Literal["digits", "fashion-mnist"] = "digits",
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """The whole loop on real images in minutes, ending with a table and a page of pictures."""
    run = open_run(get_recipe(_QUICKSTART_RECIPES[data]), output_dir, data_dir)
    if overwrite:
        clear(run, _all_stages(run))
    run_stages(run, "report")


def _all_stages(run: Run) -> Sequence[Stage]:
    return list(run.stages.in_order().values())


def _report(run: Run) -> None:
    if not run.engine.is_main:
        return
    write_report(run)
    print(f"\n{text_table(run)}\n\nmetrics: {run.folder.metrics}\nreport:  {run.folder.report}")


run_all = run_command(partial(run_stages, last="report"), _all_stages)
report = run_command(_report, lambda run: [])
