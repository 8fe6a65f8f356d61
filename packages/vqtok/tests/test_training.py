import copy
import io
import math
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from vqtok import (
    LocalEngine,
    Tokenizer,
    TokenizerConfig,
    TokenizerTrainer,
    TokenizerTrainingConfig,
)


def batch(step: int) -> torch.Tensor:
    """Images of 2x2 tiles in random colours, one tile per code."""
    colours = torch.rand(16, 3, 2, 2, generator=torch.Generator().manual_seed(step))
    return colours.repeat_interleave(6, dim=2).repeat_interleave(6, dim=3)


def pixels(images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"pixels": images}


def test_loss_falls_and_codes_are_used(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    trainer = TokenizerTrainer(tokenizer, TokenizerTrainingConfig(learning_rate=3e-3))
    history = [trainer.step(batch(0)) for _ in range(100)]
    # Uniform colours are 0.25 from the best constant, so the codes must tell the tiles apart.
    assert history[0]["reconstruction"] > 0.4
    assert history[-1]["reconstruction"] < 0.19
    assert history[-1]["usage"] > 0.5
    assert all(math.isfinite(value) for metrics in history for value in metrics.values())


def test_llamagen_architecture_learns() -> None:
    torch.manual_seed(0)
    config = TokenizerConfig(
        image_size=12,
        base_channels=8,
        codebook_size=16,
        codebook_dim=4,
        norm_groups=4,
        normalize_codes=True,
        dead_code_threshold=0.5,
        architecture="llamagen",
        latent_channels=6,
    )
    trainer = TokenizerTrainer(Tokenizer(config), TokenizerTrainingConfig(learning_rate=3e-3))
    history = [trainer.step(batch(0)) for _ in range(30)]
    assert history[-1]["reconstruction"] < 0.75 * history[0]["reconstruction"]


def test_metrics_add_up(tokenizer: Tokenizer) -> None:
    config = TokenizerTrainingConfig(
        reconstruction_weight=2.0, perceptual_weight=0.5, reconstruction_loss="l2"
    )
    metrics = TokenizerTrainer(tokenizer, config, perceptual=pixels).step(batch(0))
    expected = 2.0 * metrics["reconstruction"] + metrics["commitment"] + 0.5 * metrics["perceptual"]
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_resumed_training_is_bitwise_the_same(config: TokenizerConfig) -> None:
    training = TokenizerTrainingConfig(warmup_steps=2, total_steps=8)
    torch.manual_seed(0)
    whole = TokenizerTrainer(Tokenizer(config), training)
    for step in range(3):
        whole.step(batch(step))
    file = io.BytesIO()
    torch.save({"trainer": whole.state_dict(), "rng": torch.get_rng_state()}, file)
    expected = [whole.step(batch(step)) for step in range(3, 6)]

    torch.manual_seed(99)
    resumed = TokenizerTrainer(Tokenizer(config), training)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed.load_state_dict(saved["trainer"])
    torch.set_rng_state(saved["rng"])
    assert [resumed.step(batch(step)) for step in range(3, 6)] == expected
    for ours, theirs in [
        (resumed.tokenizer, whole.tokenizer),
        (resumed.ema_tokenizer, whole.ema_tokenizer),
    ]:
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name


def test_averaged_weights(tokenizer: Tokenizer) -> None:
    trainer = TokenizerTrainer(tokenizer, TokenizerTrainingConfig(ema_decay=0.2))
    expected: dict[str, torch.Tensor] = {}
    for step, decay in enumerate((0.0, 2 / 11, 0.2, 0.2)):
        trainer.step(batch(step))
        for name, value in tokenizer.named_parameters():
            now = value.detach().clone()
            expected[name] = decay * expected.get(name, now) + (1 - decay) * now
    averaged = trainer.ema_tokenizer
    assert not averaged.training
    for name, value in averaged.named_parameters():
        torch.testing.assert_close(value, expected[name])
    assert torch.equal(averaged.quantizer.codebook, tokenizer.quantizer.codebook)


def test_averaging_warms_up() -> None:
    config = TokenizerTrainingConfig(ema_decay=0.999)
    decays = [config.averaging_decay(step) for step in (0, 1, 90, 10**6)]
    assert decays == pytest.approx([0.1, 2 / 11, 0.91, 0.999])


def test_averaged_tokenizer_can_be_saved(tokenizer: Tokenizer, tmp_path: object) -> None:
    trainer = TokenizerTrainer(tokenizer, TokenizerTrainingConfig())
    trainer.step(batch(0))
    trainer.ema_tokenizer.save_pretrained(str(tmp_path))
    loaded = Tokenizer.from_pretrained(str(tmp_path))
    assert torch.equal(loaded.encode(batch(1)), trainer.ema_tokenizer.encode(batch(1)))


def test_learning_rate_schedule(tokenizer: Tokenizer) -> None:
    config = TokenizerTrainingConfig(learning_rate=1.0, warmup_steps=2, total_steps=6)
    rates = [config.learning_rate_factor(step) for step in range(8)]
    half = math.sqrt(0.5)
    assert rates == pytest.approx(
        [0.5, 1.0, 1.0, (1 + half) / 2, 0.5, (1 - half) / 2, 0.0, 0.0], abs=1e-12
    )
    constant = TokenizerTrainingConfig(learning_rate=1.0, warmup_steps=2)
    assert [constant.learning_rate_factor(step) for step in (0, 1, 1000)] == [0.5, 1.0, 1.0]
    trainer = TokenizerTrainer(
        tokenizer, TokenizerTrainingConfig(learning_rate=1e-3, warmup_steps=2)
    )
    assert [trainer.step(batch(0))["learning_rate"] for _ in range(3)] == [5e-4, 1e-3, 1e-3]


class CountingEngine:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def autocast(self) -> AbstractContextManager[object]:
        self.calls.append("autocast")
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        self.calls.append("backward")
        loss.backward()


def test_engine_runs_the_step(tokenizer: Tokenizer) -> None:
    engine = CountingEngine()
    TokenizerTrainer(tokenizer, TokenizerTrainingConfig(), engine=engine).step(batch(0))
    assert engine.calls == ["autocast", "backward"]


def test_trains_under_bfloat16_autocast(tokenizer: Tokenizer) -> None:
    outputs = []
    tokenizer.decoder.register_forward_hook(lambda *args: outputs.append(args[2].dtype))
    engine = LocalEngine(bf16_on="cpu")
    trainer = TokenizerTrainer(tokenizer, TokenizerTrainingConfig(), engine=engine)
    losses = [trainer.step(batch(0))["loss"] for _ in range(10)]
    assert outputs == [torch.bfloat16] * 10
    assert losses[-1] < losses[0]
    assert tokenizer.quantizer.codebook.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate.*0.0"),
        ({"betas": (0.9, 1.0)}, "betas.*1.0"),
        ({"weight_decay": -1.0}, "weight_decay.*-1"),
        ({"warmup_steps": 5, "total_steps": 5}, r"exceed warmup_steps \(5\), got 5"),
        ({"reconstruction_loss": "huber"}, "'l1', 'l2'.*'huber'"),
        ({"ema_decay": 1.0}, "ema_decay.*1.0"),
        ({"grad_clip": 0.0}, "grad_clip.*0.0"),
    ],
)
def test_bad_training_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerTrainingConfig(**change)


def test_perceptual_features_and_weight_go_together(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"no features and perceptual_weight 0\.5"):
        TokenizerTrainer(tokenizer, TokenizerTrainingConfig(perceptual_weight=0.5))
    with pytest.raises(ValueError, match="features and perceptual_weight 0"):
        TokenizerTrainer(tokenizer, TokenizerTrainingConfig(), perceptual=pixels)


def test_a_gradient_that_is_not_finite_changes_no_weight(tokenizer: Tokenizer) -> None:
    trainer = TokenizerTrainer(tokenizer, TokenizerTrainingConfig())
    trainer.step(batch(0))
    before = copy.deepcopy(dict(tokenizer.named_parameters()))
    average = copy.deepcopy(dict(trainer.ema_tokenizer.named_parameters()))
    with pytest.raises(FloatingPointError, match="norm is nan in step 1"):
        trainer.step(batch(1) * math.nan)
    for name, value in tokenizer.named_parameters():
        assert torch.equal(value, before[name]), name
    for name, value in trainer.ema_tokenizer.named_parameters():
        assert torch.equal(value, average[name]), name
