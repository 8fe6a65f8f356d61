"""The trained models behind generated images: of a run, or of a saved pipeline."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from natgen import NAT, DecodingPolicy, StaticSchedule, TextEncoder
from policyrl import GaussianPolicy
from torch import nn
from vqtok import Tokenizer

from adanat.checkpoints import read_json
from adanat.contestants import (
    ADAPTIVE,
    ADAPTIVE_STATIC,
    STATIC,
    STATIC_SEARCHED,
    STATIC_TUNED,
    tuned_at,
)
from adanat.errors import StageError
from adanat.generation import DTYPES, Precision, cast_networks
from adanat.pipeline import INDEX_FILE, NATPipeline
from adanat.run import load_model
from adanat.run_folder import RunFolder
from adanat.runs import CONFIG_FILE, DONE_FILE, refuse_stale
from adanat.schedule_points import SchedulePoint, default_point

Network = TypeVar("Network", bound=nn.Module)


def holds_models(path: Path) -> bool:
    """Whether a folder is that of a run with trained models, or of a saved pipeline."""
    folder = RunFolder(path)
    in_run = folder.tokenizer_model.is_dir() and folder.generator_model.is_dir()
    return in_run or _is_pipeline(path)


@dataclass(frozen=True, kw_only=True)
class Models:
    """What makes images: the two networks and a decoding policy.

    Attributes:
        name: Where they come from and which policy, for tables.
        nat: The transformer, in evaluation mode and frozen.
        tokenizer: Its decoder makes the pixels.
        policy: Decides every step.
        text_encoder: Makes the conditions of captions, where the folder says which one does.
        precision: Of the weights of transformer and picture decoder.
    """

    name: str
    nat: NAT
    tokenizer: Tokenizer
    policy: DecodingPolicy
    text_encoder: TextEncoder | None = None
    precision: Precision = "fp32"

    @classmethod
    def load(
        cls,
        root: Path,
        *,
        policy: str,
        num_steps: int | None,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> "Models":
        """Read the folder of a run or of a saved pipeline.

        Args:
            root: The folder.
            policy: Name of the decoding policy: of a run as `load_policy` takes it, of a pipeline
                as `NATPipeline` does.
            num_steps: Decoding steps of a schedule that has any number; None for the others.
            device: Where the networks run.
            precision: In which transformer and picture decoder run; policies stay in float32.

        Raises:
            AdanatError: A model is missing or damaged, or a run has no such policy.
            ValueError: Unknown policy, or a number of steps that it does not decode in.
        """
        text_encoder = None
        if _is_pipeline(root):
            pipeline = NATPipeline.from_pretrained(root)
            nat, tokenizer = pipeline.generator, pipeline.tokenizer
            decoding = pipeline.decoding_policy(policy, num_steps)
            if isinstance(decoding, nn.Module):
                _frozen(decoding, device)
            text_encoder = pipeline.text_encoder
        else:
            folder = RunFolder(root)
            nat = load_model(NAT.from_pretrained, folder.generator_model)
            tokenizer = load_model(Tokenizer.from_pretrained, folder.tokenizer_model)
            decoding = load_policy(folder, policy, num_steps, device)
        cast_networks(nat, tokenizer, DTYPES[precision])
        return cls(
            name=f"{root}, policy {policy}" + ("" if precision == "fp32" else f", {precision}"),
            nat=_frozen(nat, device),
            tokenizer=_frozen(tokenizer, device),
            policy=decoding,
            text_encoder=text_encoder,
            precision=precision,
        )

    def feed(self, update: Callable[[bytes], None]) -> None:
        """Hand all settings and weights to a hash, the weights in the precision that they have."""
        modules: list[nn.Module] = [self.nat, self.tokenizer]
        update(repr((self.nat.config, self.tokenizer.config, self.policy.num_steps)).encode())
        if isinstance(self.policy, StaticSchedule):
            update(repr(self.policy).encode())
        elif isinstance(self.policy, GaussianPolicy):
            update(json.dumps(self.policy.spec.to_config(), sort_keys=True).encode())
            modules.append(self.policy)
        feed_weights(modules, update)


def feed_weights(modules: Sequence[nn.Module], update: Callable[[bytes], None]) -> None:
    """Hand all weights to a hash, with the libraries and devices that may make other images."""
    update(repr([version(name) for name in ("natgen", "policyrl", "torch", "vqtok")]).encode())
    for module in modules:
        for name, tensor in module.state_dict().items():
            update(f"{name} {tensor.device.type}".encode())
            update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def load_policy(
    folder: RunFolder, name: str, num_steps: int | None, device: torch.device
) -> DecodingPolicy:
    """A decoding policy of a run by the name that its evaluation uses.

    Args:
        folder: The run.
        name: `static` (the published schedule, at any number of steps), `static_tuned` (the
            winner of the grid), `static_tuned_T8` (tuned at 8 steps), `static_searched` (searched
            without gradients), `adaptive` (policy seed 0), `adaptive_1` (seed 1), or
            `adaptive_static` (the average of seed 0).
        num_steps: Steps of `static`, which needs them; the others have their own.
        device: Where a learned policy runs.

    Raises:
        StageError: The run has no such policy, or it was made for another transformer.
        ValueError: Unknown name, or steps given or left out wrongly.
    """
    if (name == STATIC) != (num_steps is not None):
        raise ValueError(
            f"num_steps is {num_steps} for policy {name!r}: `static` needs a number of steps, "
            "every other policy has its own"
        )
    if num_steps is not None:
        return default_point(num_steps).schedule()
    if name == STATIC_TUNED:
        refuse_stale(folder.schedule, folder.of_stage)
        return _searched(folder.schedule)["best"].schedule()
    if name == STATIC_SEARCHED:
        refuse_stale(folder.static_search, folder.of_stage)
        return StaticSchedule(torch.tensor(stage_results(folder.static_search)["values"]))
    if name.startswith(tuned_at(0)[:-1]):
        refuse_stale(folder.more_steps, folder.of_stage)
        points = _searched(folder.more_steps)
        if name not in points:
            raise StageError(f"{folder.more_steps} has no {name}; it has {', '.join(points)}")
        return points[name].schedule()
    base, _, seed = name.partition("_")
    if base != ADAPTIVE or not (seed in ("", "static") or seed.isdecimal()):
        raise ValueError(
            f"unknown policy {name!r}: give static, static_tuned, static_tuned_T8 (for 8 steps), "
            "static_searched, adaptive, adaptive_1 (for policy seed 1) or adaptive_static"
        )
    number = int(seed) if seed.isdecimal() else 0
    refuse_stale(folder.policy(number), folder.of_stage)
    learned = load_model(GaussianPolicy.from_pretrained, folder.policy_model(number))
    learned = _frozen(learned, device)
    return StaticSchedule(learned.to_static()) if name == ADAPTIVE_STATIC else learned


def trained_text_encoder(root: Path) -> str:
    """Name of the text encoder that a run's transformer was trained with, as its stage notes it.

    Raises:
        StageError: The run does not say: it was trained on classes, or its notes are missing.
    """
    notes = RunFolder(root).generator / CONFIG_FILE
    text = read_json(notes)["config"].get("text") if notes.is_file() else None
    if text is None:
        raise StageError(f"{notes} names no text encoder: name it by --text-encoder")
    return str(text["encoder"])


def _is_pipeline(path: Path) -> bool:
    return (path / INDEX_FILE).is_file()


def _frozen(model: Network, device: torch.device) -> Network:
    return model.to(device).eval().requires_grad_(False)


def _searched(folder: Path) -> dict[str, SchedulePoint]:
    """The schedules that a search stage found: `best`, or by the names of the step counts."""
    results = stage_results(folder)
    if "best" in results:
        return {"best": SchedulePoint(**results["best"])}
    points = [SchedulePoint(**point) for point in results["points"]]
    return {tuned_at(point.num_steps): point for point in points}


def stage_results(folder: Path) -> dict[str, Any]:
    """What a finished stage left."""
    path = folder / DONE_FILE
    if not path.is_file():
        raise StageError(f"{folder} is not finished: run that stage first")
    results: dict[str, Any] = read_json(path)["results"]
    return results
