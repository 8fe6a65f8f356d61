"""What a benchmark will take, before anything is spent: sizes, GPU-hours, disk, what is missing.

Every estimate shows its formula. Operations of the tokenizer are counted by torch on tensors
without data, those of the transformer follow from its sizes; both are tested against each other.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from natgen import NAT, NATConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from vqtok import Tokenizer

from adanat.errors import DataError
from adanat.prepare import read_prepared
from adanat.prepare.coco import WHERE_TO_GET as COCO_SOURCE
from adanat.prepare.imagenet import WHERE_TO_GET as IMAGENET_SOURCE
from adanat.recipes.base import Recipe

_GIGA = 1e9
_SECONDS_PER_HOUR = 3600.0
_FEATURE_BYTES = 2
"""Of fp16."""
_KEPT_CHECKPOINTS = 3
"""While the third is written, two are kept."""


class DataSetSize(NamedTuple):
    """A data set as published."""

    train: int
    test: int
    captions_per_image: int
    gigabytes: float
    source: str


DATA_SETS = {
    "imagenet": DataSetSize(1_281_167, 50_000, 0, 155, IMAGENET_SOURCE),
    "coco": DataSetSize(82_783, 40_504, 5, 20, COCO_SOURCE),
    # Fewer every year, because addresses vanish; 25 kB an image is a guess for 256 pixels.
    "cc3m": DataSetSize(
        3_318_333,
        15_840,
        1,
        83,
        "the lists of addresses from https://ai.google.com/research/ConceptualCaptions, fetched by "
        "`img2dataset --output_format webdataset --image_size 256`",
    ),
}
_NEIGHBOURS = 6
"""Schedules that a round of the search tries."""
_CONTESTANTS = 4
"""Hand-made, tuned, learned, and the learned one's average."""
_TEXT_FEATURES = {"clip:openai/clip-vit-large-patch14": 768}
_BIGG_FEATURES = 1280


class StagePlan(NamedTuple):
    """What one stage takes."""

    stage: str
    what: str
    formula: str
    petaflops: float
    gigabytes: float


class Plan(NamedTuple):
    """What a benchmark takes."""

    title: str
    models: tuple[str, ...]
    stages: tuple[StagePlan, ...]
    missing: tuple[str, ...]
    gpu_tflops: float

    def gpu_hours(self, stage: StagePlan) -> float:
        """Hours of one GPU at the assumed speed."""
        return stage.petaflops * 1000 / self.gpu_tflops / _SECONDS_PER_HOUR


class Amounts(NamedTuple):
    """How much there is to do."""

    images: int
    items: int
    """To tokenize: an image counts once for each caption and for its mirror image."""
    searched: int
    """Samples of the search for the schedule."""
    episodes: int
    drawn: int
    """Samples of the evaluation."""


class Forward(NamedTuple):
    """A network's cost."""

    parameters: int
    flops: float
    """Of a forward pass of one sample."""


def plan(recipe: Recipe, data_dir: Path | None, *, gpu_tflops: float) -> Plan:
    """Estimate a benchmark.

    Args:
        recipe: A benchmark.
        data_dir: The prepared data, if they are there; their sizes then replace the published ones.
        gpu_tflops: 10^12 operations a second that a GPU really reaches.
    """
    if not gpu_tflops > 0:
        raise ValueError(f"gpu_tflops must be positive, got {gpu_tflops}")
    encoder, decoder = _tokenizer_cost(recipe)
    config = nat_config(recipe)
    nat = transformer_cost(config)
    return Plan(
        title=f"{recipe.name}: {recipe.data.source}, {recipe.data.image_size} px, "
        f"T = {recipe.num_decoding_steps}",
        models=(
            f"tokenizer  {_millions(encoder.parameters + decoder.parameters)}, "
            f"{encoder.flops / _GIGA:.0f} + {decoder.flops / _GIGA:.0f} GFLOP an image "
            "(encode + decode, counted)",
            f"NAT        {_millions(nat.parameters)}, {nat.flops / _GIGA:.0f} GFLOP a pass: "
            f"width {config.embed_dim}, depth {config.depth}, "
            f"{_positions(config)} positions",
        ),
        stages=_stages(recipe, data_dir, encoder, decoder, nat),
        missing=_missing(recipe, data_dir),
        gpu_tflops=gpu_tflops,
    )


def amounts(recipe: Recipe, data_dir: Path | None) -> Amounts:
    """How much a benchmark has to do, on the prepared data or on as many as are published."""
    size, policy = DATA_SETS[recipe.data.source], recipe.policy
    images = size.train + size.test
    if data_dir is not None:
        images = sum(read_prepared(data_dir).splits.values())
    search = recipe.schedule
    grid = (
        len(search.remask_temperatures)
        * len(search.sampling_temperatures)
        * len(search.guidance_scales)
    )
    evaluation = recipe.evaluation
    return Amounts(
        images=images,
        items=images * max(1, size.captions_per_image) * (2 if recipe.tokens.mirrored else 1),
        searched=(grid + _NEIGHBOURS * search.refinement_rounds) * search.num_samples,
        episodes=policy.num_updates * policy.episodes_per_update * len(policy.seeds),
        drawn=_CONTESTANTS * len(evaluation.seeds) * evaluation.num_samples,
    )


def format_plan(found: Plan) -> str:
    """The plan as text."""
    lines = [found.title, "", *found.models, ""]
    lines.append(f"{'stage':<16} {'GPU-hours':>10} {'disk, GB':>9}  how it is estimated")
    for stage in found.stages:
        hours = found.gpu_hours(stage)
        lines.append(
            f"{stage.stage:<16} {hours:>10,.1f} {stage.gigabytes:>9,.1f}  "
            f"{stage.what}: {stage.formula}"
        )
    hours = sum(map(found.gpu_hours, found.stages))
    disk = sum(stage.gigabytes for stage in found.stages)
    lines.append(f"{'in all':<16} {hours:>10,.1f} {disk:>9,.1f}")
    lines += [
        "",
        f"GPU-hours = operations / ({found.gpu_tflops:g} TFLOP/s reached, an assumption: "
        "--gpu-tflops). Nothing here was measured; `adanat doctor` times a step of each stage.",
        "",
    ]
    lines += ["missing:", *(f"  - {what}" for what in found.missing)] if found.missing else []
    return "\n".join(lines)


def transformer_cost(config: NATConfig) -> Forward:
    """Parameters, and 2 x parameters x positions + 4 x blocks x positions^2 x width operations.

    A multiplication and an addition are two operations. Embedding tables cost nothing, except the
    codes' one, which also makes the logits.
    """
    with torch.device("meta"):
        model = NAT(config)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    weights = [p for p in model.parameters() if p.ndim > 1 and id(p) not in tables]
    codes = config.codebook_size * config.embed_dim
    positions = _positions(config)
    image_positions = positions - config.num_context_tokens
    dense = sum(p.numel() for p in weights if p.shape[0] != 1)
    attention = 4 * (config.depth + 1) * positions**2 * config.embed_dim
    patches = config.patch_size**2
    flops = 2 * dense * positions + attention + 2 * codes * image_positions * patches
    return Forward(sum(p.numel() for p in model.parameters()), float(flops))


def _positions(config: NATConfig) -> int:
    height, width = config.grid_size
    return height * width // config.patch_size**2 + config.num_context_tokens


def nat_config(recipe: Recipe) -> NATConfig:
    """Sizes of a benchmark's transformer."""
    by_class = recipe.text.encoder is None
    return NATConfig(
        codebook_size=recipe.tokenizer.model.codebook_size,
        grid_size=recipe.tokenizer.model.grid_size,
        patch_size=recipe.generator.patch_size,
        embed_dim=recipe.generator.embed_dim,
        depth=recipe.generator.depth,
        num_heads=recipe.generator.num_heads,
        num_classes=recipe.data.num_classes if by_class else None,
        context_dim=None if by_class else _text_dim(recipe),
        num_context_tokens=1 if by_class else recipe.text.num_tokens,
    )


def _text_dim(recipe: Recipe) -> int:
    return _TEXT_FEATURES.get(recipe.text.encoder or "", _BIGG_FEATURES)


def _tokenizer_cost(recipe: Recipe) -> tuple[Forward, Forward]:
    """Encoder and decoder, counted by torch on tensors without data."""
    size, (height, width) = recipe.data.image_size, recipe.tokenizer.model.grid_size
    with torch.device("meta"):
        model = Tokenizer(recipe.tokenizer.model)
        inputs = (
            (model.encoder, torch.empty(1, 3, size, size)),
            (model.decoder, torch.empty(1, recipe.tokenizer.model.codebook_dim, height, width)),
        )
        found = []
        for module, argument in inputs:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                module(argument)
            parameters = sum(p.numel() for p in module.parameters())
            found.append(Forward(parameters, float(counter.get_total_flops())))
    return found[0], found[1]


def _stages(
    recipe: Recipe, data_dir: Path | None, encoder: Forward, decoder: Forward, nat: Forward
) -> tuple[StagePlan, ...]:
    size, training = DATA_SETS[recipe.data.source], recipe.generator
    images, items, searched, episodes, drawn = amounts(recipe, data_dir)
    codes = recipe.tokenizer.model.grid_size[0] * recipe.tokenizer.model.grid_size[1]
    coder = encoder.flops + decoder.flops
    drawing = 2 * recipe.num_decoding_steps * nat.flops + decoder.flops
    captions = size.train * size.captions_per_image
    feature_bytes = recipe.text.num_tokens * _text_dim(recipe) * _FEATURE_BYTES
    found = [StagePlan("data", "as published", f"{images:,} images", 0.0, size.gigabytes)]
    if recipe.tokenizer.weights is None:
        seen = recipe.tokenizer.total_steps * recipe.tokenizer.batch_size
        found.append(
            StagePlan(
                "train-tokenizer",
                "updates",
                "3 x (encode + decode) x batch x steps, without the frozen features",
                3 * coder * seen / 1e15,
                _checkpoints(encoder.parameters + decoder.parameters),
            )
        )
    found.append(
        StagePlan(
            "tokenize",
            f"{items:,} items",
            "encode x items; 2 bytes a code",
            encoder.flops * items / 1e15,
            items * codes * 2 / _GIGA,
        )
    )
    if recipe.text.encoder is not None:
        held = "kept: captions x tokens x width x 2 bytes" if recipe.text.stored else "on the fly"
        would = captions * feature_bytes / _GIGA
        found.append(
            StagePlan(
                "captions",
                f"{captions:,} captions, {would:,.0f} GB if kept",
                held,
                0.0,
                would if recipe.text.stored else 0.0,
            )
        )
    if training.weights is None:
        seen = training.training.total_steps * training.batch_size
        found.append(
            StagePlan(
                "train-generator",
                f"{training.training.total_steps:,} steps of {training.batch_size}",
                "3 x pass x batch x steps",
                3 * nat.flops * seen / 1e15,
                _checkpoints(nat.parameters),
            )
        )
    found += [
        StagePlan(
            "search-schedule",
            f"about {searched:,} samples of the grid and around its winner",
            "(2 x T passes + decode) x samples",
            drawing * searched / 1e15,
            0.0,
        ),
        StagePlan(
            "train-policy",
            f"{episodes:,} episodes",
            "(2 x T passes + decode) x episodes, without PPO and backbone",
            drawing * episodes / 1e15,
            1.0,
        ),
        StagePlan(
            "evaluate",
            f"{drawn:,} samples of {_CONTESTANTS} policies",
            "(2 x T passes + decode) x samples",
            drawing * drawn / 1e15,
            0.1,
        ),
    ]
    return tuple(found)


def _checkpoints(parameters: int) -> float:
    """Weights, two moments and the average, in fp32."""
    return _KEPT_CHECKPOINTS * 4 * 4 * parameters / _GIGA


def _missing(recipe: Recipe, data_dir: Path | None) -> tuple[str, ...]:
    found: list[str] = []
    source = recipe.data.source
    if data_dir is None:
        found.append(
            f"--data-dir: run `adanat prepare {source} --output DIR`. "
            f"It needs {DATA_SETS[source].source}."
        )
    else:
        try:
            index = read_prepared(data_dir)
            if index.dataset != source:
                found.append(f"--data-dir {data_dir} holds {index.dataset}, not {source}")
        except DataError as error:
            found.append(str(error))
    if recipe.tokenizer.weights is None:
        found.append(
            "--tokenizer (or train one): the published f16 VQGAN, vqgan_jax_strongaug.ckpt, linked "
            "from https://github.com/LTH14/mage"
        )
    if recipe.generator.weights is None:
        found.append(
            "--generator (or train one): the authors' NAT checkpoints, linked from "
            "https://github.com/LeapLabTHU/AdaNAT"
        )
    for name, path in (
        ("--tokenizer", recipe.tokenizer.weights),
        ("--generator", recipe.generator.weights),
    ):
        if path is not None and not path.exists():
            found.append(f"{name} {path} does not exist")
    if recipe.reward.backbone == "dino" and not Path(recipe.reward.dino_weights).exists():
        found.append(
            f"DINO ViT-S/16: fetched from the hub ({recipe.reward.dino_weights}) when first used; "
            "without a network give --reward.dino-weights FILE"
        )
    if recipe.text.encoder is not None and recipe.text.encoder.startswith("clip:"):
        name = recipe.text.encoder.removeprefix("clip:")
        if not Path(name).exists():
            found.append(
                f"text encoder: fetched from the hub ({name}) when first used; without a network "
                "give --text.encoder clip:FOLDER"
            )
    return tuple(found)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M parameters"
