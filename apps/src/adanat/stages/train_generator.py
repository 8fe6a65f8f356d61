"""Stage `train-generator`: the non-autoregressive transformer on the codes."""

import torch
from natgen import NAT, NATConfig, NATTrainer

from adanat.loop import IntervalHook, train_loop
from adanat.run import Run
from adanat.sampling_order import batch_indices
from adanat.seeding import derive_seed

_VALIDATION_ITEMS = 1000


def train_generator(run: Run) -> None:
    """Train on the fit split's codes; the averaged weights are what later stages use."""
    stage = run.stages.generator
    if stage.is_done():
        return
    recipe = run.recipe.generator
    fit, validation = run.tokens("fit"), run.tokens("validation")
    held_out = range(min(_VALIDATION_ITEMS, len(validation)))
    held_out_tokens, held_out_items = validation.batch(list(held_out))
    conditions = run.conditions("fit")
    held_out_condition = run.conditions("validation").of_items(held_out_items).generator
    with stage:
        torch.manual_seed(derive_seed(run.recipe.seed, "generator weights"))
        config = NATConfig(
            codebook_size=fit.codebook_size,
            grid_size=fit.grid_size,
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
        )
        order_seed = derive_seed(run.recipe.seed, "generator order")

        def step(number: int) -> dict[str, float]:
            indices = batch_indices(len(fit), recipe.batch_size, number, order_seed)
            tokens, items = fit.batch(indices)
            condition = conditions.of_items(items).generator
            return trainer.step(tokens.to(run.device), condition.to(run.device))

        def validate(number: int) -> dict[str, float]:
            scores = trainer.evaluate_loss(
                held_out_tokens.to(run.device),
                held_out_condition.to(run.device),
                torch.Generator().manual_seed(derive_seed(run.recipe.seed, "validation masks")),
            )
            return {f"validation_{name}": value for name, value in scores.items()}

        train_loop(
            step_fn=step,
            total_steps=recipe.training.total_steps,
            folder=stage.folder,
            get_state=trainer.state_dict,
            set_state=trainer.load_state_dict,
            description="generator",
            save_every=run.recipe.checkpoint_every,
            hooks=[IntervalHook(max(1, recipe.training.total_steps // 20), validate)],
        )
        trainer.ema_model.save_pretrained(run.folder.generator_model)
        parameters = sum(p.numel() for p in trainer.ema_model.parameters())
        stage.finish({"parameters": parameters, **validate(recipe.training.total_steps)})
