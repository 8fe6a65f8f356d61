"""Text encoders by name."""

import torch
from natgen import TextEncoder

from adanat.errors import AdanatError
from adanat.text.hashed import HashedTextEncoder

_CLIP_PREFIX = "clip:"


def load_text_encoder(
    name: str, num_tokens: int, device: torch.device | str = "cpu"
) -> TextEncoder:
    """Load a text encoder.

    Args:
        name: `minilm` (offline), `hashed` (no model, for tests), or `clip:SOURCE`, a CLIP text
            tower in a folder or on the hub, such as `clip:openai/clip-vit-large-patch14`.
        num_tokens: feature tokens of a caption; 77 are published for CLIP.
        device: where the encoder runs.

    Raises:
        AdanatError: an unknown name, or a source that cannot be read.
        ValueError: `num_tokens` is out of the model's range.
    """
    # The imports below load transformers, which takes seconds.
    if name == "minilm":
        from adanat.text.minilm import MiniLMTextEncoder

        return MiniLMTextEncoder(num_tokens, device=device)
    if name.startswith(_CLIP_PREFIX):
        from adanat.text.clip import CLIPTextEncoder

        return CLIPTextEncoder(name.removeprefix(_CLIP_PREFIX), num_tokens, device)
    if name == "hashed":
        return HashedTextEncoder(num_tokens, device)
    raise AdanatError(
        f"there is no text encoder {name!r}; give minilm, hashed, or clip:SOURCE with a folder "
        "or a name on the hub"
    )
