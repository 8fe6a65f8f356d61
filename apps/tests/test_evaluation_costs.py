"""What an image costs, counted and timed."""

import time

import pytest
import torch
from adanat.evaluation import evaluate_source
from adanat.evaluation.chunks import Times
from adanat.evaluation.cost import measure_cost
from untrained_run import STEPS, options, source_of


def test_operations_are_those_counted_by_hand(run_folder):
    # Unguided (the scale is in the dead zone or 0), one class: every count is exact.
    source = source_of(run_folder, policy="static", num_steps=STEPS, num_samples=4, batch_size=4)
    config, tokens = source.models.nat.config, 16
    width, length = config.embed_dim, tokens + 1  # one condition token
    hidden = int(config.mlp_ratio * width)
    block = 2 * length * width * (3 * width + width + 2 * hidden)  # qkv, projection, MLP
    block += 4 * length * length * width  # scores and weighted sum
    skips = config.depth // 2 * 2 * length * 2 * width * width
    head = 2 * tokens * (width * width + width * config.codebook_size)
    row = (config.depth + 1) * block + skips + head
    found = measure_cost(source, Times(images=4, reading=2.0, features=9.0))
    decoder = flops_of(source.models.tokenizer.decode, torch.zeros(4, 4, 4, dtype=torch.int64)) / 4
    assert found.gflops * 1e9 == pytest.approx(found.network_passes * row + decoder)
    assert found.policy_flops_share == found.policy_time_share == 0
    assert found.milliseconds == 500
    assert found.images_per_second == 2


def flops_of(call, *arguments):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*arguments)
    return counter.get_total_flops()


def test_the_policy_network_s_share_is_its_own_operations(run_folder):
    source = source_of(run_folder, num_samples=4)
    found = measure_cost(source, Times(images=4, reading=2.0))
    policy = source.models.policy
    own = flops_of(lambda: policy(torch.zeros(4, 16, 16), 0)) * STEPS / 4
    assert found.policy_flops_share == pytest.approx(own / (found.gflops * 1e9))
    shares = (found.transformer_time_share, found.policy_time_share, found.decoder_time_share)
    assert min(shares) > 0
    assert sum(shares) < 1


def test_time_is_told_by_its_parts(run_folder, tmp_path, real_images):
    began = time.perf_counter()
    few = {"metrics": ("recall",)}
    result = evaluate_source(options(run_folder, tmp_path, save_npz=tmp_path / "s.npz", **few))
    wall = time.perf_counter() - began
    parts = result.seconds
    assert set(parts) == {
        *("transformer", "policy", "decoder", "drawing", "reading", "features", "saving"),
        *("scores", "rest"),
    }
    assert min(parts.values()) > 0
    # Nothing is told twice or left out; what follows is the writing of the results.
    assert 0.9 * wall < sum(parts.values()) <= wall
    networks = sum(parts[name] for name in ("transformer", "policy", "decoder", "features"))
    assert result.network_share == pytest.approx(networks / sum(parts.values()))
    assert 0.05 < result.peak_memory_gb < 100
    again = evaluate_source(options(run_folder, tmp_path, **few))
    assert again.seconds["features"] == parts["features"]  # as kept with the features
    assert again.seconds["rest"] > 0
