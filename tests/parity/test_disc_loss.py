"""The discriminator's losses and the reward against the recorded ones."""

from pathlib import Path

import pytest
import torch
from advreward import accuracy, discriminator_loss, reward_from_logits
from safetensors.torch import load_file


@pytest.mark.parametrize("name", ["bce", "hinge"])
def test_loss_and_gradients(reference_dir: Path, name: str) -> None:
    tensors = load_file(reference_dir / "disc_loss.safetensors")
    real = tensors["in.real_logits"].requires_grad_()
    fake = tensors["in.fake_logits"].requires_grad_()
    loss = discriminator_loss(name, real, fake)
    torch.testing.assert_close(loss, tensors[f"out.{name}"].squeeze(), atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad(loss, (real, fake))
    for gradient, side in zip(gradients, ("real", "fake"), strict=True):
        expected = tensors[f"out.{name}.grad_{side}"]
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)


def test_accuracy_and_reward(reference_dir: Path) -> None:
    tensors = load_file(reference_dir / "disc_loss.safetensors")
    real, fake = tensors["in.real_logits"], tensors["in.fake_logits"]
    torch.testing.assert_close(accuracy(real, fake), tensors["out.accuracy"].squeeze())
    for logits, key in ((fake, "out.reward"), (real, "out.reward_real")):
        reward = reward_from_logits("probability", logits)
        torch.testing.assert_close(reward, tensors[key].squeeze(1), atol=1e-6, rtol=1e-5)
