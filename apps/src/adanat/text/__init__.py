"""Text encoders: captions to the features that condition a transformer and a discriminator."""

from adanat.text.hashed import HashedTextEncoder
from adanat.text.loading import load_text_encoder

__all__ = ["HashedTextEncoder", "load_text_encoder"]
