"""One decoding step against the recorded numbers of the published one."""

import json
from pathlib import Path

import pytest
import torch
from natgen import (
    DecodingState,
    NoiseSource,
    Observation,
    StepNoise,
    apply,
    confidence,
    guide,
    remask,
)
from safetensors import safe_open
from torch import Tensor

INPUTS = (
    "logits_cond",
    "logits_uncond",
    "masked_ids",
    "mask_ratio",
    "remask_temperature",
    "sampling_temperature",
    "guidance_scale",
    "sampled_ids",
    "gumbel",
)
OUTPUTS = ("guided_logits", "sampled_ids", "confidence", "masked_ids")


@pytest.fixture(scope="session")
def decode_step(reference_dir: Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    with safe_open(reference_dir / "decode_step.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_every_recorded_step(decode_step: tuple[dict, dict[str, Tensor]]) -> None:
    config, tensors = decode_step
    assert config["cases"]
    for case in config["cases"]:
        given = {n: tensors[f"{case}in.{n}"] for n in INPUTS}
        expected = {n: tensors[f"{case}out.{n}"] for n in OUTPUTS}
        guided = guide(given["logits_cond"], given["logits_uncond"], given["guidance_scale"])
        masked = given["masked_ids"] == config["mask_id"]
        drawn = torch.where(masked, given["sampled_ids"], given["masked_ids"])
        certainty = confidence(
            guided,
            drawn,
            masked,
            given["remask_temperature"],
            given["gumbel"],
        )
        after = remask(drawn, certainty, given["mask_ratio"], config["mask_id"])

        close = {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(guided, expected["guided_logits"], **close, msg=case)
        assert torch.equal(drawn, expected["sampled_ids"]), case
        assert torch.equal(certainty.isinf(), expected["confidence"].isinf()), case
        torch.testing.assert_close(certainty, expected["confidence"], **close, msg=case)
        assert torch.equal(after, expected["masked_ids"]), case


def test_following_step_starts_from_the_main_batch(
    decode_step: tuple[dict, dict[str, Tensor]],
) -> None:
    _, tensors = decode_step
    assert torch.equal(tensors["case1.in.masked_ids"], tensors["out.masked_ids"])


class RecordedNoise(NoiseSource):
    """Hands out the given Gumbel numbers instead of its own."""

    def __init__(self, gumbel: Tensor) -> None:
        super().__init__(0)
        self.gumbel = gumbel

    def step(self, sample_indices: Tensor, step: int, length: int) -> StepNoise:
        return StepNoise(torch.full_like(self.gumbel, 0.5), self.gumbel)


def test_apply_with_the_recorded_noise(
    decode_step: tuple[dict, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole step, given what the published one drew: no uniform number is sure to give it."""
    config, tensors = decode_step
    for case in config["cases"]:
        given = {n: tensors[f"{case}in.{n}"] for n in INPUTS}
        monkeypatch.setattr("natgen.decoding.draw", lambda *_, ids=given["sampled_ids"]: ids)
        size = len(given["masked_ids"])
        state = DecodingState(
            tokens=given["masked_ids"],
            drawn=given["masked_ids"],
            condition=torch.zeros(size, dtype=torch.int64),
            sample_indices=torch.arange(size),
            timestep=1,
            num_rows=0,
        )
        observation = Observation(
            torch.zeros(size, 1, 1), given["logits_cond"], given["logits_uncond"], 2 * size
        )
        after = apply(state, observation, given, RecordedNoise(given["gumbel"]))
        assert torch.equal(after.drawn, tensors[f"{case}out.sampled_ids"]), case
        assert torch.equal(after.tokens, tensors[f"{case}out.masked_ids"]), case
        assert (after.timestep, after.num_rows) == (2, 2 * size)
