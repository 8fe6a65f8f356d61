"""The published discriminator head against its recorded logits."""

import json
from pathlib import Path

import pytest
import torch
from advreward import PublishedHead, import_head
from safetensors import safe_open
from torch import Tensor


@pytest.fixture(scope="module")
def recorded(reference_dir: Path) -> tuple[PublishedHead, dict[str, Tensor]]:
    with safe_open(reference_dir / "disc_head.safetensors", "pt") as file:
        sizes = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    head = PublishedHead(sizes["channels"], sizes["c_dim"], sizes["cmap_dim"]).eval()
    prefix = "state."
    import_head(
        head, {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    )
    return head, tensors


@pytest.mark.parametrize("batch", ["", "2"])
def test_logits(recorded: tuple[PublishedHead, dict[str, Tensor]], batch: str) -> None:
    head, tensors = recorded
    with torch.inference_mode():
        logits = head(tensors[f"in.x{batch}"], tensors[f"in.c{batch}"])
    torch.testing.assert_close(
        logits, tensors[f"out.logits{batch}"].squeeze(1), atol=1e-4, rtol=1e-4
    )


def test_a_foreign_name_is_refused(recorded: tuple[PublishedHead, dict[str, Tensor]]) -> None:
    head, _ = recorded
    with pytest.raises(RuntimeError, match=r"Unexpected key.*surplus\.weight"):
        import_head(head, {"surplus.weight": torch.zeros(1)})
