"""The parts of one update of the policy: rollouts, PPO, the discriminator.

The trainers say themselves, by their engine, what runs in the asked precision.
"""

import torch
from natgen import DecodingEnvironment
from policyrl import PPOConfig, PPOTrainer
from pytest_benchmark.fixture import BenchmarkFixture

from natbench.recording import run_benchmark
from natbench.workload import Workload


def _trainer(workload: Workload) -> PPOTrainer:
    policy = workload.policy(workload.preset.num_steps[0])
    config = PPOConfig(chunk_size=1024)
    return PPOTrainer(policy, workload.value_network(), config, workload.engine)


def _environment(workload: Workload) -> DecodingEnvironment:
    return DecodingEnvironment(
        workload.nat,
        num_steps=workload.preset.num_steps[0],
        conditions=lambda episodes: workload.labels[episodes % len(workload.labels)],
        noise=workload.noise,
    )


def bench_rollout(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """B episodes with exploration, features kept in bf16; no reward."""
    trainer, environment = _trainer(workload), _environment(workload)
    size = len(workload.labels)
    run_benchmark(
        benchmark,
        workload,
        lambda: trainer.collect(environment, size, feature_dtype=torch.bfloat16),
        unit="episodes",
        count=size,
        autocast=False,
    )


def bench_ppo_update(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """Five passes over the decisions of B episodes, policy and value network."""
    trainer = _trainer(workload)
    size = len(workload.labels)
    rollout = trainer.collect(_environment(workload), size, feature_dtype=torch.bfloat16)
    run_benchmark(
        benchmark,
        workload,
        lambda: trainer.update(rollout),
        unit="episodes",
        count=size,
        autocast=False,
    )
    benchmark.extra_info["rollout_bytes"] = rollout.num_bytes


def bench_discriminator_step(benchmark: BenchmarkFixture, workload: Workload) -> None:
    """One update of the heads on the features of B real and B fake images."""
    size = workload.preset.tokenizer.image_size
    images = torch.rand(2, len(workload.labels), 3, size, size, device=workload.device)
    real, fake = (workload.reward.extract(side) for side in images)
    labels = workload.labels
    run_benchmark(
        benchmark,
        workload,
        lambda: workload.reward.update(real, labels, fake, labels),
        unit="images",
        count=2 * len(labels),
        autocast=False,
    )
