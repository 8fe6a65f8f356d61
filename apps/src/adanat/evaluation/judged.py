"""What is judged: images that are given, those a tokenizer makes of them, or a generator's."""

from pathlib import Path

import torch

from adanat.errors import DataError
from adanat.evaluation.generators import Conditions, GeneratedSource, balanced, captioned, random
from adanat.evaluation.models import Models, holds_models, trained_text_encoder
from adanat.evaluation.opening import open_images
from adanat.evaluation.options import SourceEvaluation
from adanat.evaluation.reconstruction import CroppedSource, ReconstructedSource, RunSplit
from adanat.evaluation.sources import FirstOf, Source
from adanat.evaluation.tokenizers import load_tokenizer
from adanat.run_folder import RunFolder
from adanat.runs import DONE_FILE
from adanat.text import load_text_encoder

DEFAULT_SAMPLES = 10_000


def open_judged(options: SourceEvaluation, device: torch.device) -> dict[int, Source]:
    """The judged images by generation seed; images that are given stand under seed 0.

    Raises:
        AdanatError: There are no images or models, or fewer images than asked for.
        ValueError: Generation seeds for images that are given.
    """
    path = Path(options.source)
    if options.reconstruct is not None or not holds_models(path):
        if len(options.seeds) > 1:
            raise ValueError(
                f"seeds are {options.seeds}, but the images of {path} are given: seeds are for "
                "folders of runs and pipelines"
            )
        if options.reconstruct is not None:
            return {0: _reconstructed(options, options.reconstruct, device)}
        return {0: _first(options, open_images(options.source))}
    models = Models.load(
        path,
        policy=options.policy,
        num_steps=options.num_steps,
        device=device,
        precision=options.precision,
    )
    num_samples = DEFAULT_SAMPLES if options.num_samples is None else options.num_samples
    return {
        seed: GeneratedSource(
            models,
            _conditions(options, models, seed, num_samples, device),
            num_samples=num_samples,
            seed=seed,
            batch_size=options.batch_size,
        )
        for seed in options.seeds
    }


def _reconstructed(
    options: SourceEvaluation, where: str, device: torch.device
) -> ReconstructedSource:
    """The images of the source, or of a run's split, after the tokenizer that is named."""
    tokenizer = load_tokenizer(where, device)
    path, size = Path(options.source), tokenizer.config.image_size
    images: Source
    if (RunFolder(path).data / DONE_FILE).is_file():
        images = RunSplit(path, options.split, size)
    else:
        images = CroppedSource(open_images(options.source), size)
    return ReconstructedSource(
        _first(options, images), tokenizer, name=where, batch_size=options.batch_size
    )


def _first(options: SourceEvaluation, images: Source) -> Source:
    """As many of the images as asked for."""
    return images if options.num_samples is None else FirstOf(images, options.num_samples)


def _conditions(
    options: SourceEvaluation, models: Models, seed: int, num_samples: int, device: torch.device
) -> Conditions:
    """What the samples are asked to show, as the options and the model have it."""
    config = models.nat.config
    if (options.labels == "captions") != (config.num_classes is None):
        raise DataError(
            f"labels are {options.labels!r}, but the model in {options.source} knows "
            f"{'captions' if config.num_classes is None else f'{config.num_classes} classes'}"
        )
    if config.num_classes is None:
        encoder = models.text_encoder or load_text_encoder(
            options.text_encoder or trained_text_encoder(Path(options.source)),
            config.num_context_tokens,
            device,
        )
        return captioned(_captions(options, num_samples), encoder)
    if options.labels == "random":
        return random(config.num_classes, seed=seed)
    return balanced(config.num_classes, num_samples)


def _captions(options: SourceEvaluation, num_samples: int) -> list[str]:
    """Those of the reference's first images."""
    if options.reference is None:
        raise DataError("captions are those of the reference: name it by --reference")
    found = []
    for index, item in enumerate(open_images(options.reference).items(0, num_samples)):
        if item.caption is None:
            raise DataError(f"image {index} of {options.reference} has no caption to draw")
        found.append(item.caption)
    return found
