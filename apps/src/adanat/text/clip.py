"""CLIP's text towers, OpenAI's and OpenCLIP's, through transformers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextModelWithProjection

from adanat.text.pretrained import load_pretrained


class CLIPTextEncoder:
    """The text tower of a CLIP model, such as ViT-L/14 (768 wide) or OpenCLIP ViT-bigG-14 (1280).

    As published (AdaNAT's `train.py` for CC3M, on ViT-bigG-14): captions are padded to N = 77
    tokens with id 0, as CLIP and OpenCLIP themselves do it (transformers pads otherwise); token
    features are the last hidden states after the final layer norm, at the padding, too; the pooled
    vector is the one at the end-of-text token, projected, and not scaled to length 1. Satisfies
    `natgen.TextEncoder`.

    Args:
        source: a folder of transformers or a name on the hub, such as
            `openai/clip-vit-large-patch14` or `laion/CLIP-ViT-bigG-14-laion2B-39B-b160k`.
        num_tokens: N in [3, the model's positions]; longer captions are cut off.
        device: where the model runs.

    Raises:
        AdanatError: the folder cannot be read, or the hub has no such model.
        ValueError: `num_tokens` is out of range.
    """

    def __init__(
        self, source: str, num_tokens: int = 77, device: torch.device | str = "cpu"
    ) -> None:
        self._tokenizer = load_pretrained(AutoTokenizer.from_pretrained, source)
        self._tokenizer.pad_token_id = 0
        model = load_pretrained(CLIPTextModelWithProjection.from_pretrained, source)
        positions = int(model.config.max_position_embeddings)
        if not 3 <= num_tokens <= positions:
            raise ValueError(f"num_tokens must be in [3, {positions}], got {num_tokens}")
        network: nn.Module = model
        self._model = network.to(device).eval().requires_grad_(False)
        self._device = torch.device(device)
        self.name = f"clip:{source}, {num_tokens} tokens"
        self.num_tokens = num_tokens
        self.token_dim = int(model.config.hidden_size)
        self.pooled_dim = model.text_projection.out_features

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B captions -> token features (B, N, C) and pooled features (B, P), float32."""
        ids = self._tokenizer(
            list(captions),
            max_length=self.num_tokens,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids
        # Without an attention mask, as published: attention is causal, so padding changes nothing
        # before it.
        output = self._model(input_ids=ids.to(self._device))
        return output.last_hidden_state.float(), output.text_embeds.float()
