"""Tiny models for natgen's tests."""

import dataclasses

import pytest
import torch
from natgen import NAT, NATConfig

CLASS_CONFIG = NATConfig(
    codebook_size=16, grid_size=(3, 4), embed_dim=16, depth=2, num_heads=2, num_classes=5
)
PATCH_CONFIG = dataclasses.replace(CLASS_CONFIG, grid_size=(4, 6), patch_size=2)
TEXT_CONFIG = NATConfig(
    codebook_size=16,
    grid_size=(3, 4),
    embed_dim=16,
    depth=2,
    num_heads=2,
    context_dim=6,
    num_context_tokens=3,
)


def lively(config: NATConfig) -> NAT:
    """A NAT with weights large enough that tokens and conditions matter."""
    torch.manual_seed(0)
    model = NAT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


@pytest.fixture
def class_config() -> NATConfig:
    return CLASS_CONFIG


@pytest.fixture
def class_model() -> NAT:
    return lively(CLASS_CONFIG)


@pytest.fixture
def patch_model() -> NAT:
    return lively(PATCH_CONFIG)


@pytest.fixture
def text_model() -> NAT:
    model = lively(TEXT_CONFIG)
    model.set_null_context(torch.randn(3, 6))
    return model
