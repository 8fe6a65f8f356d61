"""Mask distributions, the loss, learning, and resuming bit for bit."""

import copy
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from natgen import (
    NAT,
    BetaMask,
    CosineMask,
    LocalEngine,
    NATTrainer,
    NATTrainingConfig,
    NoiseSource,
    generate,
    masked_scores,
    published,
    random_mask,
)
from natgen.losses import score_metrics

SHORT = NATTrainingConfig(
    learning_rate=3e-3,
    warmup_steps=4,
    total_steps=40,
    lr_schedule="cosine",
    ema_decay=0.9,
    grad_clip=1.0,
)


def make_trainer(class_config, config=SHORT, seed=0):
    torch.manual_seed(1)
    return NATTrainer(NAT(class_config), config, seed=seed)


def batch_of(step, size=8):
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(5, (size,), generator=generator)
    return (labels[:, None, None] * 3 + torch.arange(12).view(3, 4)) % 16, labels


def test_cosine_mask_distribution():
    ratios = CosineMask().sample(100_000, torch.Generator().manual_seed(0))
    assert ratios.min() >= 0
    assert ratios.max() <= 1
    assert ratios.mean() == pytest.approx(2 / math.pi, abs=0.005)
    assert (ratios < 0.5).float().mean() == pytest.approx(1 / 3, abs=0.006)  # arccos(1/2) = pi/3


def test_beta_mask_distribution():
    ratios = BetaMask().sample(100_000, torch.Generator().manual_seed(0))
    assert ratios.mean() == pytest.approx(0.8, abs=0.002)
    assert ratios.var() == pytest.approx(12 * 3 / (15**2 * 16), rel=0.03)
    again = BetaMask().sample(100_000, torch.Generator().manual_seed(0))
    assert torch.equal(ratios, again)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 40), st.integers(0, 99))
def test_random_mask_counts(ratios, length, seed):
    ratio = torch.tensor(ratios)
    masked = random_mask(ratio, length, torch.Generator().manual_seed(seed))
    expected = (ratio * length).ceil().clamp(1, length)
    assert torch.equal(masked.sum(1), expected.long())


def test_random_mask_resolves_ties_by_position():
    torch.manual_seed(0)
    noise = (torch.rand(50, 40) * 8).floor() / 8  # ties everywhere

    def rand(*size, generator, device):
        return noise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", rand)
        masked = random_mask(torch.full((50,), 0.5), 40, torch.Generator(), "cpu")
    for row, expected in zip(masked, noise.tolist(), strict=True):
        order = sorted(range(40), key=expected.__getitem__)  # a stable sort
        assert row.nonzero().flatten().tolist() == sorted(order[:20])


def test_random_mask_is_uniform_over_positions():
    masked = random_mask(torch.full((20_000,), 0.3), 10, torch.Generator().manual_seed(0))
    torch.testing.assert_close(masked.float().mean(0), torch.full((10,), 0.3), atol=0.02, rtol=0)


def test_scores_count_masked_positions_only():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=generator, requires_grad=True)
    tokens = torch.randint(7, (3, 5), generator=generator)
    masked = torch.zeros(3, 5, dtype=torch.bool)
    masked[0, 1] = masked[0, 3] = masked[2, 4] = True
    scores = masked_scores(logits, tokens, masked)
    log_prob = logits.log_softmax(-1)
    chosen = log_prob.gather(-1, tokens[..., None])[..., 0]
    expected = torch.stack([-chosen[0, 1] - chosen[0, 3], torch.tensor(0.0), -chosen[2, 4]])
    torch.testing.assert_close(scores[:, 0], expected)
    right = logits.argmax(-1) == tokens
    assert scores[:, 1].tolist() == [float(right[0, 1]) + float(right[0, 3]), 0.0, right[2, 4]]
    assert scores[:, 2].tolist() == [2, 0, 1]
    scores[:, 0].sum().backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, masked)
    smooth = masked_scores(logits, tokens, masked, 0.1)[:, 0].sum()
    spread = -log_prob[masked].mean(-1).sum()
    torch.testing.assert_close(smooth, 0.9 * scores[:, 0].sum() + 0.1 * spread)


def test_metrics_by_mask_ratio():
    scores = torch.tensor([[2.0, 1, 2], [6.0, 0, 3], [3.0, 3, 6], [20.0, 5, 10]])  # of 10 tokens
    metrics = score_metrics(scores, 10, 5, grad_norm=torch.tensor(0.5))
    assert metrics == pytest.approx(
        {
            "loss": 31 / 21,
            "accuracy": 9 / 21,
            "mask_ratio": 21 / 40,
            "grad_norm": 0.5,
            "loss_mask_0_20": 1.0,  # 20 % belong to the part below
            "accuracy_mask_0_20": 0.5,
            "loss_mask_20_40": 2.0,
            "accuracy_mask_20_40": 0.0,
            "loss_mask_40_60": 0.5,
            "accuracy_mask_40_60": 0.5,
            "loss_mask_80_100": 2.0,
            "accuracy_mask_80_100": 0.5,
        }
    )


def test_defaults_are_the_published_recipe():
    config = NATTrainingConfig()
    assert (config.learning_rate, config.betas, config.weight_decay) == (4e-4, (0.99, 0.99), 0.03)
    assert (config.warmup_steps, config.total_steps, config.lr_schedule) == (
        5000,
        500_000,
        "constant",
    )
    assert config.mask_distribution == BetaMask(alpha=12.0, beta=3.0)
    assert (config.label_smoothing, config.condition_dropout) == (0.1, 0.15)
    assert config.ema_decay == 0.9999


def test_learning_rate_schedule():
    cosine = [SHORT.lr_factor(step) for step in range(41)]
    assert cosine[:4] == [0.25, 0.5, 0.75, 1.0]
    assert cosine[22] == pytest.approx(0.5)
    assert cosine[40] == pytest.approx(0.0)
    assert NATTrainingConfig(warmup_steps=0).lr_factor(0) == 1.0


def test_learns_a_deterministic_pattern(class_config):
    config = NATTrainingConfig(
        learning_rate=1e-2,
        betas=(0.9, 0.99),
        warmup_steps=5,
        total_steps=100,
        ema_decay=0.9,
        label_smoothing=0.0,
    )
    trainer = make_trainer(dataclasses.replace(class_config, dropout=0.0), config)
    validation = batch_of(999, 64)
    before = trainer.evaluate_loss(*validation, torch.Generator().manual_seed(5))
    for step in range(100):
        metrics = trainer.step(*batch_of(step, 32))
    after = trainer.evaluate_loss(*validation, torch.Generator().manual_seed(5))
    whole = {"loss", "accuracy", "mask_ratio", "grad_norm", "lr"}
    assert whole < set(metrics)
    assert "accuracy_mask_80_100" in metrics
    assert set(metrics) - whole == set(after) - {"loss", "accuracy", "mask_ratio"}
    assert metrics["mask_ratio"] == pytest.approx(0.84, abs=0.05)  # 0.8, rounded up to tokens
    assert before["loss"] == pytest.approx(math.log(16), abs=0.2)
    assert after["loss"] < 0.8
    assert after["accuracy"] > 0.95


def test_resuming_continues_bit_for_bit(class_config, tmp_path):
    straight = make_trainer(class_config)
    for step in range(6):
        straight.step(*batch_of(step))
    path = tmp_path / "state.pt"
    torch.save({"trainer": straight.state_dict(), "rng": torch.get_rng_state()}, path)
    expected = [straight.step(*batch_of(step)) for step in range(6, 12)]

    resumed = make_trainer(class_config, seed=77)
    state = torch.load(path, weights_only=True)
    resumed.load_state_dict(state["trainer"])
    torch.set_rng_state(state["rng"])
    assert [resumed.step(*batch_of(step)) for step in range(6, 12)] == expected
    assert resumed.num_updates == 12
    for name, tensor in straight.ema_model.state_dict().items():
        assert torch.equal(resumed.ema_model.state_dict()[name], tensor), name


def test_average_follows_the_weights(class_config):
    config = dataclasses.replace(SHORT, ema_decay=0.3)
    trainer = make_trainer(class_config, config)
    decays = [None, 2 / 11, 3 / 12, 0.3, 0.3]  # 4/13 is above the highest; the first one copies
    average = None
    for step, decay in enumerate(decays):
        trainer.step(*batch_of(step))
        new = trainer.model.head.bias.detach().clone()
        average = new if decay is None else decay * average + (1 - decay) * new
        torch.testing.assert_close(trainer.ema_model.head.bias, average)
    assert not trainer.ema_model.training


def test_a_short_training_forgets_its_random_weights(class_config):
    trainer = make_trainer(class_config, NATTrainingConfig())  # a decay up to 0.9999
    trainer.step(*batch_of(0))
    with torch.no_grad():
        for parameter in trainer.ema_model.parameters():
            parameter.fill_(1000)  # 30 updates of 0.9999 would leave 997 of it
    for step in range(1, 31):
        trainer.step(*batch_of(step))
    for averaged, current in zip(
        trainer.ema_model.parameters(), trainer.model.parameters(), strict=True
    ):
        torch.testing.assert_close(averaged, current, atol=0.05, rtol=0)
    assert trainer.config.averaging_decay(1_000_000) == 0.9999


def test_evaluation_leaves_the_training_alone(class_config):
    trainer = make_trainer(class_config)
    trainer.step(*batch_of(0))
    before = copy.deepcopy(trainer.state_dict())
    first, second = (
        trainer.evaluate_loss(*batch_of(1), torch.Generator().manual_seed(2)) for _ in range(2)
    )
    assert first == second
    after = trainer.state_dict()
    assert torch.equal(before["generator"], after["generator"])
    for name, tensor in before["model"].items():
        assert torch.equal(after["model"][name], tensor)


def test_dropping_every_condition_hides_it(class_config):
    config = NATTrainingConfig(condition_dropout=1.0, warmup_steps=0, total_steps=10)
    trainer = make_trainer(class_config, config)
    trainer.step(*batch_of(0))
    gradient = trainer.model.condition.embedding.word.weight.grad
    used = gradient.abs().sum(1) > 0
    assert used.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("what", "value", "message"),
    [
        (0, 16, r"token 16 is out of range.*\[0, 15\]"),  # the mask token
        (0, -1, "token -1 is"),
        (1, 5, r"label 5 is out of range.*\[0, 4\]"),  # the null class
        (1, -1, "label -1 is"),
    ],
)
def test_batches_out_of_range_are_refused(class_config, what, value, message):
    trainer = make_trainer(class_config)
    state = trainer.generator.get_state()
    batch = batch_of(0)
    batch[what].view(-1)[-1] = value
    with pytest.raises(ValueError, match=message):
        trainer.step(*batch)
    with pytest.raises(ValueError, match=message):
        trainer.evaluate_loss(*batch, torch.Generator())
    assert torch.equal(trainer.generator.get_state(), state)


def test_a_gradient_that_is_not_finite_changes_nothing(class_config):
    trainer = make_trainer(class_config)
    trainer.step(*batch_of(0))
    with torch.no_grad():
        trainer.model.head.bias[0] = math.inf
    before = copy.deepcopy(trainer.state_dict())
    with pytest.raises(FloatingPointError, match="norm is nan in update 1"):
        trainer.step(*batch_of(1))
    after = trainer.state_dict()
    assert after["num_updates"] == 1
    for part in ("model", "ema"):
        for name, tensor in before[part].items():
            assert torch.equal(after[part][name], tensor), name


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_accumulated_gradients_equal_one_big_batch(class_config, parts):
    sizes = dataclasses.replace(class_config, dropout=0.0)
    gradients, metrics = [], []
    for accumulation_steps in (1, parts):
        config = dataclasses.replace(SHORT, accumulation_steps=accumulation_steps)
        trainer = make_trainer(sizes, config)
        calls = []
        trainer.model.register_forward_hook(
            lambda *args, calls=calls: calls.append(len(args[1][0]))
        )
        metrics.append(trainer.step(*batch_of(0)))
        assert len(calls) == accumulation_steps
        assert sum(calls) == 8
        gradients.append([parameter.grad.clone() for parameter in trainer.model.parameters()])
        validation = trainer.evaluate_loss(*batch_of(1), torch.Generator().manual_seed(2))
        metrics[-1] |= {f"validation_{name}": value for name, value in validation.items()}
    for whole, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(accumulated, whole, atol=1e-7, rtol=1e-4)
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-5)


def test_recomputed_activations_give_the_same_training(class_config):
    """With dropout: the recomputation must not draw again."""
    trained = []
    for checkpointing in (False, True):
        config = dataclasses.replace(SHORT, activation_checkpointing=checkpointing)
        trainer = make_trainer(class_config, config)
        calls = []
        trainer.model.mid_block.register_forward_pre_hook(
            lambda *args, calls=calls: calls.append(1)
        )
        torch.manual_seed(3)
        metrics = [trainer.step(*batch_of(step)) for step in range(3)]
        assert len(calls) == (6 if checkpointing else 3)
        trained.append((metrics, trainer.model.state_dict()))
    assert trained[0][0] == trained[1][0]
    for name, value in trained[0][1].items():
        assert torch.equal(trained[1][1][name], value), name


def test_bf16_by_autocast(class_config):
    outputs, losses = [], []
    for engine in (LocalEngine(), LocalEngine(bf16_on="cpu")):
        torch.manual_seed(1)
        model = NAT(dataclasses.replace(class_config, dropout=0.0))
        model.head.register_forward_hook(lambda *args: outputs.append(args[2].dtype))
        trainer = NATTrainer(model, SHORT, seed=0, engine=engine)
        losses.append([trainer.step(*batch_of(step))["loss"] for step in range(10)])
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert outputs == [torch.float32] * 10 + [torch.bfloat16] * 10
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


def test_text_training_and_guided_decoding(text_model):
    """Two captions, two images: a guided picture is its caption's, and the null text is trained."""
    captions = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    images = (torch.tensor([[0], [7]]) + torch.arange(12)) % 16
    config = NATTrainingConfig(
        learning_rate=1e-2,
        betas=(0.9, 0.99),
        warmup_steps=5,
        label_smoothing=0.0,
        condition_dropout=0.3,
    )
    torch.manual_seed(0)
    model = NAT(dataclasses.replace(text_model.config, dropout=0.0))
    model.set_null_context(text_model.null_condition(1)[0])
    trainer = NATTrainer(model, config, seed=0)
    for _ in range(150):
        trainer.step(images.repeat(4, 1), captions.repeat(4, 1, 1))
    average = trainer.ema_model
    assert torch.equal(average.null_condition(1), text_model.null_condition(1))
    order = torch.tensor([0, 1, 1, 0, 0, 1])
    generation = generate(
        average,
        published(3, remask_temperature=1.0, sampling_temperature=0.5, guidance_scale=2.0),
        captions[order],
        sample_indices=torch.arange(6),
        noise=NoiseSource(0),
    )
    assert (generation.tokens == images[order]).float().mean() > 0.95
    blank = torch.full((1, 12), 16)
    with torch.no_grad():  # without a text both images are as likely
        probabilities = average(blank, average.null_condition(1)).logits.softmax(-1)[0]
    for image in images:
        chosen = probabilities.gather(1, image[:, None])
        torch.testing.assert_close(chosen.mean(), torch.tensor(0.5), atol=0.2, rtol=0)


def test_text_features_of_a_wrong_shape(text_model):
    trainer = NATTrainer(text_model, SHORT, seed=0)
    with pytest.raises(ValueError, match=r"\(B, 3, 6\), got \(8, 2, 6\)"):
        trainer.step(batch_of(0)[0], torch.zeros(8, 2, 6))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate.*got 0.0"),
        ({"warmup_steps": 20, "total_steps": 10}, "got 20 and 10"),
        ({"lr_schedule": "linear"}, "got 'linear'"),
        ({"label_smoothing": 1.0}, "label_smoothing.*got 1.0"),
        ({"ema_decay": -0.1}, "ema_decay.*got -0.1"),
        ({"condition_dropout": 1.5}, "condition_dropout.*got 1.5"),
        ({"accumulation_steps": 0}, "accumulation_steps.*got 0"),
        ({"mask_ratio_bins": 0}, "mask_ratio_bins.*got 0"),
        ({"grad_clip": 0.0}, "grad_clip.*got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay.*got -1.0"),
    ],
)
def test_bad_training_config(settings_, message):
    with pytest.raises(ValueError, match=message):
        NATTrainingConfig(**settings_)


def test_bad_beta():
    with pytest.raises(ValueError, match=r"got 0\.0 and 3\.0"):
        BetaMask(alpha=0.0)
