"""A timed step of each stage of a benchmark, with random weights, and what the whole would take."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from natgen import NAT, DecodingEnvironment, NATTrainer, NoiseSource, generate
from policyrl import PPOTrainer
from torch import Tensor
from vqtok import Tokenizer, TokenizerTrainer

from adanat.conditions import CaptionConditions, ClassConditions, RunConditions
from adanat.engine import AccelerateEngine
from adanat.generation import decode_grids
from adanat.network_costs import nat_config, tokenizer_cost, transformer_cost
from adanat.plan import Amounts
from adanat.policy_models import FEATURE_DTYPES, policy_networks
from adanat.recipes.base import Recipe
from adanat.schedule_points import default_point

_TIMED = 3
"""Runs of which the fastest counts, after one to warm up."""


class TimedStage(NamedTuple):
    """What a step of a stage takes on one device."""

    name: str
    seconds: float
    batch_size: int
    total: int
    """Samples of the whole stage."""
    flops: float
    """Operations of a sample, as the plan counts them."""
    peak_bytes: int | None
    """Most memory of the device that was taken at a time; None on a CPU."""

    @property
    def hours(self) -> float:
        """Of the whole stage at this speed."""
        return self.total * self.seconds / self.batch_size / 3600

    @property
    def text(self) -> str:
        """All of it for a human."""
        rate = self.batch_size / self.seconds
        memory = "" if self.peak_bytes is None else f", {self.peak_bytes / 2**30:.1f} GiB at most"
        return (
            f"{self.seconds:.3f} s a step of {self.batch_size}, {rate:.1f}/s, "
            f"{rate * self.flops / 1e12:.3g} TFLOP/s{memory}; {self.hours:,.1f} h"
        )


def time_stages(
    recipe: Recipe, engine: AccelerateEngine, todo: Amounts, *, batch_size: int, episodes: int
) -> Iterator[TimedStage]:
    """Time the stages that a recipe has, in order.

    Left out are the tokenizer's frozen features and discriminator, and those of the reward, which
    cost little; and sending gradients to other processes.

    Args:
        recipe: A benchmark.
        engine: Precision and processes.
        todo: What there is to do.
        batch_size: Images or samples of a step on this device.
        episodes: Of an update of the policy on this device.
    """
    device, config = engine.device, nat_config(recipe)
    (encoder, decoder), nat_cost = tokenizer_cost(recipe), transformer_cost(config)
    drawing = 2 * recipe.num_decoding_steps * nat_cost.flops + decoder.flops
    conditions = _conditions(recipe, device)

    def timed(
        name: str, work: Callable[[], object], total: int, flops: float, count: int = batch_size
    ) -> TimedStage:
        return TimedStage(name, fastest(work, device), count, total, flops, _peak_bytes(device))

    if recipe.tokenizer.weights is None:
        work = _tokenizer_step(recipe, engine, batch_size)
        total = recipe.tokenizer.total_steps * recipe.tokenizer.batch_size
        yield timed("train-tokenizer", work, total, 3 * (encoder.flops + decoder.flops))
    tokenizer = Tokenizer(recipe.tokenizer.model).to(device).eval()
    images = _images(recipe, batch_size, device)
    yield timed("tokenize", lambda: tokenizer.encode(images), todo.items, encoder.flops)
    if recipe.generator.weights is None:
        work = _generator_step(recipe, engine, conditions, batch_size)
        yield timed("train-generator", work, todo.seen, 3 * nat_cost.flops)
    nat = NAT(config).to(device).eval()
    work = _policy_update(recipe, engine, nat, tokenizer, conditions, episodes)
    yield timed("train-policy", work, todo.episodes, drawing, episodes)
    indices = torch.arange(batch_size, device=device)
    schedule = default_point(recipe.num_decoding_steps).schedule()

    def draw() -> Tensor:
        condition = conditions.of_samples(indices).generator
        drawn = generate(nat, schedule, condition, sample_indices=indices, noise=NoiseSource(0))
        return tokenizer.decode(drawn.tokens.unflatten(1, tokenizer.grid_size))

    samples = todo.searched + todo.searched_static + todo.rollouts - todo.episodes
    samples += todo.contestants * todo.evaluated
    # At more steps a sample takes as much longer, but for its picture.
    for steps in recipe.schedule.comparison_steps:
        samples += (todo.searched_more + todo.evaluated) * steps // recipe.num_decoding_steps
    yield timed("search, evaluate", draw, samples, drawing)


def fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest run, after one to warm up."""
    gc.collect()  # what is left of trainers that were timed before
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(1 + _TIMED):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _peak_bytes(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def _tokenizer_step(
    recipe: Recipe, engine: AccelerateEngine, batch_size: int
) -> Callable[[], object]:
    training = replace(recipe.tokenizer.training, perceptual_weight=0.0, adversarial=None)
    tokenizer = Tokenizer(recipe.tokenizer.model).to(engine.device)
    trainer = TokenizerTrainer(tokenizer, training, None, engine)
    images = _images(recipe, batch_size, engine.device)
    return lambda: trainer.step(images)


def _generator_step(
    recipe: Recipe, engine: AccelerateEngine, conditions: RunConditions, batch_size: int
) -> Callable[[], object]:
    nat = NAT(nat_config(recipe)).to(engine.device)
    trainer = NATTrainer(nat, recipe.generator.training, seed=0, engine=engine)
    tokens = torch.zeros(batch_size, nat.seq_len, dtype=torch.int64, device=engine.device)
    indices = torch.arange(batch_size, device=engine.device)
    condition = conditions.of_samples(indices).generator
    return lambda: trainer.step(tokens, condition)


def _policy_update(
    recipe: Recipe,
    engine: AccelerateEngine,
    nat: NAT,
    tokenizer: Tokenizer,
    conditions: RunConditions,
    episodes: int,
) -> Callable[[], object]:
    """A roll-out with its pictures, whose brightness is the reward, and PPO on it."""
    num_steps = recipe.num_decoding_steps
    policy, value_network = policy_networks(recipe, nat, default_point(num_steps).schedule().values)
    trainer = PPOTrainer(policy, value_network, recipe.policy.ppo, engine)
    environment = DecodingEnvironment(
        nat,
        num_steps=num_steps,
        conditions=lambda numbers: conditions.of_samples(numbers).generator,
        noise=NoiseSource(0),
    )

    def brightness(outcome: Mapping[str, Tensor]) -> Tensor:
        return decode_grids(tokenizer, outcome["tokens"]).mean(dim=(1, 2, 3))

    def update() -> None:
        rollout = trainer.collect(
            environment,
            episodes * engine.num_processes,
            brightness,
            batch_size=recipe.policy.rollout_batch_size,
            shared_first_step=conditions.numbers,
            feature_dtype=FEATURE_DTYPES[recipe.policy.feature_dtype],
            storage_device="cpu" if recipe.policy.features_on_host else None,
        )
        trainer.update(rollout)

    return update


def _images(recipe: Recipe, batch_size: int, device: torch.device) -> Tensor:
    side = recipe.data.image_size
    return torch.rand(batch_size, 3, side, side, device=device)


def _conditions(recipe: Recipe, device: torch.device) -> RunConditions:
    """All classes in turn, or features of blank captions, which need no encoder."""
    config = nat_config(recipe)
    if config.context_dim is None:
        return ClassConditions(recipe.data.num_classes)
    shape = (config.num_context_tokens, config.context_dim)
    return CaptionConditions(_BlankCaptions(torch.zeros(shape, device=device)), "blank captions")


class _BlankCaptions:
    """Features of as many captions as are asked for, all alike.

    Args:
        tokens: (N, C) of one.
    """

    def __init__(self, tokens: Tensor) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return 2**40

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See `CaptionFeatures`."""
        tokens = self._tokens.expand(len(indices), *self._tokens.shape)
        return tokens, tokens[:, 0]
