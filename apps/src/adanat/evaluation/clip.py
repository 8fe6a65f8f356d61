"""CLIPScore (arXiv 2104.08718): how well images fit their captions."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import CLIPModel, CLIPProcessor

from adanat.errors import DataError, StorageError
from adanat.evaluation.extractors import SCORES, Identity
from adanat.evaluation.sources import Item
from adanat.metrics.features import FloatArray

_WEIGHTS = "model.safetensors"


class ClipExtractor:
    """100 times the cosine between an image and its caption, at least 0.

    Args:
        folder: A CLIP model with its processor as transformers saves them.
        device: Where it runs.

    Raises:
        StorageError: The folder holds no such model.
    """

    def __init__(self, folder: Path, *, device: torch.device) -> None:
        weights = folder / _WEIGHTS
        if not weights.is_file():
            raise StorageError(
                f"{folder} has no {_WEIGHTS}: put a CLIP model there as transformers saves it, "
                "for example the files of huggingface.co/openai/clip-vit-base-patch16, and name "
                "the folder by --clip-dir"
            )
        try:
            model = CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
            self._processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot load the CLIP model in {folder}: {error}") from error
        network: nn.Module = model
        self._model = network.to(device).eval()
        self._device = device
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.identity = Identity(
            name="clip",
            network=f"CLIP, {folder.name}, SHA-256 {digest[:16]}",
            resize="the model's own processor",
        )

    def __call__(self, items: Sequence[Item]) -> Mapping[str, FloatArray]:
        captions = [item.caption for item in items if item.caption is not None]
        if len(captions) != len(items):
            raise DataError(
                "clip-score needs a caption for every image: .txt members in shards, or .txt files "
                "beside the images of a folder"
            )
        inputs = self._processor(
            text=captions,
            images=[Image.fromarray(item.image) for item in items],
            return_tensors="pt",
            padding=True,
            truncation=True,
        ).to(self._device)
        with torch.inference_mode():
            found = self._model(**inputs)
        cosines = torch.cosine_similarity(found.image_embeds, found.text_embeds)
        return {SCORES: np.asarray((100 * cosines).clamp(min=0).float().cpu().numpy())}
