"""What a benchmark will take, before anything is spent: sizes, GPU-hours, disk, what is missing.

Every estimate shows its formula.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from adanat.errors import DataError
from adanat.network_costs import (
    Forward,
    nat_config,
    num_positions,
    text_flops,
    text_tower,
    tokenizer_cost,
    transformer_cost,
)
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
_HELD_OUT = 10_000
"""Training samples that `adanat prepare` holds out for validation, unless told otherwise."""
_NEIGHBOURS = 6
"""Schedules that a round of the search tries."""
_CONTESTANTS = 4
"""Hand-made, tuned, learned, and the learned one's average; a searched one makes five."""


class DataSetSize(NamedTuple):
    """A data set as published."""

    train: int
    test: int
    captions_per_image: int
    gigabytes: float
    is_rewritten: bool
    """Whether `adanat prepare` writes shards of its own, as large as the published files."""
    source: str


DATA_SETS = {
    "imagenet": DataSetSize(1_281_167, 50_000, 0, 155, True, IMAGENET_SOURCE),
    "coco": DataSetSize(82_783, 40_504, 5, 20, True, COCO_SOURCE),
    # Fewer every year, because addresses vanish; 25 kB an image is a guess for 256 pixels.
    "cc3m": DataSetSize(
        3_318_333,
        15_840,
        1,
        83,
        False,
        "the lists of addresses from https://ai.google.com/research/ConceptualCaptions, fetched by "
        "`img2dataset --output_format webdataset --image_size 256`",
    ),
}


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
    """How much there is to do, in samples."""

    images: int
    items: int
    """To tokenize: an image to learn from counts for each caption and for its mirror image."""
    captions: int
    """That the transformer learns from or is measured with, the three empty ones left out."""
    seen: int
    """By the transformer in training; 0 where it is taken over."""
    searched: int
    """Of the search for the schedule."""
    searched_more: int
    """Of the search at each larger number of steps."""
    searched_static: int
    """Of the search without gradients; 0 where it is no part of the run."""
    episodes: int
    """That the policies learn from."""
    rollouts: int
    """Of the policies: episodes and validations."""
    evaluated: int
    """Of one policy's evaluation, over all seeds."""

    @property
    def contestants(self) -> int:
        """Policies that are evaluated at the recipe's number of steps."""
        return _CONTESTANTS + bool(self.searched_static)


def plan(recipe: Recipe, data_dir: Path | None, *, gpu_tflops: float) -> Plan:
    """Estimate a benchmark.

    Args:
        recipe: A benchmark.
        data_dir: The prepared data, if they are there; their sizes then replace the published ones.
        gpu_tflops: 10^12 operations a second that a GPU really reaches.
    """
    if not gpu_tflops > 0:
        raise ValueError(f"gpu_tflops must be positive, got {gpu_tflops}")
    encoder, decoder = tokenizer_cost(recipe)
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
            f"{num_positions(config)} positions",
        ),
        stages=_stages(recipe, amounts(recipe, data_dir), encoder, decoder, nat),
        missing=_missing(recipe, data_dir),
        gpu_tflops=gpu_tflops,
    )


def amounts(recipe: Recipe, data_dir: Path | None) -> Amounts:
    """How much a benchmark has to do, on the prepared data or on as many as are published."""
    splits = _splits(recipe, data_dir)
    held_out = splits["validation"] + splits["test"]
    captions_per_image = DATA_SETS[recipe.data.source].captions_per_image
    to_learn_from = splits["fit"] * max(1, captions_per_image)
    generator, search, evaluation = recipe.generator, recipe.schedule, recipe.evaluation
    grid = (
        len(search.remask_temperatures)
        * len(search.sampling_temperatures)
        * len(search.guidance_scales)
    )
    around = _NEIGHBOURS * search.refinement_rounds
    return Amounts(
        images=sum(splits.values()),
        items=to_learn_from * (2 if recipe.tokens.mirrored else 1) + held_out,
        captions=to_learn_from + held_out if captions_per_image else 0,
        seen=0 if generator.weights else generator.training.total_steps * generator.batch_size,
        searched=(grid + around) * search.num_samples,
        searched_more=around * search.num_samples,
        searched_static=(
            (recipe.static_search.image_budget or recipe.images_per_policy)
            if recipe.static_search.included
            else 0
        ),
        episodes=recipe.num_policy_cycles
        * recipe.policy.episodes_per_update
        * len(recipe.policy.seeds),
        rollouts=recipe.images_per_policy * len(recipe.policy.seeds),
        evaluated=len(evaluation.seeds) * evaluation.num_samples,
    )


def unequal_batches(recipe: Recipe, num_processes: int) -> list[str]:
    """Batches that so many processes cannot share equally, as "OPTION SIZE"."""
    batches = {
        "tokenizer.batch_size": recipe.tokenizer.batch_size,
        "generator.batch_size": recipe.generator.batch_size,
        "reward.batch_size": recipe.reward.batch_size,
        "policy.episodes_per_update": recipe.policy.episodes_per_update,
    }
    return [f"{name} {size}" for name, size in batches.items() if size % num_processes]


def missing_weights(recipe: Recipe) -> list[Path]:
    """Files that are named but not there: models to take over, and those of a fixed reward."""
    taken_over = [recipe.tokenizer.weights, recipe.generator.weights]
    missing = [path for path in taken_over if path is not None and not path.exists()]
    return missing + missing_reward_files(recipe)


def missing_reward_files(recipe: Recipe) -> list[Path]:
    """Those of a fixed reward that are named but not there."""
    reward, named = recipe.reward, []
    if reward.design == "pretrained" and reward.scorer == "image-reward":
        named.append(Path(reward.scorer_weights))
    if reward.design == "pretrained" and reward.prompts:
        named.append(Path(reward.prompts))
    return [path for path in named if not path.exists()]


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


def _splits(recipe: Recipe, data_dir: Path | None) -> Mapping[str, int]:
    """Sizes of the splits; those of the published data where none are prepared."""
    try:
        if data_dir is not None:
            return read_prepared(data_dir).splits
    except DataError:
        pass  # `_missing` tells
    size = DATA_SETS[recipe.data.source]
    return {"fit": size.train - _HELD_OUT, "validation": _HELD_OUT, "test": size.test}


def _stages(
    recipe: Recipe, todo: Amounts, encoder: Forward, decoder: Forward, nat: Forward
) -> tuple[StagePlan, ...]:
    steps, more_steps = recipe.num_decoding_steps, recipe.schedule.comparison_steps

    def drawing(samples: int, *step_counts: int) -> float:
        passes = 2 * sum(step_counts)
        return samples * (passes * nat.flops + len(step_counts) * decoder.flops) / 1e15

    found = [_data(recipe, todo)]
    if recipe.tokenizer.weights is None:
        pictures = recipe.tokenizer.total_steps * recipe.tokenizer.batch_size
        found.append(
            StagePlan(
                "train-tokenizer",
                f"{recipe.tokenizer.total_steps:,} steps of {recipe.tokenizer.batch_size}",
                "3 x (encode + decode) x batch x steps, without frozen features, discriminator",
                3 * (encoder.flops + decoder.flops) * pictures / 1e15,
                _checkpoints(encoder.parameters + decoder.parameters),
            )
        )
    height, width = recipe.tokenizer.model.grid_size
    found.append(
        StagePlan(
            "tokenize",
            f"{todo.items:,} items",
            "encode x items; 2 bytes a code",
            encoder.flops * todo.items / 1e15,
            todo.items * height * width * 2 / _GIGA,
        )
    )
    if recipe.text.encoder is not None:
        found.append(_captions(recipe, todo))
    if recipe.generator.weights is None:
        training = recipe.generator.training
        found.append(
            StagePlan(
                "train-generator",
                f"{training.total_steps:,} steps of {recipe.generator.batch_size}",
                "3 x pass x batch x steps",
                3 * nat.flops * todo.seen / 1e15,
                _checkpoints(nat.parameters),
            )
        )
    found += [
        StagePlan(
            "search-schedule",
            f"at most {todo.searched:,} samples of the grid and around its winner",
            "(2 x T passes + decode) x samples",
            drawing(todo.searched, steps),
            0.0,
        ),
        *_static_search(todo, drawing(todo.searched_static, steps)),
        StagePlan(
            "train-policy",
            f"{todo.rollouts:,} episodes and samples for validation",
            "(2 x T passes + decode) x episodes, without PPO and backbone",
            drawing(todo.rollouts, steps),
            1.0,
        ),
        StagePlan(
            "search-more-steps",
            f"at most {todo.searched_more:,} samples at each T of {more_steps}",
            "(2 x T passes + decode) x samples",
            drawing(todo.searched_more, *more_steps),
            0.0,
        ),
        StagePlan(
            "evaluate",
            f"{todo.evaluated:,} samples of {todo.contestants} policies, and at each T of "
            f"{more_steps}",
            "(2 x T passes + decode) x samples",
            drawing(todo.evaluated, *[steps] * todo.contestants, *more_steps),
            0.1,
        ),
    ]
    return tuple(found)


def _static_search(todo: Amounts, petaflops: float) -> Iterator[StagePlan]:
    if todo.searched_static:
        yield StagePlan(
            "search-static",
            f"{todo.searched_static:,} samples",
            "(2 x T passes + decode) x samples",
            petaflops,
            0.0,
        )


def _data(recipe: Recipe, todo: Amounts) -> StagePlan:
    size = DATA_SETS[recipe.data.source]
    if size.is_rewritten:
        formula = "the published files, and as much again for the shards made of them"
        return StagePlan("data", f"{todo.images:,} images", formula, 0.0, 2 * size.gigabytes)
    formula = "img2dataset's shards, where they lie"
    return StagePlan("data", f"{todo.images:,} images", formula, 0.0, size.gigabytes)


def _captions(recipe: Recipe, todo: Amounts) -> StagePlan:
    """Encoding the captions, once or whenever one is needed."""
    width = text_tower(recipe).width
    gigabytes = todo.captions * recipe.text.num_tokens * width * _FEATURE_BYTES / _GIGA
    if recipe.text.stored:
        encoded, how, disk = todo.captions, "encode x captions, kept", gigabytes
    else:
        encoded = todo.seen + todo.rollouts
        how, disk = "encode x (batch x steps + episodes), on the fly", 0.0
    price = f"tokens x width x {_FEATURE_BYTES} bytes x captions = {gigabytes:,.0f} GB if kept"
    return StagePlan(
        "captions",
        f"{todo.captions:,} captions",
        f"{how}; {price}",
        text_flops(recipe) * encoded / 1e15,
        disk,
    )


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
    found += [f"{path} does not exist" for path in missing_weights(recipe)]
    found += [
        f"{what}: fetched from the hub ({name}) when first used; without a network give {option}"
        for what, name, option in _hub_models(recipe)
        if not Path(name).exists()
    ]
    return tuple(found)


def _hub_models(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """What a model is, where it comes from, and the option that names a file or folder instead."""
    reward, encoder = recipe.reward, recipe.text.encoder
    if reward.backbone == "dino" and reward.needs_backbone:
        yield "DINO ViT-S/16", reward.dino_weights, "--reward.dino-weights FILE"
    if encoder is not None and encoder.startswith("clip:"):
        yield "text encoder", encoder.removeprefix("clip:"), "--text.encoder clip:FOLDER"
    if reward.design == "pretrained" and reward.scorer == "clip":
        yield "CLIP of the reward", reward.scorer_weights, "--reward.scorer-weights FOLDER"
    if reward.design == "pretrained" and reward.scorer == "image-reward":
        yield "BERT's tokenizer", reward.scorer_tokenizer, "--reward.scorer-tokenizer FOLDER"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M parameters"
