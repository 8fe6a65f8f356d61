"""Models that a run takes over instead of training them."""

from dataclasses import replace
from pathlib import Path

from natgen import NAT, load_uvit
from natgen.conditioning import TextCondition
from vqtok import Tokenizer, load_llamagen, load_open_muse, load_vqgan

from adanat.conditions import RunConditions
from adanat.errors import StageError
from adanat.recipes.base import TokenizerRecipe
from adanat.run import load_model

_LOADERS = {"vqgan": load_vqgan, "open-muse": load_open_muse, "llamagen": load_llamagen}


def import_tokenizer(path: Path, recipe: TokenizerRecipe) -> Tokenizer:
    """A tokenizer's weights, for images of the recipe's size.

    Args:
        path: A folder with `config.json` and `model.safetensors`, or a file in the recipe's format.
        recipe: Names the format and, for a file, the sizes.

    Raises:
        StageError: The folder is missing or damaged.
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or holds other weights.
    """
    size = recipe.model.image_size
    if not path.is_dir():
        return _LOADERS[recipe.weights_format](path, recipe.model)
    found = load_model(Tokenizer.from_pretrained, path)
    if found.config.image_size == size:
        return found
    # It is convolutional: the image's size decides nothing but the size of the grid.
    resized = Tokenizer(replace(found.config, image_size=size))
    resized.load_state_dict(found.state_dict())
    return resized.eval()


def import_generator(path: Path, tokenizer: Tokenizer, conditions: RunConditions) -> NAT:
    """A transformer's weights, checked against the run's codes and conditions.

    Args:
        path: A folder with `config.json` and `model.safetensors`, or the authors' checkpoint.
        tokenizer: Whose codes it is to generate.
        conditions: What it is to be conditioned on.

    Raises:
        StageError: It does not fit, or the folder is missing or damaged.
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or holds other weights.
    """
    sizes = conditions.sizes
    if path.is_dir():
        nat = load_model(NAT.from_pretrained, path)
    else:
        nat = load_uvit(
            path,
            grid_size=tokenizer.grid_size,
            num_context_tokens=sizes.num_context_tokens,
        )
    wanted = {
        "codebook_size": tokenizer.codebook_size,
        "grid_size": tokenizer.grid_size,
        "num_classes": sizes.num_classes,
        "context_dim": sizes.context_dim,
    }
    wrong = [
        f"{name} is {getattr(nat.config, name)}, the run has {value}"
        for name, value in wanted.items()
        if getattr(nat.config, name) != value
    ]
    if wrong:
        raise StageError(f"the transformer in {path} does not fit this run: {'; '.join(wrong)}")
    if isinstance(nat.condition, TextCondition):
        conditions.complete(nat)
    return nat
