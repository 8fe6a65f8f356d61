"""Stage `train-generator`: the non-autoregressive transformer on the codes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from natgen import NAT, NATConfig, NATTrainer
from natgen.transformer import Block
from torch import Tensor

from adanat.conditions import RunConditions
from adanat.generation import Generator, from_uint8
from adanat.loop import IntervalHook, PictureHook, train_loop
from adanat.prepare import item_names
from adanat.read_ahead import ReadAhead
from adanat.run import Run
from adanat.sampling_order import batch_indices
from adanat.schedule_points import default_point
from adanat.seeding import derive_seed
from adanat.stages.imported_models import import_generator

_VALIDATION_ITEMS = 1000
_PICTURED_SAMPLES = 4


def train_generator(run: Run) -> None:
    """Train on the fit split's codes; the averaged weights are what later stages use."""
    stage = run.stages.generator
    if stage.is_done():
        return
    recipe, engine = run.recipe.generator, run.engine
    if recipe.weights is not None:
        _import(run, recipe.weights)
        return
    fit, validation = run.tokens("fit"), run.tokens("validation")
    held_out = range(min(_VALIDATION_ITEMS, len(validation)))
    held_out_tokens, held_out_items = validation.batch(list(held_out))
    conditions, held_out_conditions = run.conditions("fit"), run.conditions("validation")
    held_out_condition = held_out_conditions.of_items(held_out_items).generator
    with stage:
        torch.manual_seed(derive_seed(run.recipe.seed, "generator weights"))
        config = NATConfig(
            codebook_size=fit.codebook_size,
            grid_size=fit.grid_size,
            patch_size=recipe.patch_size,
            embed_dim=recipe.embed_dim,
            depth=recipe.depth,
            num_heads=recipe.num_heads,
            num_classes=conditions.sizes.num_classes,
            context_dim=conditions.sizes.context_dim,
            num_context_tokens=conditions.sizes.num_context_tokens,
            dropout=recipe.dropout,
        )
        nat = NAT(config)
        conditions.complete(nat)
        trainer = NATTrainer(
            nat.to(run.device),
            recipe.training,
            seed=derive_seed(run.recipe.seed, "generator masks"),
            engine=engine,
        )
        models = trainer.model, trainer.ema_model
        if run.recipe.shard_generator:
            engine.shard(*models, optimizer=trainer.optimizer, unit=Block)
        else:
            engine.follow(*models)
        order_seed = derive_seed(run.recipe.seed, "generator order")

        def load(number: int) -> tuple[Tensor, Tensor]:
            tokens, items = fit.batch(batch_of(number)[engine.rows(recipe.batch_size)])
            return tokens, conditions.of_items(items).generator

        read = ReadAhead(load, recipe.training.total_steps)

        def step(number: int) -> dict[str, float]:
            tokens, condition = read(number)
            return trainer.step(tokens.to(run.device), condition.to(run.device))

        def batch_of(number: int) -> Tensor:
            return batch_indices(len(fit), recipe.batch_size, number, order_seed)

        def names_of(number: int) -> list[str]:
            shown = fit.batch(batch_of(number))[1]["images"]
            return item_names(run.images("fit").images, shown.tolist())

        scores: dict[str, float] = {}

        def validate(number: int) -> dict[str, float]:
            found = trainer.evaluate_loss(
                held_out_tokens.to(run.device),
                held_out_condition.to(run.device),
                torch.Generator().manual_seed(derive_seed(run.recipe.seed, "validation masks")),
            )
            scores.update({f"validation_{name}": value for name, value in found.items()})
            return scores

        train_loop(
            step_fn=step,
            total_steps=recipe.training.total_steps,
            folder=stage.folder,
            get_state=trainer.state_dict,
            set_state=trainer.load_state_dict,
            description="generator",
            save_every=run.recipe.checkpoint_every,
            hooks=[IntervalHook(max(1, recipe.training.total_steps // 20), validate)],
            pictures=[
                PictureHook(
                    max(1, recipe.training.total_steps // 20),
                    "samples",
                    lambda: _samples(run, trainer.ema_model, held_out_conditions),
                    columns=_PICTURED_SAMPLES,
                )
            ],
            engine=engine,
            batch_of=names_of,
        )
        if not scores:  # killed between the last step and here
            validate(recipe.training.total_steps)
        weights = trainer.ema_model.state_dict()  # of sharded ones every process has a part
        if engine.is_main:
            _finish(run, _with_weights(config, weights), scores)


def _import(run: Run, path: Path) -> None:
    with run.stages.generator:
        if run.engine.is_main:
            nat = import_generator(path, run.tokenizer(), run.conditions("validation"))
            _finish(run, nat, {})


def _finish(run: Run, nat: NAT, scores: Mapping[str, float]) -> None:
    nat.save_pretrained(run.folder.generator_model)
    parameters = sum(p.numel() for p in nat.parameters())
    run.stages.generator.finish({"parameters": parameters, **scores})


def _with_weights(config: NATConfig, weights: Mapping[str, Tensor]) -> NAT:
    with torch.device("meta"):  # no weights to be thrown away
        nat = NAT(config)
    nat.load_state_dict(weights, assign=True)
    return nat


def _samples(run: Run, nat: NAT, conditions: RunConditions) -> Tensor:
    """Pictures of the published schedule."""
    generator = Generator(
        nat,
        run.tokenizer(),
        lambda indices: conditions.of_samples(indices).generator.to(run.device),
        batch_size=_PICTURED_SAMPLES,
    )
    batches = generator.batches(
        default_point(run.recipe.num_decoding_steps).schedule(),
        seed=derive_seed(run.recipe.seed, "generator pictures"),
        num_samples=_PICTURED_SAMPLES,
    )
    return from_uint8(torch.cat([batch.images for batch in batches]))
