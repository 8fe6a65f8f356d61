"""Stage `train-tokenizer`: images to grids of codes and back."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from advreward import efficientnet_lite
from torch import Tensor
from torch.nn import functional as F
from vqtok import Tokenizer, TokenizerTrainer, codebook_statistics

from adanat.generation import from_uint8
from adanat.loop import IntervalHook, PictureHook, train_loop
from adanat.prepare import item_names
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
                _finish(run, tokenizer, reconstruct(tokenizer, held_out, run.device).scores)
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
            return batch_indices(len(images), recipe.batch_size, number, order_seed)

        read = ReadAhead(lambda number: images[batch(number)[own_rows]], recipe.total_steps)

        def step(number: int) -> dict[str, float]:
            return trainer.step(from_uint8(read(number).to(run.device)))

        # The last validation; empty until then.
        found = Reconstructions({}, held_out.new_empty(0))

        def validate(number: int) -> dict[str, float]:
            nonlocal found
            found = reconstruct(trainer.ema_tokenizer, held_out, run.device)
            return {f"validation_{name}": value for name, value in found.scores.items()}

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
                    lambda: found.pictures,  # of the hook before, at the same interval
                    columns=min(_PICTURED_IMAGES, len(held_out)),
                )
            ],
            engine=run.engine,
            batch_of=lambda number: item_names(images, batch(number).tolist()),
        )
        if run.engine.is_main:
            if not found.scores:  # killed between the last step and here
                validate(recipe.total_steps)
            _finish(run, trainer.ema_tokenizer, found.scores)


def _finish(run: Run, tokenizer: Tokenizer, scores: Mapping[str, float]) -> None:
    tokenizer.save_pretrained(run.folder.tokenizer_model)
    run.stages.tokenizer.finish(scores)


class Reconstructions(NamedTuple):
    """What a tokenizer makes of images."""

    scores: dict[str, float]
    """Mean absolute (`l1`) and squared error (`mse`), and how the codebook is used."""
    pictures: Tensor
    """A row of images and one of their reconstructions, (2 N, 3, H, W) in [0, 1]."""


@torch.no_grad()
def reconstruct(tokenizer: Tokenizer, images: Tensor, device: torch.device) -> Reconstructions:
    """Encode and decode images, measure the difference, and keep the first to look at.

    Args:
        tokenizer: in evaluation mode.
        images: (N, 3, H, W) uint8.
        device: where the tokenizer lies.
    """
    absolute = squared = 0.0
    grids: list[Tensor] = []
    shown: list[Tensor] = []
    for chunk in images.split(_CHUNK):
        batch = from_uint8(chunk.to(device))
        grids.append(tokenizer.encode(batch))
        decoded = tokenizer.decode(grids[-1])
        absolute += F.l1_loss(decoded, batch).item() * len(chunk)
        squared += F.mse_loss(decoded, batch).item() * len(chunk)
        if not shown:
            shown = [batch[:_PICTURED_IMAGES], decoded[:_PICTURED_IMAGES]]
    usage = codebook_statistics(torch.cat(grids), tokenizer.codebook_size)
    scores = {"l1": absolute / len(images), "mse": squared / len(images), **usage}
    return Reconstructions(scores, torch.cat(shown))
