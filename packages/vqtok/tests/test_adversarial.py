import copy
import io
import math

import pytest
import torch
from torch import nn
from vqtok import (
    AdversarialTrainingConfig,
    LocalEngine,
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    Tokenizer,
    TokenizerConfig,
    TokenizerTrainer,
    TokenizerTrainingConfig,
)
from vqtok.adversarial import Adversary, adaptive_weight
from vqtok.discriminator import hinge_loss

SMALL = PatchDiscriminatorConfig(base_channels=8, num_layers=1, norm_groups=2)


def batch(step: int) -> torch.Tensor:
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(step))


def training(**change: object) -> TokenizerTrainingConfig:
    return TokenizerTrainingConfig(
        adversarial=AdversarialTrainingConfig(**{"discriminator": SMALL, **change})
    )


@pytest.mark.parametrize(("num_layers", "smallest"), [(1, 6), (2, 12), (3, 24)])
def test_smallest_image(num_layers: int, smallest: int) -> None:
    config = PatchDiscriminatorConfig(base_channels=8, num_layers=num_layers)
    discriminator = PatchDiscriminator(config)
    assert config.min_image_size == smallest
    assert discriminator(torch.zeros(2, 3, smallest, smallest)).shape == (2, 1, 1, 1)
    with pytest.raises(RuntimeError, match="Kernel size"):
        discriminator(torch.zeros(2, 3, smallest - 1, smallest - 1))


def test_published_size() -> None:
    """taming-transformers' NLayerDiscriminator: 2,765,633 parameters, 30x30 logits at 256 px."""
    discriminator = PatchDiscriminator(PatchDiscriminatorConfig())
    assert sum(value.numel() for value in discriminator.parameters()) == 2_765_633
    assert discriminator(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_a_logit_depends_on_its_own_image() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(SMALL).train()
    images = batch(0)
    torch.testing.assert_close(discriminator(images)[:1], discriminator(images[:1]))


def test_hinge_loss_of_known_logits() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 3.0])
    expected = 0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1 + 4) / 3)
    assert hinge_loss(real, fake).item() == pytest.approx(expected)


def test_adaptive_weight_is_the_ratio_of_gradients() -> None:
    layer = nn.Parameter(torch.tensor([1.0, 2.0]))
    fidelity, adversarial = (layer * torch.tensor([6.0, 8.0])).sum(), 2 * layer[0]
    assert adaptive_weight(fidelity, adversarial, layer, 1e4).item() == pytest.approx(5, rel=1e-5)
    assert adaptive_weight(fidelity, adversarial, layer, 3.0).item() == 3
    assert not adaptive_weight(fidelity, adversarial, layer, 3.0).requires_grad


def test_metrics_add_up(tokenizer: Tokenizer) -> None:
    metrics = TokenizerTrainer(tokenizer, training(weight=0.3)).step(batch(0))
    pull = 0.3 * metrics["adaptive_weight"] * metrics["adversarial"]
    expected = metrics["reconstruction"] + metrics["commitment"] + pull
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    # The discriminator judges the same reconstructions, before it learns.
    assert metrics["fake_logits"] == pytest.approx(-metrics["adversarial"], rel=1e-5)


def test_the_verdict_pulls_as_hard_as_asked(tokenizer: Tokenizer) -> None:
    config = AdversarialTrainingConfig(weight=0.3, discriminator=SMALL)
    adversary = Adversary(config, 3, torch.device("cpu"), LocalEngine())
    reconstruction = tokenizer(batch(0)).reconstruction
    fidelity = reconstruction.square().mean()
    last_layer = tokenizer.decoder.conv_out.weight
    penalty, _ = adversary.penalty(0, fidelity, reconstruction, last_layer)
    wanted = 0.3 * torch.autograd.grad(fidelity, last_layer, retain_graph=True)[0].norm()
    penalty.backward()
    torch.testing.assert_close(last_layer.grad.norm(), wanted, rtol=1e-3, atol=0)
    assert all(value.grad is None for value in adversary.discriminator.parameters())


def test_phases(tokenizer: Tokenizer) -> None:
    trainer = TokenizerTrainer(tokenizer, training(start_step=2, discriminator_start_step=1))
    history = [set(trainer.step(batch(step))) for step in range(3)]
    judging = {"discriminator_loss", "discriminator_grad_norm", "real_logits", "fake_logits"}
    assert history[1] - history[0] == judging
    assert history[2] - history[1] == {"adversarial", "adaptive_weight"}


def test_every_trained_module_is_named(tokenizer: Tokenizer) -> None:
    trainer = TokenizerTrainer(tokenizer, training(learning_rate=1e-2))
    modules = trainer.trained_modules
    assert modules[0] is tokenizer
    before = copy.deepcopy(modules)
    trainer.step(batch(0))
    for old, new in zip(before, modules, strict=True):
        pairs = zip(old.parameters(), new.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)
    named = {id(value) for module in modules for value in module.parameters()}
    state = trainer.state_dict()
    groups = [
        group
        for optimizer in (state["optimizer"], state["adversary"]["optimizer"])
        for group in optimizer["param_groups"]
    ]
    assert sum(len(group["params"]) for group in groups) == len(named)
    assert TokenizerTrainer(tokenizer, TokenizerTrainingConfig()).trained_modules == (tokenizer,)


def test_until_it_starts_nothing_differs(config: TokenizerConfig) -> None:
    runs = []
    for settings in (TokenizerTrainingConfig(), training(start_step=2)):
        torch.manual_seed(0)
        tokenizer = Tokenizer(config)
        trainer = TokenizerTrainer(tokenizer, settings)
        torch.manual_seed(1)
        runs.append([trainer.step(batch(step)) for step in range(2)])
    assert runs[0] == runs[1]


def test_the_discriminator_learns() -> None:
    """Reconstructions of an untrained decoder are easily told from noise."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(
        TokenizerConfig(
            image_size=12, base_channels=8, norm_groups=4, codebook_size=16, codebook_dim=4
        )
    )
    settings = training(start_step=1000, discriminator_start_step=0, learning_rate=5e-3)
    trainer = TokenizerTrainer(tokenizer, settings)
    history = [trainer.step(batch(step)) for step in range(20)]
    assert history[0]["discriminator_loss"] > 0.7
    assert history[-1]["discriminator_loss"] < 0.4
    assert history[-1]["real_logits"] > 0 > history[-1]["fake_logits"]


def test_resumed_training_is_bitwise_the_same(config: TokenizerConfig) -> None:
    settings = training(start_step=3, discriminator_start_step=1)
    torch.manual_seed(0)
    whole = TokenizerTrainer(Tokenizer(config), settings)
    for step in range(2):
        whole.step(batch(step))
    file = io.BytesIO()
    torch.save({"trainer": whole.state_dict(), "rng": torch.get_rng_state()}, file)
    expected = [whole.step(batch(step)) for step in range(2, 6)]

    torch.manual_seed(99)
    resumed = TokenizerTrainer(Tokenizer(config), settings)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed.load_state_dict(saved["trainer"])
    torch.set_rng_state(saved["rng"])
    assert [resumed.step(batch(step)) for step in range(2, 6)] == expected
    for name, value in whole.tokenizer.state_dict().items():
        assert torch.equal(resumed.tokenizer.state_dict()[name], value), name


def test_trains_under_bfloat16_autocast(tokenizer: Tokenizer) -> None:
    trainer = TokenizerTrainer(tokenizer, training(), engine=LocalEngine(bf16_on="cpu"))
    history = [trainer.step(batch(0)) for _ in range(3)]
    assert all(math.isfinite(value) for metrics in history for value in metrics.values())


def test_a_discriminator_gradient_that_is_not_finite_changes_nothing(tokenizer: Tokenizer) -> None:
    trainer = TokenizerTrainer(tokenizer, training())
    adversary = trainer.state_dict()["adversary"]["discriminator"]
    adversary["layers.0.bias"].fill_(math.inf)  # the trainer's own tensor
    before = copy.deepcopy(dict(tokenizer.named_parameters()))
    with pytest.raises(FloatingPointError, match="norm is nan in step 0"):
        trainer.step(batch(0))
    for name, value in tokenizer.named_parameters():
        assert torch.equal(value, before[name]), name


def test_images_too_small_for_the_discriminator_are_refused(tokenizer: Tokenizer) -> None:
    discriminator = PatchDiscriminatorConfig(base_channels=8, num_layers=3)
    with pytest.raises(ValueError, match=r"needs images of 24 pixels a side.*have 12.*than 3"):
        TokenizerTrainer(tokenizer, training(discriminator=discriminator))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 0.0}, "weight must be positive, got 0.0"),
        ({"max_adaptive_weight": -1.0}, "max_adaptive_weight.*-1.0"),
        ({"learning_rate": 0.0}, "learning_rate.*0.0"),
        ({"start_step": -1}, "start_step must not be negative, got -1"),
        ({"start_step": 3, "discriminator_start_step": 4}, r"\[0, start_step = 3\], got 4"),
        ({"betas": (0.5, 1.0)}, "betas.*1.0"),
        ({"grad_clip": 0.0}, "grad_clip.*0.0"),
    ],
)
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdversarialTrainingConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"base_channels": 12}, r"base_channels \(12\) must be divisible by norm_groups, got 8"),
    ],
)
def test_bad_sizes_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchDiscriminatorConfig(**change)
