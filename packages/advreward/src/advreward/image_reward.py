"""ImageReward (arXiv 2304.05977): people's preferences among images of a prompt, learned.

BLIP's vision transformer, BLIP's text encoder, which looks at the image by cross-attention, and a
small head. Within each part the published file has the names of timm and transformers. Imported by
its own name: it needs the extra ``advreward[clip]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from timm.models import VisionTransformer
from torch import Tensor, nn
from transformers import AutoTokenizer, BlipTextConfig, BlipTextModel

from advreward.images import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, prepare_images
from advreward.pretrained import check_labels
from advreward.weights import load_tensors, read_tensors

# As published (THUDM/ImageReward, `ImageReward.py`).
_VISION, _TEXT, _HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."
_MAX_TOKENS = 35
_SCORE_MEAN, _SCORE_STD = 0.16717362830052426, 1.0333394966054072

# Channels of an attention head, of both transformers and at any of BLIP's sizes.
_HEAD_CHANNELS = 64


class ImageRewardScorer(nn.Module):
    """Judges images under numbered prompts; about standard normal over people's generations.

    Args:
        vision: images to features of positions, all of them.
        text: prompts to features of tokens, with cross-attention to those of the image.
        head: the first token's features (B, C) to scores (B, 1).
        input_ids: (N, S) int64, the tokens of prompt i in row i.
        attention_mask: (N, S), 0 at padding.
    """

    input_ids: Tensor
    attention_mask: Tensor

    def __init__(
        self,
        vision: VisionTransformer,
        text: BlipTextModel,
        head: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
    ) -> None:
        super().__init__()
        self.vision, self.text, self.head = vision, text, head
        self.register_buffer("input_ids", input_ids)
        self.register_buffer("attention_mask", attention_mask)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, conditions: Tensor) -> Tensor:
        """Returns the scores (B,) of images (B, 3, H, W) in [0, 1] for labels (B,) int64.

        Raises:
            ValueError: on a label without a prompt.
        """
        check_labels(conditions, len(self.input_ids))
        rows = conditions.to(self.input_ids.device)
        side = self.vision.patch_embed.img_size[0]
        pixels = prepare_images(images, side, CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, mode="bicubic")
        tokens = self.text(
            input_ids=self.input_ids[rows],
            attention_mask=self.attention_mask[rows],
            encoder_hidden_states=self.vision.forward_features(pixels),
        ).last_hidden_state
        scores: Tensor = self.head(tokens[:, 0]).squeeze(1)
        return (scores - _SCORE_MEAN) / _SCORE_STD


def image_reward_scorer(
    weights: Path,
    prompts: Sequence[str],
    *,
    tokenizer: Path | str = "google-bert/bert-base-uncased",
) -> ImageRewardScorer:
    """Builds a scorer from the published file and one prompt for each label.

    Args:
        weights: ``ImageReward.pt`` of THUDM/ImageReward on the Hugging Face hub.
        prompts: prompt i is what an image of label i should show. For captions instead of classes,
            number the captions and use their numbers as labels.
        tokenizer: BERT's, uncased: a folder, or the name of a repository on the hub.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no prompt, or the file cannot be read or is not ImageReward's.
        OSError: if the tokenizer cannot be found, as transformers puts it.
    """
    if not prompts:
        raise ValueError("prompts is empty: give one for each label")
    stored = read_tensors(weights)
    vision_state, text_state, head_state = (
        {name.removeprefix(prefix): x for name, x in stored.items() if name.startswith(prefix)}
        for prefix in (_VISION, _TEXT, _HEAD)
    )
    text_state.pop("embeddings.position_ids", None)  # the numbers 0, 1, 2, ...
    try:
        vision, text = _vision(vision_state), _text(text_state, vision_state)
    except KeyError as error:
        raise ValueError(f"{weights} is not ImageReward's: it has no tensor {error}") from error
    head = _head(text.config.hidden_size)
    for network, state in ((vision, vision_state), (text, text_state), (head, head_state)):
        load_tensors(network, state, str(weights))
    tokens = AutoTokenizer.from_pretrained(tokenizer)(
        list(prompts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt"
    )
    return ImageRewardScorer(vision, text, head, tokens["input_ids"], tokens["attention_mask"])


def _vision(state: Mapping[str, Tensor]) -> VisionTransformer:
    """An untrained transformer of the state's sizes; the published one is ViT-L/16 at 224."""
    _, positions, width = state["pos_embed"].shape
    patch = state["patch_embed.proj.weight"].shape[-1]
    return VisionTransformer(
        img_size=math.isqrt(positions - 1) * patch,
        patch_size=patch,
        embed_dim=width,
        depth=_count(state, "norm1.weight"),
        num_heads=width // _HEAD_CHANNELS,
        num_classes=0,
        global_pool="",
    )


def _text(state: Mapping[str, Tensor], vision_state: Mapping[str, Tensor]) -> BlipTextModel:
    """The same for the text encoder; the published one has the sizes of BERT base."""
    vocabulary, width = state["embeddings.word_embeddings.weight"].shape
    config = BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        encoder_hidden_size=vision_state["pos_embed"].shape[-1],
        intermediate_size=state["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=_count(state, "intermediate.dense.weight"),
        num_attention_heads=width // _HEAD_CHANNELS,
        max_position_embeddings=state["embeddings.position_embeddings.weight"].shape[0],
    )
    return BlipTextModel(config, add_pooling_layer=False)


def _count(state: Mapping[str, Tensor], ending: str) -> int:
    return sum(name.endswith(ending) for name in state)


def _head(width: int) -> nn.Sequential:
    """As published: linear layers with nothing but dropout between them, which is idle here."""
    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.Identity(),
        nn.Linear(1024, 128),
        nn.Identity(),
        nn.Linear(128, 64),
        nn.Identity(),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
