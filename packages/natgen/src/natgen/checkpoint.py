"""Weights in published formats."""

import os
import re
from collections.abc import Mapping
from math import isqrt

from torch import Tensor

from natgen.config import NATConfig, nat_l, nat_s, nat_text
from natgen.transformer import NAT
from natgen.weight_files import read_weights

_RENAMES = (  # ours -> official, applied in this order
    (r"^(token_embedding|condition\.embedding)\.norm\.", r"\1.LayerNorm."),
    (r"^(token_embedding|condition\.embedding)\.word\.", r"\1.word_embeddings."),
    (r"^(token_embedding|condition\.embedding)\.position$", r"\1.position_embeddings.weight"),
    (r"^token_embedding\.", "token_emb."),
    (r"^condition\.(embedding|projection)\.", "context_embed."),
    (r"\.attention\.", ".attn."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.2\.", ".mlp.fc2."),
    (r"\.skip\.", ".skip_linear."),
    (r"^head\.fc\.", "mlm_layer.fc."),
    (r"^head\.norm\.", "mlm_layer.ln."),
    (r"^head\.bias$", "mlm_layer.bias"),
)
_COUNTERS = "position_ids"  # 0, 1, 2, ...: the text checkpoint has them, and no use for them
_NOT_PUBLISHED = frozenset({"condition.null_context"})  # ours alone; stays at zeros
_PUBLISHED_HEADS = {size().embed_dim: size().num_heads for size in (nat_s, nat_l, nat_text)}


def import_uvit(state_dict: Mapping[str, Tensor], config: NATConfig) -> NAT:
    """A NAT from the weights of AutoNAT's and AdaNAT's ``UViT`` (``libs/uvit.py``).

    The published class count includes the null class, ``config.num_classes`` does not. A
    text-conditional NAT's null context is not among the weights: set it with
    `NAT.set_null_context` before decoding with guidance.

    Args:
        state_dict: tensors by their official names; ``position_ids`` among them are ignored.
        config: sizes of the model.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: naming the missing and unexpected official keys, or the tensor whose shape
            does not fit ``config``.
    """
    model = NAT(config)
    own = model.state_dict()
    officials = {_official_name(name): name for name in own.keys() - _NOT_PUBLISHED}
    missing = sorted(officials.keys() - state_dict.keys())
    unexpected = sorted(
        name for name in state_dict.keys() - officials.keys() if _COUNTERS not in name
    )
    if missing or unexpected:
        raise ValueError(
            f"not the weights of a UViT of depth {config.depth}: missing {missing}, "
            f"unexpected {unexpected}"
        )
    weights = {name: own[name] for name in _NOT_PUBLISHED & own.keys()}
    for official, name in officials.items():
        weight = state_dict[official]
        if name == "head.bias":  # (1, 1, V + 1): the mask column is never predicted
            weight = weight.flatten()[:-1]
        if weight.shape != own[name].shape:
            raise ValueError(
                f"{official} is {tuple(weight.shape)}, but the config asks for "
                f"{tuple(own[name].shape)}"
            )
        weights[name] = weight
    model.load_state_dict(weights)
    return model.eval()


def load_uvit(
    path: str | os.PathLike[str],
    *,
    num_heads: int | None = None,
    grid_size: tuple[int, int] | None = None,
    num_context_tokens: int = 77,
) -> NAT:
    """A NAT from a published checkpoint file; the sizes are read off the weights' shapes.

    Args:
        path: a `.safetensors`, `.pth`, `.pt` or `.ckpt` file; see `read_weights`.
        num_heads: attention heads, which no shape shows; default those of the published sizes.
        grid_size: (height, width) of the token grid; default a square one.
        num_context_tokens: of a text-conditional model; the default is CLIP's. Set its null context
            afterwards: see `import_uvit`.

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file, and what is wrong: see `read_weights` and `import_uvit`.
    """
    weights = read_weights(path)
    try:
        config = _infer_config(weights, num_heads, grid_size, num_context_tokens)
        return import_uvit(weights, config)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error


def _infer_config(
    weights: Mapping[str, Tensor],
    num_heads: int | None,
    grid_size: tuple[int, int] | None,
    num_context_tokens: int,
) -> NATConfig:
    rows, embed_dim = _shape(weights, "token_emb.word_embeddings.weight")
    length, _ = _shape(weights, "token_emb.position_embeddings.weight")
    hidden, _ = _shape(weights, "mid_block.mlp.fc1.weight")
    if grid_size is None:
        side = isqrt(length)
        if side * side != length:
            raise ValueError(f"{length} tokens make no square grid: give grid_size")
        grid_size = (side, side)
    if num_heads is None:
        if embed_dim not in _PUBLISHED_HEADS:
            raise ValueError(
                f"no shape shows the attention heads, and width {embed_dim} is not published: "
                "give num_heads"
            )
        num_heads = _PUBLISHED_HEADS[embed_dim]
    classes, context_dim = "context_embed.word_embeddings.weight", None
    num_classes = _shape(weights, classes)[0] - 1 if classes in weights else None
    if num_classes is None:
        _, context_dim = _shape(weights, "context_embed.weight")
    return NATConfig(
        codebook_size=rows - 1,  # the last row is the mask token's
        grid_size=grid_size,
        embed_dim=embed_dim,
        depth=2 * len({name.split(".")[1] for name in weights if name.startswith("in_blocks.")}),
        num_heads=num_heads,
        mlp_ratio=hidden / embed_dim,
        num_classes=num_classes,
        context_dim=context_dim,
        num_context_tokens=1 if context_dim is None else num_context_tokens,
    )


def _shape(weights: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    if name not in weights:
        raise ValueError(f"not the weights of a UViT: missing {name!r} among {sorted(weights)}")
    if weights[name].ndim != 2:
        raise ValueError(f"{name} is {tuple(weights[name].shape)}, but must have two axes")
    rows, columns = weights[name].shape
    return rows, columns


def _official_name(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
