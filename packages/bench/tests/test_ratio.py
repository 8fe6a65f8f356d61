"""The comparison with the published loop: pairs, turns, time limit."""

from __future__ import annotations

import dataclasses
import itertools
import json

import natgen
import pytest
from natbench import PRESETS, Contest, Round, measure, picture_seconds, ratios
from natbench.cli import main

NAT = PRESETS["tiny"]().nat


def test_ratios_are_medians_over_rounds_not_ratios_of_medians() -> None:
    rounds = [Round(9.0, 6.0, 7.5), Round(90.0, 45.0, 60.0), Round(0.9, 0.9, 0.6)]
    assert ratios({"L": rounds}) == {"L": 1.5, "L_cold": 1.5}
    assert ratios({"S": rounds[:1]}, besides=3.0) == {"S": 12 / 9, "S_cold": 12 / 10.5}


def test_pictures_take_time() -> None:
    assert picture_seconds(PRESETS["tiny"]().tokenizer, 2) > 0


def test_command_prints_one_json_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = PRESETS["tiny"]()
    for size in ("nat_l", "nat_s"):
        monkeypatch.setattr(f"natbench.cli.{size}", lambda: NAT)
    monkeypatch.setattr("natbench.cli.f16_vqgan", lambda: preset.tokenizer)
    assert main(["ratio", "--minutes=0"]) == 0
    printed = capsys.readouterr()
    assert set(json.loads(printed.out)) == {
        f"{size}256_T{steps}{suffix}"
        for size, steps, suffix in itertools.product("LS", (4, 8), ("", "_cold"))
    }
    assert "L256_T4 reference:" in printed.err
    assert "for the pictures" in printed.err


def test_every_contest_gets_as_many_rounds_as_the_time_allows() -> None:
    contests = [Contest(name=f"T{steps}", nat=NAT, num_steps=steps) for steps in (1, 2)]
    ticks = itertools.count()
    rounds = measure(contests, seconds=50, clock=lambda: float(next(ticks)))
    assert set(rounds) == {"T1", "T2"}
    # A turn reads the clock 15 times: at 50 ticks no fourth one may begin.
    assert [len(measured) for measured in rounds.values()] == [3, 3]
    assert all(each == Round(1.0, 1.0, 1.0) for each in rounds["T1"])


def test_one_round_is_made_however_short_the_time() -> None:
    rounds = measure([Contest(name="T2", nat=NAT, num_steps=2)], seconds=0)
    assert len(rounds["T2"]) == 1
    assert min(rounds["T2"][0]) > 0


def test_sides_run_the_passes_that_their_names_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[int] = []
    forward = natgen.NAT.forward

    def counted(self, tokens, condition):
        passed.append(len(tokens))
        return forward(self, tokens, condition)

    monkeypatch.setattr("natgen.NAT.forward", counted)
    measure([Contest(name="T3", nat=NAT, num_steps=3, batch_size=4)], seconds=0)
    kept = [4, 1, 1]  # ahead of all timing
    reference, warm, cold = [4] * 7, [4] * 4, [4] * 5
    assert passed == kept + reference + warm + cold


def test_bad_contests_are_refused() -> None:
    with pytest.raises(ValueError, match="num_steps and batch_size must be positive, got 0 and 4"):
        Contest(name="x", nat=NAT, num_steps=0)
    with pytest.raises(ValueError, match="a class for each of the 4 images of a batch, got 3"):
        Contest(name="x", nat=dataclasses.replace(NAT, num_classes=3), num_steps=1)
    with pytest.raises(ValueError, match="give at least one contest"):
        measure([], seconds=1)
