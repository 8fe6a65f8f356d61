"""Rewards of pictures: embedded once, learned from once, of every design."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adanat.adversary import Adversary, Embedded
from adanat.errors import AdanatError, StageError
from adanat.recipes import get_recipe
from adanat.rewards import PictureReward, discriminator_file, trained_reward
from adanat.run import Run
from adanat.stages import (
    prepare_data,
    sample,
    search_schedule,
    tokenize,
    train_generator,
    train_policies,
    train_tokenizer,
)
from advreward import (
    AdversarialConfig,
    AdversarialReward,
    AugmentConfig,
    Augmenter,
    Discriminator,
    DiscriminatorConfig,
    MixtureReward,
)
from safetensors.torch import load_file
from torch import Tensor
from vqtok import Tokenizer, small

CLASSES = 3

Train = Callable[..., tuple[Run, list[dict[str, float]]]]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(small(8, downsample_factors=(2,), base_channels=8, codebook_size=16)).eval()


class ChannelMeans:
    """A backbone that counts the images that it sees."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        self.seen += len(images)
        return {"means": images.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 4, 4)}


def adversary(backbone: ChannelMeans, *, augmented: bool = False) -> Adversary:
    torch.manual_seed(2)
    heads = Discriminator(DiscriminatorConfig(channels={"means": 3}, num_classes=CLASSES))
    augmenter = Augmenter(AugmentConfig(), seed=0) if augmented else None
    config = AdversarialConfig(extract_batch_size=4, learning_rate=1e-2)
    reward = AdversarialReward(backbone, heads, config, augmenter=augmenter)
    bright = reward.extract(0.7 + 0.3 * torch.rand(12, 3, 8, 8))
    labels = torch.arange(12) % CLASSES
    real = Embedded({"means": bright["means"][:8]}, labels[:8])
    heldout = Embedded({"means": bright["means"][8:]}, labels[8:])
    backbone.seen = 0
    return Adversary(reward, real, heldout, replace(get_recipe("tiny").reward, batch_size=6), 0)


def outcome(tokenizer: Tokenizer, count: int) -> dict[str, Tensor]:
    tokens = torch.randint(0, 16, (count, *tokenizer.grid_size))
    return {"tokens": tokens, "labels": torch.arange(count) % CLASSES}


def test_pictures_are_embedded_once_and_learned_from(tokenizer: Tokenizer) -> None:
    backbone = ChannelMeans()
    judge = adversary(backbone)
    pictures = PictureReward(tokenizer, MixtureReward({"adversarial": judge}, {"adversarial": 1}))
    with pytest.raises(RuntimeError, match="collect a rollout"):
        judge.learn(1)
    batch = outcome(tokenizer, 10)
    parts = [{name: x[rows] for name, x in batch.items()} for rows in (slice(0, 6), slice(6, 10))]
    rewards = torch.cat([pictures(part) for part in parts])
    assert backbone.seen == 10
    direct = judge.reward({"images": tokenizer.decode(batch["tokens"]), "labels": batch["labels"]})
    torch.testing.assert_close(rewards, direct)
    assert pictures.take_means() == {"adversarial": pytest.approx(rewards.mean().item())}
    assert pictures.take_means() == {}
    metrics = judge.learn(3)
    assert backbone.seen == 20  # the direct call; learning embeds nothing
    assert {"loss", "accuracy", "skipped", "heldout_accuracy", "heldout_gap"} <= set(metrics)
    with pytest.raises(RuntimeError, match="collect a rollout"):
        judge.learn(1)


def test_augmented_pictures_are_learned_from_but_not_paid(tokenizer: Tokenizer) -> None:
    backbone = ChannelMeans()
    judge = adversary(backbone, augmented=True)
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % CLASSES
    rewards = judge({"images": images, "labels": labels})
    assert backbone.seen == 12  # as they are, and changed
    assert torch.equal(rewards, judge.reward({"images": images, "labels": labels}))


def test_an_adversary_resumes(tokenizer: Tokenizer) -> None:
    torch.manual_seed(3)
    batches = [
        {"images": torch.rand(6, 3, 8, 8), "labels": torch.arange(6) % CLASSES} for _ in range(3)
    ]

    def work(judge: Adversary, part: list[dict[str, Tensor]]) -> list[dict[str, float]]:
        history = []
        for batch in part:
            judge(batch)
            history.append(judge.learn(2))
        return history

    straight = work(adversary(ChannelMeans(), augmented=True), batches)
    first = adversary(ChannelMeans(), augmented=True)
    work(first, batches[:1])
    resumed = adversary(ChannelMeans(), augmented=True)
    resumed.load_state_dict(first.state_dict())
    assert work(resumed, batches[1:]) == straight[1:]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run up to the tuned schedule."""
    folder = tmp_path_factory.mktemp("prepared") / "run"
    run = Run(get_recipe("tiny"), folder)
    for stage in (prepare_data, train_tokenizer, tokenize, train_generator, search_schedule):
        stage(run)
    return folder


@pytest.fixture
def train(prepared: Path, tmp_path: Path) -> Train:
    """Trains policies of changed rewards; returns the run and its metrics."""

    def go(name: str, **changes: object) -> tuple[Run, list[dict[str, float]]]:
        folder = tmp_path / name
        shutil.copytree(prepared, folder)
        recipe = get_recipe("tiny")
        run = Run(replace(recipe, reward=replace(recipe.reward, **changes)), folder)
        train_policies(run)
        assert (run.folder.policy_model(0) / "model.safetensors").is_file()
        lines = (run.folder.policy(0) / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return run, [row for row in rows if "reward_mean" in row]  # the others are validations

    return go


@pytest.mark.slow
def test_every_design_trains_a_policy(
    train: Train, clip_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = get_recipe("tiny")
    run, adversarial = train("adversarial", augmented_copies=2, diversity_weight=0.5)
    assert len(adversarial) == recipe.reward.warmup_cycles + recipe.policy.num_updates
    last = adversarial[-1]
    assert 0 < last["reward_adversarial"] < 1
    assert {"reward_diversity", "discriminator_accuracy", "discriminator_heldout_gap"} <= set(last)
    assert last["reward_mean"] == pytest.approx(0.0, abs=1e-4)  # of standardised parts

    reward = trained_reward(run, 0)
    pictures = {"images": torch.rand(4, 3, 8, 8), "labels": torch.arange(4)}
    assert ((reward(pictures) > 0) & (reward(pictures) < 1)).all()
    assert isinstance(reward, AdversarialReward)
    assert reward.discriminator.is_calibrated
    several = {"policy": "adaptive", "num_samples": 5, "seed": 0, "candidates": 3}
    capsys.readouterr()
    assert sample(run, **several).name == "adaptive-seed-0-all-5-best-of-3.png"
    assert "kept 1 of 3 candidates: mean reward 0." in capsys.readouterr().out
    discriminator_file(run, 0).write_bytes(b"")
    with pytest.raises(StageError, match=r"cannot load .*discriminator\.safetensors"):
        trained_reward(run, 0)

    for design in ("pretrained", "frechet"):
        run, rows = train(design, design=design, classifier_steps=10, frechet_components=8)
        assert len(rows) == recipe.policy.num_updates
        assert all(row["reward_mean"] < 0 for row in rows)  # a log-probability, a distance
        assert rows[-1]["reward_mean"] == pytest.approx(rows[-1][f"reward_{design}"], rel=1e-5)
        assert not any(name.startswith("discriminator") for name in rows[-1])
    with pytest.raises(AdanatError, match="pays whole batches"):
        sample(run, **several)
    by_clip = {"design": "pretrained", "scorer": "clip", "scorer_weights": str(clip_folder)}
    run, rows = train("clip", **by_clip)
    assert all(-1 < row["reward_mean"] < 1 for row in rows)  # a cosine
    assert sample(run, **several).is_file()
    with pytest.raises(AdanatError, match="candidates must be at least 1, got 0"):
        sample(run, **{**several, "candidates": 0})
    assert sample(run, **{**several, "candidates": 1}).is_file()


@pytest.mark.slow
def test_a_longer_training_ends_like_one_that_was_long_from_the_start(
    prepared: Path, tmp_path: Path
) -> None:
    def trained(name: str, num_updates: int) -> tuple[dict[str, Tensor], dict[str, object]]:
        if not (tmp_path / name).exists():
            shutil.copytree(prepared, tmp_path / name)
        recipe = get_recipe("tiny")
        policy = replace(recipe.policy, num_updates=num_updates, validate_every=1)
        run = Run(replace(recipe, policy=policy), tmp_path / name)
        train_policies(run)
        last = load_file(run.folder.last_policy_model(0) / "model.safetensors")
        return last, run.stages.policies[0].results()

    short, _ = trained("grown", 2)
    grown, straight = trained("grown", 4), trained("straight", 4)
    assert grown[1] == straight[1]
    torch.testing.assert_close(grown[0], straight[0], rtol=0, atol=0)
    assert any((short[name] != grown[0][name]).any() for name in short)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"design": "fid"}, "design must be .* got 'fid'"),
        ({"backbone": "vgg"}, "backbone must be .* got 'vgg'"),
        ({"diversity_weight": -1.0}, "diversity_weight must be above -1, got -1.0"),
        ({"augmented_copies": -1}, "augmented_copies must be at least 0, got -1"),
        ({"frechet_components": 0}, "frechet_components must be positive, got 0"),
    ],
)
def test_impossible_rewards_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(get_recipe("tiny").reward, **change)
