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
from vqtok import TokenStore

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
        ours, theirs = (TokenStore(run.folder.token_store(split)) for run in (shared, alone))
        (codes, conditions), (expected, kept) = (s.batch(range(len(s))) for s in (ours, theirs))
        # Rounding differs between numbers of threads and may turn a tie between two codes round.
        assert (codes != expected).double().mean() < 1e-3
        assert {name: values.tolist() for name, values in conditions.items()} == {
            name: values.tolist() for name, values in kept.items()
        }
    found, wanted = shared.stages.tokens.results(), alone.stages.tokens.results()
    assert found["tokens"] == wanted["tokens"]
    assert found["l1"] == pytest.approx(wanted["l1"], rel=1e-4)
