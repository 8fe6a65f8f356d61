"""An untrained run where a trained one would be, and how the tests draw from it and judge it."""

from pathlib import Path

import numpy as np
import torch
from adanat.checkpoints import atomic_write_json
from adanat.evaluation import SourceEvaluation
from adanat.evaluation.generators import GeneratedSource, balanced
from adanat.evaluation.models import Models
from adanat.run_folder import RunFolder
from natgen import NAT, NATConfig, published
from policyrl import GaussianPolicy, PolicyNetwork, PolicyNetworkConfig, decoding_spec
from vqtok import Tokenizer, TokenizerConfig

CPU = torch.device("cpu")
STEPS = 3
_SIZE = {"codebook_size": 16, "codebook_dim": 8}


def save_untrained_run(root: Path) -> Path:
    """Untrained models where a run keeps its trained ones."""
    folder = RunFolder(root)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = Tokenizer(
            TokenizerConfig(image_size=8, base_channels=8, norm_groups=4, **_SIZE)
        )
        config = NATConfig(
            codebook_size=16, grid_size=(4, 4), embed_dim=16, depth=2, num_heads=2, num_classes=3
        )
        nat = NAT(config)
        network = PolicyNetwork(
            PolicyNetworkConfig(
                feature_dim=16,
                grid_size=(4, 4),
                num_outputs=4,
                hidden_dim=8,
                conv_channels=4,
                mlp_dims=(8, 8),
            )
        )
    policy = GaussianPolicy(network, decoding_spec(published(STEPS).values))
    tokenizer.save_pretrained(folder.tokenizer_model)
    nat.save_pretrained(folder.generator_model)
    policy.save_pretrained(folder.policy_model(0))
    best = {
        "num_steps": STEPS,
        "remask_temperature": 1.0,
        "sampling_temperature": 1.0,
        "guidance_scale": 2.0,
    }
    atomic_write_json(folder.schedule / "done.json", {"results": {"best": best}})
    more = {"results": {"points": [best | {"num_steps": 5}]}}
    atomic_write_json(folder.more_steps / "done.json", more)
    return folder.root


def source_of(
    root,
    *,
    policy="adaptive",
    seed=0,
    num_samples=20,
    batch_size=4,
    num_steps=None,
    precision="fp32",
):
    models = Models.load(root, policy=policy, num_steps=num_steps, device=CPU, precision=precision)
    return GeneratedSource(
        models,
        balanced(3, num_samples),
        num_samples=num_samples,
        seed=seed,
        batch_size=batch_size,
    )


def pixels(source, start, stop):
    return np.stack([item.image for item in source.items(start, stop)])


def options(run_folder, tmp_path, **changes):
    defaults = {
        "source": str(run_folder),
        "reference": str(tmp_path / "real.npz"),
        "metrics": ("lite2", "lite2-kid", "precision", "recall"),
        "output": tmp_path / "out.json",
        "cache_dir": tmp_path / "cache",
        "feature_size": 32,
        "num_samples": 24,
        "batch_size": 8,
    }
    return SourceEvaluation(**(defaults | changes))
