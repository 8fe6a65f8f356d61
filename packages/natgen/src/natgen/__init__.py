"""natgen: non-autoregressive (masked) token transformers, their training and parallel decoding."""

from natgen.attention import AttentionChoice
from natgen.checkpoint import import_uvit, load_uvit
from natgen.config import NATConfig, nat_b, nat_l, nat_s, nat_text
from natgen.continuous import FinishedSample, generate_continuously
from natgen.decode_behind import decode_behind
from natgen.decoding import (
    DecodingState,
    Generation,
    Observation,
    StepRecord,
    apply,
    generate,
    init_state,
    observe,
    step,
)
from natgen.engine import LocalEngine
from natgen.environment import DecodingEnvironment
from natgen.first_step import FirstStepCache
from natgen.losses import masked_scores
from natgen.masking import BetaMask, CosineMask, MaskDistribution, random_mask
from natgen.noise import NoiseSource, StepNoise, philox
from natgen.protocols import (
    ChecksCondition,
    DecodingPolicy,
    Engine,
    GridLogitsModel,
    KnowsGuidance,
    LogitsModel,
    TextEncoder,
)
from natgen.reveal import halton_order
from natgen.sampling import confidence, draw, guide, remask
from natgen.schedules import (
    COMPONENTS,
    MaskShape,
    StaticSchedule,
    autonat_l8,
    constant,
    maskgit,
    published,
)
from natgen.static_decoder import StaticDecoder
from natgen.training import NATTrainer, NATTrainingConfig
from natgen.transformer import NAT, NATOutput

__all__ = [
    "COMPONENTS",
    "NAT",
    "AttentionChoice",
    "BetaMask",
    "ChecksCondition",
    "CosineMask",
    "DecodingEnvironment",
    "DecodingPolicy",
    "DecodingState",
    "Engine",
    "FinishedSample",
    "FirstStepCache",
    "Generation",
    "GridLogitsModel",
    "KnowsGuidance",
    "LocalEngine",
    "LogitsModel",
    "MaskDistribution",
    "MaskShape",
    "NATConfig",
    "NATOutput",
    "NATTrainer",
    "NATTrainingConfig",
    "NoiseSource",
    "Observation",
    "StaticDecoder",
    "StaticSchedule",
    "StepNoise",
    "StepRecord",
    "TextEncoder",
    "apply",
    "autonat_l8",
    "confidence",
    "constant",
    "decode_behind",
    "draw",
    "generate",
    "generate_continuously",
    "guide",
    "halton_order",
    "import_uvit",
    "init_state",
    "load_uvit",
    "masked_scores",
    "maskgit",
    "nat_b",
    "nat_l",
    "nat_s",
    "nat_text",
    "observe",
    "philox",
    "published",
    "random_mask",
    "remask",
    "step",
]
