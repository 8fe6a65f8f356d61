"""The command line: what a command imports, and that each of the list is there."""

import inspect
import os
import subprocess
import sys

import pytest
from adanat.cli import COMMANDS, main

# Each takes from half a second to two seconds to import.
SLOW = {
    "einx",
    "matplotlib",
    "scipy.stats",
    "timm",
    "torch._dynamo",
    "torchvision",
    "transformers",
}


def printed_and_imported(statement: str) -> tuple[str, set[str]]:
    """What a fresh interpreter prints for a statement, and the modules that it has then."""
    program = "import atexit, sys; atexit.register(lambda: print('MODULES', *sys.modules)); "
    run = subprocess.run(
        [sys.executable, "-c", program + statement], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    printed, _, modules = run.stdout.partition("MODULES")
    return printed, set(modules.split())


def test_the_list_of_commands_needs_no_pytorch():
    listed, imported = printed_and_imported("from adanat.cli import main; main(['--help'])")
    assert all(name in listed for name in COMMANDS)
    assert not {"torch", "numpy", "accelerate", *SLOW} & imported


@pytest.mark.parametrize(
    "modules",
    ["natgen, vqtok, policyrl, advreward", "adanat.commands.stages", "adanat.evaluation.commands"],
)
def test_slow_libraries_wait_until_they_are_used(modules):
    _, imported = printed_and_imported(f"import {modules}")
    assert "torch" in imported
    assert not SLOW & imported


@pytest.mark.parametrize(("rank", "shown"), [("0", "natgen.attention: chosen\n"), ("1", "")])
def test_one_process_tells_what_natgen_chose(rank, shown):
    program = (
        "import logging; from adanat import cli; cli._show_logs(); "
        "logging.getLogger('natgen.attention').info('chosen'); logging.info('of others')"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "RANK": rank},
    )
    assert (run.returncode, run.stderr) == (0, shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_where_the_list_says(name):
    function = COMMANDS[name].load()
    assert inspect.signature(function).parameters


def test_what_is_no_command_is_refused_with_the_list(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["trian", "tiny"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "trian" in error
    assert "train-tokenizer" in error


def test_a_command_shows_its_options(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["export-pipeline", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: adanat export-pipeline ")
    assert "Save tokenizer, transformer and policy" in shown
    assert "--to" in shown


def test_an_error_of_the_users_side_has_no_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["sample", "tiny", "--output-dir", str(tmp_path)])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("adanat: error: ")
