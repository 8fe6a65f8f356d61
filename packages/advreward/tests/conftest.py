from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from advreward import FrozenFeatures, efficientnet_lite
from torch import Tensor


class ToyBackbone:
    """Two feature maps that cost nothing: the colours at two resolutions."""

    channels = {"fine": 3, "coarse": 3}  # noqa: RUF012

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        return {"fine": F.avg_pool2d(images, 2), "coarse": F.avg_pool2d(images, 8)}


@pytest.fixture
def toy() -> ToyBackbone:
    return ToyBackbone()


@pytest.fixture(scope="session")
def lite0() -> FrozenFeatures:
    return efficientnet_lite("lite0", input_size=32)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
