"""Image tokenizer: images to grids of codes and back, its training, and token stores."""

from vqtok.adversarial import AdversarialTrainingConfig
from vqtok.checkpoint import (
    import_llamagen,
    import_open_muse,
    import_vqgan,
    load_llamagen,
    load_open_muse,
    load_vqgan,
)
from vqtok.config import TokenizerConfig, f16_vqgan, llamagen_f16, small
from vqtok.discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from vqtok.engine import LocalEngine
from vqtok.losses import perceptual_loss, reconstruction_loss
from vqtok.protocols import Engine, PerceptualFeatures
from vqtok.quantizer import codebook_statistics
from vqtok.store import ConditionSpec, TokenStore, TokenStoreWriter
from vqtok.tokenizer import Tokenizer, TokenizerOutput
from vqtok.training import TokenizerTrainer, TokenizerTrainingConfig

__all__ = [
    "AdversarialTrainingConfig",
    "ConditionSpec",
    "Engine",
    "LocalEngine",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "PerceptualFeatures",
    "TokenStore",
    "TokenStoreWriter",
    "Tokenizer",
    "TokenizerConfig",
    "TokenizerOutput",
    "TokenizerTrainer",
    "TokenizerTrainingConfig",
    "codebook_statistics",
    "f16_vqgan",
    "import_llamagen",
    "import_open_muse",
    "import_vqgan",
    "llamagen_f16",
    "load_llamagen",
    "load_open_muse",
    "load_vqgan",
    "perceptual_loss",
    "reconstruction_loss",
    "small",
]
