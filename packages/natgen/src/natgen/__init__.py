"""natgen: non-autoregressive (masked) token transformers, their training and parallel decoding."""

from natgen.training import BetaMask, CosineMask, NATTrainer, NATTrainingConfig
from natgen.transformer import NAT, NATConfig, NATOutput, nat_b, nat_l, nat_s, nat_text

__all__ = [
    "NAT",
    "BetaMask",
    "CosineMask",
    "NATConfig",
    "NATOutput",
    "NATTrainer",
    "NATTrainingConfig",
    "nat_b",
    "nat_l",
    "nat_s",
    "nat_text",
]
