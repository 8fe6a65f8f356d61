"""Weights in published formats."""

from collections.abc import Mapping

from torch import Tensor

from natgen.config import NATConfig
from natgen.transformer import NAT

_RENAMES = (  # official part of a name -> ours
    ("token_emb.", "token_embedding."),
    ("word_embeddings.", "word."),
    ("position_embeddings.weight", "position"),
    ("LayerNorm.", "norm."),
    (".attn.", ".attention."),
    (".mlp.fc1.", ".mlp.0."),
    (".mlp.fc2.", ".mlp.2."),
    ("skip_linear.", "skip."),
    ("mlm_layer.fc.", "head.fc."),
    ("mlm_layer.ln.", "head.norm."),
    ("mlm_layer.bias", "head.bias"),
)
_NOT_PUBLISHED = frozenset({"condition.null_context"})  # ours alone; stays at zeros


def import_uvit(state_dict: Mapping[str, Tensor], config: NATConfig) -> NAT:
    """A NAT from the weights of AutoNAT's and AdaNAT's ``UViT`` (``libs/uvit.py``).

    The published class count includes the null class, ``config.num_classes`` does not. A
    text-conditional NAT's ``null_context`` is not among the weights: set it afterwards.

    Args:
        state_dict: tensors by their official names.
        config: sizes of the model.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: naming the missing and unexpected official keys, or the tensor whose shape
            does not fit ``config``.
    """
    model = NAT(config)
    own = model.state_dict()
    renamed = {_own_name(name, config): name for name in state_dict}
    missing = sorted(own.keys() - renamed.keys() - _NOT_PUBLISHED)
    unexpected = sorted(renamed[name] for name in renamed.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(
            f"not the weights of a UViT of depth {config.depth}: missing {missing} (our names), "
            f"unexpected {unexpected} (official names)"
        )
    weights = {name: own[name] for name in _NOT_PUBLISHED & own.keys()}
    for name, official in renamed.items():
        weight = state_dict[official]
        if name == "head.bias":  # (1, 1, V + 1): the mask column is never predicted
            weight = weight.flatten()[: config.codebook_size]
        if weight.shape != own[name].shape:
            raise ValueError(
                f"{official} is {tuple(weight.shape)}, but the config asks for "
                f"{tuple(own[name].shape)}"
            )
        weights[name] = weight
    model.load_state_dict(weights)
    return model.eval()


def _own_name(name: str, config: NATConfig) -> str:
    kind = "embedding" if config.num_classes is not None else "projection"
    name = name.replace("context_embed.", f"condition.{kind}.")
    for official, own in _RENAMES:
        name = name.replace(official, own)
    return name
