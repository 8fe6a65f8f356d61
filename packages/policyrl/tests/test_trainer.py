"""The trainer: learning, exact chunks, resuming, early stopping, processes."""

import contextlib

import pytest
import torch
from policyrl import GaussianPolicy, LocalEngine, PPOConfig, PPOTrainer, collect

KEYS = {
    "loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clip_fraction",
    "grad_norm",
    "explained_variance",
    "reward_mean",
    "reward_std",
    "std",
    "epochs",
}


def _trainer(toys, seed=0, engine=None, **changes):
    config = PPOConfig(**{"learning_rate": 1e-2, **changes})
    return PPOTrainer(toys.policy(), toys.Numbers(1, 7), config, engine, seed=seed)


def _mode_reward(toys, trainer):
    """Mean reward without exploration, on episodes never trained on."""
    policy = toys.policy(std=1e-6)
    policy.network.load_state_dict(trainer.policy.network.state_dict())
    episodes = torch.arange(10_000, 10_512)
    rollout = collect(
        toys.Bandit(), policy, trainer.value_network, episodes, torch.zeros(2, 512, 2)
    )
    return rollout.episode_rewards.mean().item()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_minibatches": 2, "gae_lambda": 0.0, "max_grad_norm": 0.5, "target_kl": 0.05},
        {"normalize_returns": False, "normalize_advantages": True, "chunk_size": 160},
        {"value_clip_range": 0.3},
    ],
)
def test_ppo_solves_a_contextual_bandit(toys, changes):
    trainer = _trainer(toys, learning_rate=2e-2, std_schedule=((0, 0.4), (20, 0.2)), **changes)
    before = _mode_reward(toys, trainer)
    history = [trainer.update(trainer.collect(toys.Bandit(), 128)) for _ in range(40)]
    after = _mode_reward(toys, trainer)
    # A constant action per timestep cannot do better than about -1.2; 0 is perfect.
    assert before < -2
    assert after > -0.1
    # What is left is mostly exploration: -2 std^2 = -0.08.
    assert history[-1]["reward_mean"] > -0.25
    assert [history[i]["std"] for i in (0, 19, 20)] == pytest.approx([0.4, 0.4, 0.2])


def test_the_reward_model_teaches_as_well(toys):
    trainer = _trainer(toys, learning_rate=2e-2)
    before = _mode_reward(toys, trainer)
    for _ in range(30):
        trainer.update(trainer.collect(toys.Silent(), 128, lambda outcome: outcome["total"]))
    assert _mode_reward(toys, trainer) > before / 4


def test_an_update_reports_and_only_moves_what_it_should(toys):
    trainer = _trainer(toys, update_epochs=1, ent_coef=0.01)
    rollout = trainer.collect(toys.Bandit(), 32)
    metrics = trainer.update(rollout)
    assert set(metrics) == KEYS
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["clip_fraction"] == 0
    assert metrics["reward_mean"] == pytest.approx(rollout.episode_rewards.mean().item())
    assert metrics["reward_std"] == pytest.approx(rollout.episode_rewards.std(correction=0).item())
    assert metrics["loss"] == pytest.approx(
        metrics["policy_loss"] + 0.5 * metrics["value_loss"] - 0.01 * metrics["entropy"], abs=1e-6
    )
    # The idle component's output has no gradient.
    head = trainer.policy.network.net[-1]
    assert (head.weight.grad[1] == 0).all()
    assert (head.weight.grad[0] != 0).any()
    untouched = toys.policy().network.net[-1]
    assert torch.equal(head.weight[1], untouched.weight[1])
    assert not torch.equal(head.weight[0], untouched.weight[0])


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 7, 64, 1000])
def test_chunks_give_the_gradient_of_the_full_batch(toys, chunk_size, early):
    gradients = []
    # Keys that fall let the rows of the first step lie in another order than the episodes.
    for size, key in ((None, None), (chunk_size, torch.neg)):
        trainer = _trainer(toys, update_epochs=1, chunk_size=size)
        env = toys.Bandit(early=early)
        rollout = trainer.collect(env, 40, batch_size=size, shared_first_step=key)
        rollout = rollout._replace(log_probs=rollout.log_probs + 0.3 * torch.sin(torch.arange(40)))
        trainer.update(rollout)
        groups = trainer.optimizer.param_groups
        gradients.append(torch.cat([p.grad.flatten() for g in groups for p in g["params"]]))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_episodes_are_numbered_through_the_run(toys):
    trainer = _trainer(toys)
    first = trainer.collect(toys.Silent(), 5, batch_size=2)
    second = trainer.collect(toys.Silent(), 3)
    assert first.outcome["episodes"].tolist() == [0, 1, 2, 3, 4]
    assert second.outcome["episodes"].tolist() == [5, 6, 7]


def test_a_resumed_run_is_the_run_never_stopped(toys, tmp_path):
    settings = {"num_minibatches": 3, "std_schedule": ((0, 0.5), (3, 0.25))}
    whole = _trainer(toys, **settings)
    expected = [whole.update(whole.collect(toys.Bandit(), 24)) for _ in range(5)]
    half = _trainer(toys, **settings)
    for _ in range(2):
        half.update(half.collect(toys.Bandit(), 24))
    torch.save(half.state_dict(), tmp_path / "state.pt")
    resumed = _trainer(toys, seed=99, **settings)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    again = [resumed.update(resumed.collect(toys.Bandit(), 24)) for _ in range(3)]
    assert again == expected[2:]
    for key, value in whole.policy.state_dict().items():
        assert torch.equal(value, resumed.policy.state_dict()[key])


def test_target_kl_stops_before_the_step(toys):
    trainer = _trainer(toys, learning_rate=0.1, target_kl=0.001, update_epochs=10)
    metrics = trainer.update(trainer.collect(toys.Bandit(), 64))
    assert metrics["epochs"] == 2
    assert metrics["approx_kl"] > 0.0015
    once = _trainer(toys, learning_rate=0.1, update_epochs=1)
    once.update(once.collect(toys.Bandit(), 64))
    for ours, other in zip(trainer.policy.parameters(), once.policy.parameters(), strict=True):
        assert torch.equal(ours, other)


def test_clipping_bounds_the_joint_gradient(toys):
    trainer = _trainer(toys, update_epochs=1, max_grad_norm=1e-3)
    metrics = trainer.update(trainer.collect(toys.Bandit(), 64))
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    norm = torch.stack([p.grad.norm() for p in parameters]).norm().item()
    assert metrics["grad_norm"] > 1e-3
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_a_learned_std_shrinks_where_noise_only_costs(toys):
    policy = GaussianPolicy(toys.Numbers(2, 0), toys.spec(), std=0.4, learn_std=True)
    config = PPOConfig(learning_rate=2e-2, ent_coef=0.0)
    trainer = PPOTrainer(policy, toys.Numbers(1, 7), config)
    history = [trainer.update(trainer.collect(toys.Bandit(), 128)) for _ in range(40)]
    x, idle = policy.exploration_std.tolist()
    assert x < 0.3
    assert idle == pytest.approx(0.4)  # inactive: no gradient
    assert history[-1]["std"] == pytest.approx((x + idle) / 2)
    assert history[-1]["reward_mean"] > -0.2


def test_offsets_learn_what_is_the_same_for_all_samples_of_a_step(toys):
    policy = GaussianPolicy(toys.Numbers(2, 0), toys.spec(), std=0.4, learn_offsets=True)
    config = PPOConfig(learning_rate=1e-9, offset_learning_rate=0.05)  # the network stands still
    trainer = PPOTrainer(policy, toys.Numbers(1, 7), config)
    for _ in range(40):
        trainer.update(trainer.collect(toys.Bandit(), 256))
    # The best guesses are around 0.8 in the first step and -0.8 in the second.
    observation = toys.Bandit().reset(torch.arange(4000))
    means = [
        policy.mode(observation | {"timestep": torch.full((4000,), step)})[:, 0].mean().item()
        for step in (0, 1)
    ]
    assert means == pytest.approx([0.8, -0.8], abs=0.15)
    assert torch.equal(policy.offsets[:, 1], torch.zeros(2))  # an inactive component


def test_each_network_has_its_learning_rate(toys):
    trainer = _trainer(toys, value_learning_rate=0.3)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [1e-2, 0.3]
    policy = GaussianPolicy(toys.Numbers(2, 0), toys.spec(), learn_offsets=True)
    trainer = PPOTrainer(policy, toys.Numbers(1, 7), PPOConfig(offset_learning_rate=0.2))
    groups = trainer.optimizer.param_groups
    assert [group["lr"] for group in groups] == [1e-5, 1e-5, 0.2]
    assert groups[2]["params"] == [policy.offsets]
    assert sum(len(group["params"]) for group in groups[:2]) == 2 * len(groups[1]["params"])


def test_what_is_not_finite_stops_the_update(toys):
    trainer = _trainer(toys)
    rollout = trainer.collect(toys.Bandit(), 8)
    rollout.rewards[0, 0] = float("inf")
    before = [p.clone() for p in trainer.policy.parameters()]
    with pytest.raises(FloatingPointError, match="gradient norm is nan in update 0"):
        trainer.update(rollout)
    assert all(map(torch.equal, before, trainer.policy.parameters()))


def test_bad_numbers_are_refused(toys):
    trainer = _trainer(toys, num_minibatches=50)
    with pytest.raises(ValueError, match="num_episodes is 0, must be a positive multiple"):
        trainer.collect(toys.Bandit(), 0)
    with pytest.raises(ValueError, match="num_minibatches"):
        trainer.update(trainer.collect(toys.Bandit(), 4))


class _Twin(LocalEngine):
    """Pretends that a second process holds the same numbers, and counts its use."""

    def __init__(self):
        self.contexts = self.backwards = 0

    def autocast(self):
        self.contexts += 1
        return contextlib.nullcontext()

    def backward(self, loss):
        self.backwards += 1
        loss.backward()

    def gather(self, tensor):
        return torch.cat([tensor, tensor])


def test_everything_goes_through_the_engine(toys):
    engine = _Twin()
    options = {"update_epochs": 2, "chunk_size": 16, "normalize_returns": False}
    ours, alone = _trainer(toys, engine=engine, **options), _trainer(toys, **options)
    metrics = ours.update(ours.collect(toys.Bandit(), 16))
    expected = alone.update(alone.collect(toys.Bandit(), 16))
    assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert engine.backwards == 4
    assert engine.contexts == 1 + 4


def test_processes_with_unequal_numbers_of_episodes_are_refused(toys):
    class Uneven(LocalEngine):
        gathers = 0

        def gather(self, tensor):
            self.gathers += 1
            return torch.cat([tensor, tensor + 1])

    engine = Uneven()
    trainer = _trainer(toys, engine=engine)
    with pytest.raises(ValueError, match=r"hold \[16, 17\] decisions of \[8, 9\] episodes"):
        trainer.update(trainer.collect(toys.Bandit(), 8))
    assert engine.gathers == 1  # with real processes the next one would never return


def test_what_follows_an_episodes_end_is_not_learned_from(toys):
    trainers = [_trainer(toys, update_epochs=1) for _ in range(2)]
    rollout = trainers[0].collect(toys.Bandit(early=True), 24)
    assert not rollout.valid.all()
    behind = torch.where(rollout.valid, 0.0, 1e3)
    altered = rollout._replace(
        raw_actions=rollout.raw_actions + behind[..., None],
        values=rollout.values + behind,
        log_probs=rollout.log_probs + behind,
    )
    metrics = [t.update(r) for t, r in zip(trainers, (rollout, altered), strict=True)]
    assert metrics[0] == metrics[1]
    ours, other = (t.policy.network.state_dict() for t in trainers)
    assert all(torch.equal(ours[name], other[name]) for name in ours)
