"""The command that asks whether captions matter."""

from typing import Annotated

import tyro

from adanat import caption_check
from adanat.commands.options import OutputDir, RecipeChoice, open_run


def check_captions(
    recipe: RecipeChoice,
    output_dir: OutputDir = None,
    guidance_scales: Annotated[
        tuple[float, ...], tyro.conf.arg(help="One row of samples for each.")
    ] = (0.0, 1.0, 3.0, 6.0),
    num_samples: Annotated[int, tyro.conf.arg(help="Images a row.")] = 500,
    steps: Annotated[int, tyro.conf.arg(help="Decoding steps, of the published schedule.")] = 8,
    noise_seed: int = 0,
) -> None:
    """Score samples for their own captions and for others, at several guidance scales.

    Needs a run with captions and a trained transformer. Real test images and their reconstructions
    stand beside the samples: they say how far the score can be believed.
    """
    run = open_run(recipe, output_dir)
    checks = caption_check.check_captions(
        run,
        guidance_scales=guidance_scales,
        num_samples=num_samples,
        num_steps=steps,
        seed=noise_seed,
    )
    print(f"{caption_check.text_table(checks)}\n\nfigures: {run.folder.caption_check}")
