"""The models and inputs of a preset, with random weights, on one device."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from advreward import (
    AdversarialReward,
    Discriminator,
    DiscriminatorConfig,
    FrozenFeatures,
    efficientnet_lite,
)
from natgen import NAT, LocalEngine, NoiseSource, StaticSchedule, published
from policyrl import GaussianPolicy, PolicyNetwork, PolicyNetworkConfig, decoding_spec
from torch import Tensor, nn
from vqtok import Tokenizer

from natbench.presets import Preset

Precision = Literal["fp32", "bf16"]
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Everything that a suite calls. Weights are random: speed does not depend on them."""

    preset: Preset
    device: torch.device
    precision: Precision
    clock: Callable[[], float]
    """In seconds, as pytest-benchmark's."""
    engine: LocalEngine
    """Forward passes in the asked precision."""
    nat: NAT
    tokenizer: Tokenizer
    backbone: FrozenFeatures
    reward: AdversarialReward
    labels: Tensor
    """(B,) int64."""
    noise: NoiseSource

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix products."""
        return torch.float32 if self.precision == "fp32" else torch.bfloat16

    def cast(self, model: Model) -> Model:
        """A copy with weights in the asked precision, for what cannot run under autocast."""
        return copy.deepcopy(model).to(self.dtype)

    def timed(self, function: Callable[[], object], *, autocast: bool = True) -> Callable[[], None]:
        """`function`, returning only when the device has finished.

        Args:
            function: what is measured.
            autocast: to the asked precision; not for what chooses its precision itself.
        """

        def call() -> None:
            with self.engine.autocast() if autocast else nullcontext():
                function()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return call

    def schedule(self, num_steps: int) -> StaticSchedule:
        """The published hand-made schedule."""
        return published(num_steps)

    def generator(self, name: str) -> NAT:
        """One of the preset's generators."""
        torch.manual_seed(0)
        return NAT(self.preset.generators[name]).eval().to(self.device)

    def policy(self, num_steps: int) -> GaussianPolicy:
        """An untrained policy around the published schedule."""
        spec = decoding_spec(self.schedule(num_steps).values.cpu())
        return GaussianPolicy(self._policy_network(4), spec).eval().to(self.device)

    def value_network(self) -> PolicyNetwork:
        """An untrained critic of the policy's form."""
        return self._policy_network(1).to(self.device)

    def _policy_network(self, num_outputs: int) -> PolicyNetwork:
        return PolicyNetwork(
            PolicyNetworkConfig(
                feature_dim=self.preset.nat.embed_dim,
                grid_size=self.preset.nat.feature_grid,
                num_outputs=num_outputs,
                hidden_dim=self.preset.policy_hidden_dim,
            )
        )


def build_workload(
    preset: Preset, device: torch.device, precision: Precision, clock: Callable[[], float]
) -> Workload:
    """Makes the models of a preset with seeded random weights."""
    torch.manual_seed(0)
    num_classes = preset.nat.num_classes
    nat = NAT(preset.nat).eval().to(device)
    tokenizer = Tokenizer(preset.tokenizer).eval().to(device)
    backbone = efficientnet_lite("lite0", input_size=preset.backbone_size).to(device)
    discriminator = Discriminator(
        DiscriminatorConfig(channels=backbone.channels, num_classes=num_classes)
    ).to(device)
    labels = torch.arange(preset.batch_size, device=device) % (num_classes or 1)
    engine = LocalEngine(bf16_on=None if precision == "fp32" else device.type)
    return Workload(
        preset=preset,
        device=device,
        precision=precision,
        clock=clock,
        engine=engine,
        nat=nat,
        tokenizer=tokenizer,
        backbone=backbone,
        reward=AdversarialReward(backbone, discriminator, engine=engine),
        labels=labels,
        noise=NoiseSource(0),
    )
