"""Weights & Biases is asked only when wanted, and missed with advice."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from adanat.errors import AdanatError
from adanat.tracking import mirror_to_wandb


def test_without_the_package_the_message_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(AdanatError, match=r"pip install 'adanat\[wandb\]'"):
        mirror_to_wandb("project", tmp_path)


def test_a_resumed_run_keeps_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, object]] = []
    fake = SimpleNamespace(init=lambda **arguments: calls.append(arguments))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        mirror_to_wandb("project", folder)
    assert calls[0] == calls[1]
    assert calls[0]["id"] != calls[2]["id"]
    assert (calls[0]["project"], calls[0]["name"], calls[0]["resume"]) == ("project", "a", "allow")
    assert calls[0]["sync_tensorboard"] is True
