"""The stage `tokenize` shared by two processes: the codes of one alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from adanat.data import SPLITS
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.stages import prepare_data, tokenize, train_tokenizer

pytestmark = pytest.mark.slow


def test_two_processes_leave_the_stores_of_one(tmp_path: Path) -> None:
    alone, shared = (Run(get_recipe("tiny"), tmp_path / name) for name in ("alone", "shared"))
    for work in (prepare_data, train_tokenizer):
        work(alone)
    shutil.copytree(alone.output_dir, shared.output_dir)
    tokenize(alone)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    stage = ["-m", "adanat", "tokenize", "tiny", "--output-dir", str(shared.output_dir)]
    done = subprocess.run([*torchrun, *stage], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for split in SPLITS:
        ours, theirs = (run.folder.token_store(split) for run in (shared, alone))
        for file in theirs.iterdir():
            assert (ours / file.name).read_bytes() == file.read_bytes(), (split, file.name)
    assert shared.stages.tokens.results() == alone.stages.tokens.results()
