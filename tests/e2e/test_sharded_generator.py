"""The stage `train-generator` with its state sharded over two processes: as by one alone."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.stages import prepare_data, tokenize, train_generator, train_tokenizer

pytestmark = pytest.mark.slow


def test_a_sharded_training_leaves_the_model_of_one_process(tmp_path: Path) -> None:
    tiny = get_recipe("tiny")
    recipe = replace(tiny, generator=replace(tiny.generator, dropout=0.0))  # drawn in each process
    alone, sharded = (Run(recipe, tmp_path / name) for name in ("alone", "sharded"))
    for work in (prepare_data, train_tokenizer, tokenize):
        work(alone)
    shutil.copytree(alone.output_dir, sharded.output_dir)
    train_generator(alone)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    stage = ["-m", "adanat", "train-generator", "tiny", "--output-dir", str(sharded.output_dir)]
    done = subprocess.run(
        [*torchrun, *stage, "--generator.dropout", "0", "--shard-generator"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, expected = (run.stages.generator.results() for run in (sharded, alone))
    assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(
        sharded.nat().state_dict(), alone.nat().state_dict(), rtol=1e-4, atol=2e-5
    )
    pictures, drawn_alone = (
        sorted(path.name for path in run.folder.generator.glob("pictures/*.png"))
        for run in (sharded, alone)
    )
    assert pictures == drawn_alone
