"""CLIP's agreement of image and text, through transformers (the extra ``advreward[clip]``).

Models with CLIP's architecture that were tuned on people's choices, such as PickScore, are read by
the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPModel

from advreward.images import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, prepare_images
from advreward.pretrained import SimilarityScorer


class ClipImageEncoder(nn.Module):
    """The image tower of a CLIP: images (B, 3, H, W) in [0, 1] -> (B, P)."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.size = int(model.vision_model.embeddings.image_size)
        self.tower = model.vision_model
        self.projection = model.visual_projection
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the vectors of images of any size, squeezed to the model's square."""
        pixels = prepare_images(images, self.size, CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, mode="bicubic")
        pixels = pixels.to(self.projection.weight.dtype)
        vectors: Tensor = self.projection(self.tower(pixel_values=pixels).pooler_output)
        return vectors


@torch.no_grad()
def clip_scorer(
    weights: Path | str,
    prompts: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
) -> SimilarityScorer:
    """Builds a scorer from a CLIP model and one prompt for each label.

    Args:
        weights: a folder with the model and its tokenizer, or the name of a repository on the
            Hugging Face hub.
        prompts: prompt i is what an image of label i should show. For captions instead of classes,
            number the captions and use their numbers as labels. Their vectors are kept.
        device: where the prompts are encoded and the scorer is to be.
        batch_size: prompts a pass.

    Raises:
        ValueError: if there is no prompt.
        OSError: if the model cannot be found, as transformers puts it.
    """
    if not prompts:
        raise ValueError("prompts is empty: give one for each label")
    # In evaluation mode, as transformers returns it.
    model = CLIPModel.from_pretrained(weights)
    nn.Module.to(model, device)
    tokenizer = AutoTokenizer.from_pretrained(weights)
    vectors = []
    for first in range(0, len(prompts), batch_size):
        tokens = tokenizer(
            list(prompts[first : first + batch_size]),
            padding=True,
            truncation=True,
            max_length=model.text_model.embeddings.position_embedding.num_embeddings,
            return_tensors="pt",
        ).to(device)
        pooled = model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        vectors.append(model.text_projection(pooled))
    return SimilarityScorer(ClipImageEncoder(model), torch.cat(vectors))
