"""Stage `train-tokenizer`: images to grids of codes and back."""

from collections.abc import Mapping

import torch
from advreward import efficientnet_lite
from torch import Tensor
from torch.nn import functional as F
from vqtok import Tokenizer, TokenizerTrainer, codebook_statistics

from adanat.generation import from_uint8
from adanat.loop import IntervalHook, PictureHook, train_loop
from adanat.read_ahead import ReadAhead
from adanat.run import Run
from adanat.sampling_order import batch_indices
from adanat.seeding import derive_seed
from adanat.stages.imported_models import import_tokenizer

_VALIDATION_IMAGES = 1000
_PICTURED_IMAGES = 16
_CHUNK = 50


def train_tokenizer(run: Run) -> None:
    """Train on the fit split; report reconstruction and codebook usage on validation images."""
    stage = run.stages.tokenizer
    if stage.is_done():
        return
    recipe = run.recipe.tokenizer
    held_out = run.images("validation").images[:_VALIDATION_IMAGES]
    if recipe.weights is not None:
        with stage:
            if run.engine.is_main:
                tokenizer = import_tokenizer(recipe.weights, recipe).to(run.device)
                _finish(run, tokenizer, reconstruction_scores(tokenizer, held_out, run.device))
        return
    images = run.images("fit").images
    with stage:
        torch.manual_seed(derive_seed(run.recipe.seed, "tokenizer weights"))
        perceptual = None
        if recipe.training.perceptual_weight > 0:
            perceptual = efficientnet_lite("lite0", input_size=recipe.perceptual_size)
            perceptual = perceptual.to(run.device)
        tokenizer = Tokenizer(recipe.model).to(run.device)
        trainer = TokenizerTrainer(tokenizer, recipe.training, perceptual, run.engine)
        run.engine.follow(*trainer.trained_modules)
        order_seed = derive_seed(run.recipe.seed, "tokenizer order")
        own_rows = run.engine.rows(recipe.batch_size)

        def batch(number: int) -> Tensor:
            return batch_indices(len(images), recipe.batch_size, number, order_seed)[own_rows]

        read = ReadAhead(lambda number: images[batch(number)], recipe.total_steps)

        def step(number: int) -> dict[str, float]:
            return trainer.step(from_uint8(read(number).to(run.device)))

        scores: dict[str, float] = {}

        def validate(number: int) -> dict[str, float]:
            scores.update(reconstruction_scores(trainer.ema_tokenizer, held_out, run.device))
            return {f"validation_{name}": value for name, value in scores.items()}

        train_loop(
            step_fn=step,
            total_steps=recipe.total_steps,
            folder=stage.folder,
            get_state=trainer.state_dict,
            set_state=trainer.load_state_dict,
            description="tokenizer",
            save_every=run.recipe.checkpoint_every,
            hooks=[IntervalHook(max(1, recipe.total_steps // 10), validate)],
            pictures=[
                PictureHook(
                    max(1, recipe.total_steps // 10),
                    "reconstructions",
                    lambda: _pairs(trainer.ema_tokenizer, held_out, run.device),
                    columns=min(_PICTURED_IMAGES, len(held_out)),
                )
            ],
            engine=run.engine,
            batch_of=lambda number: batch(number).tolist(),
        )
        if run.engine.is_main:
            if not scores:  # killed between the last step and here
                validate(recipe.total_steps)
            _finish(run, trainer.ema_tokenizer, scores)


def _finish(run: Run, tokenizer: Tokenizer, scores: Mapping[str, float]) -> None:
    tokenizer.save_pretrained(run.folder.tokenizer_model)
    run.stages.tokenizer.finish(scores)


@torch.no_grad()
def _pairs(tokenizer: Tokenizer, held_out: Tensor, device: torch.device) -> Tensor:
    """A row of images and one of their reconstructions."""
    shown = from_uint8(held_out[:_PICTURED_IMAGES].to(device))
    return torch.cat([shown, tokenizer.decode(tokenizer.encode(shown))])


@torch.no_grad()
def reconstruction_scores(
    tokenizer: Tokenizer, images: Tensor, device: torch.device
) -> dict[str, float]:
    """Mean absolute and squared error of reconstructions, and how the codebook is used.

    Args:
        tokenizer: in evaluation mode.
        images: (N, 3, H, W) uint8.
        device: where the tokenizer lies.
    """
    absolute = squared = 0.0
    grids = []
    for chunk in images.split(_CHUNK):
        batch = from_uint8(chunk.to(device))
        grids.append(tokenizer.encode(batch))
        decoded = tokenizer.decode(grids[-1])
        absolute += F.l1_loss(decoded, batch).item() * len(chunk)
        squared += F.mse_loss(decoded, batch).item() * len(chunk)
    usage = codebook_statistics(torch.cat(grids), tokenizer.codebook_size)
    return {"l1": absolute / len(images), "mse": squared / len(images), **usage}
