"""What is measured: sizes of the models, batches and decoding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from natgen import NATConfig, nat_b, nat_l, nat_s
from vqtok import TokenizerConfig, f16_vqgan, small


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Sizes of one benchmark.

    Attributes:
        name: as given on the command line.
        description: one line for `--help`.
        tokenizer: the image tokenizer.
        nat: the transformer; its codes and grid are the tokenizer's.
        generators: the transformers that generate whole images, by the names of their results.
        policy_hidden_dim: width of the policy network.
        batch_size: samples per call.
        num_steps: decoding lengths T of whole generations.
        backbone_size: side to which the reward resizes images.
    """

    name: str
    description: str
    tokenizer: TokenizerConfig
    nat: NATConfig
    generators: Mapping[str, NATConfig]
    policy_hidden_dim: int
    batch_size: int
    num_steps: tuple[int, ...] = (4, 8, 12)
    backbone_size: int

    def __post_init__(self) -> None:
        if self.nat.grid_size != self.tokenizer.grid_size:
            raise ValueError(
                f"preset {self.name!r}: the NAT's grid is {self.nat.grid_size}, "
                f"the tokenizer's {self.tokenizer.grid_size}; they must be equal"
            )
        if self.nat.codebook_size != self.tokenizer.codebook_size:
            raise ValueError(
                f"preset {self.name!r}: the NAT has {self.nat.codebook_size} codes, "
                f"the tokenizer {self.tokenizer.codebook_size}; they must be equal"
            )
        if any(nat.num_classes is None for nat in (self.nat, *self.generators.values())):
            raise ValueError(f"preset {self.name!r}: only class conditions are measured")
        if self.batch_size < 1 or not self.num_steps or min(self.num_steps) < 1:
            raise ValueError(
                f"preset {self.name!r}: batch_size and num_steps must be positive, "
                f"got {self.batch_size} and {self.num_steps}"
            )


def tiny() -> Preset:
    """Seconds for the whole suite: says that it runs, nothing about speed."""
    tokenizer = small(16, downsample_factors=(2, 2), base_channels=8, codebook_size=32)
    nat = NATConfig(
        codebook_size=tokenizer.codebook_size,
        grid_size=tokenizer.grid_size,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=10,
    )
    return Preset(
        name="tiny",
        description="a few seconds in all; for the tests of the suite itself",
        tokenizer=tokenizer,
        nat=nat,
        generators={"S16": nat},
        policy_hidden_dim=32,
        batch_size=4,
        num_steps=(4,),
        backbone_size=32,
    )


def laptop() -> Preset:
    """The sizes of the Fashion-MNIST recipe: 28 pixels, 49 tokens, a small NAT.

    Beside the recipe's NAT (B28) a smaller and a larger one, and one on four times the tokens.
    """
    tokenizer = small(28, downsample_factors=(2, 2), base_channels=16)
    nat = NATConfig(
        codebook_size=tokenizer.codebook_size,
        grid_size=tokenizer.grid_size,
        embed_dim=96,
        depth=4,
        num_heads=4,
        num_classes=10,
    )
    return Preset(
        name="laptop",
        description="28 px images, 7x7 tokens, NAT of width 96; a few minutes on one CPU core",
        tokenizer=tokenizer,
        nat=nat,
        generators={
            "S28": replace(nat, embed_dim=64, depth=2),
            "B28": nat,
            "L28": replace(nat, embed_dim=128, depth=6),
            "B56": replace(nat, grid_size=(14, 14)),
        },
        policy_hidden_dim=128,
        batch_size=16,
        backbone_size=64,
    )


def full() -> Preset:
    """The published sizes: S, B and L at 256 and at 512 pixels, all else as for L at 256.

    At 512 pixels a square of 2x2 codes makes one position of the transformer.
    """
    sizes = {"S": nat_s, "B": nat_b, "L": nat_l}
    return Preset(
        name="full",
        description="the published sizes at 256 and 512 px; wants a GPU",
        tokenizer=f16_vqgan(),
        nat=nat_l(),
        generators={
            f"{size}{16 * side}": make(grid_size=(side, side), patch_size=side // 16)
            for side in (16, 32)
            for size, make in sizes.items()
        },
        policy_hidden_dim=512,
        batch_size=64,
        backbone_size=224,
    )


PRESETS: dict[str, Callable[[], Preset]] = {"tiny": tiny, "laptop": laptop, "full": full}
