"""Trains and decodes small models and writes down all that must not depend on the processes.

Run by torchrun with the file to write to: `torchrun --nproc-per-node 2 several_processes.py OUT`.
With `--die-at STEP` the last process kills itself in that step of the first attempt.
"""

import argparse
import os
import signal
from functools import partial
from pathlib import Path

import torch
from adanat.engine import AccelerateEngine
from adanat.generation import Generator, balanced_labels
from adanat.loop import train_loop
from adanat.sampling_order import batch_indices
from natgen import NAT, NATConfig, NATTrainer, NATTrainingConfig, published
from torch import Tensor
from vqtok import Tokenizer, TokenizerConfig, TokenizerTrainer, TokenizerTrainingConfig

BATCH_SIZE, ITEMS, STEPS = 8, 20, 4


def tokenizer() -> Tokenizer:
    return Tokenizer(
        TokenizerConfig(
            image_size=8,
            base_channels=8,
            norm_groups=2,
            codebook_size=12,
            codebook_dim=4,
            dead_code_threshold=0.0,  # which latents replace dead codes is drawn in each process
        )
    )


def nat() -> NAT:
    return NAT(
        NATConfig(
            codebook_size=12,
            grid_size=(4, 4),
            embed_dim=16,
            depth=2,
            num_heads=2,
            num_classes=3,
            dropout=0.0,  # drawn in each process
        )
    )


def train_nat(
    engine: AccelerateEngine, folder: Path, die_at: int | None = None
) -> dict[str, object]:
    torch.manual_seed(engine.process_index)  # process 0's weights are what counts
    trainer = NATTrainer(
        nat(), NATTrainingConfig(learning_rate=0.01, warmup_steps=0), seed=1, engine=engine
    )
    engine.follow(trainer.model, trainer.ema_model)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(12, (ITEMS, 4, 4), generator=generator)
    labels = torch.randint(3, (ITEMS,), generator=generator)

    def step(number: int) -> dict[str, float]:
        first_attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        last = engine.process_index == engine.num_processes - 1
        if number == die_at and first_attempt and last:
            os.kill(os.getpid(), signal.SIGKILL)
        rows = batch_indices(ITEMS, BATCH_SIZE, number, 0)[engine.rows(BATCH_SIZE)]
        return trainer.step(tokens[rows], labels[rows])

    metrics: list[dict[str, float]] = []
    train_loop(
        step_fn=lambda number: metrics.append(step(number)) or metrics[-1],
        total_steps=STEPS,
        folder=folder,
        get_state=trainer.state_dict,
        set_state=trainer.load_state_dict,
        description="nat",
        save_every=2,
        log_every=2,
        engine=engine,
    )
    gradients = {name: p.grad for name, p in trainer.model.named_parameters()}
    return {"metrics": metrics, "gradients": gradients, "weights": trainer.state_dict()["ema"]}


def train_tokenizer(engine: AccelerateEngine) -> dict[str, object]:
    torch.manual_seed(3)
    trainer = TokenizerTrainer(
        tokenizer(), TokenizerTrainingConfig(learning_rate=0.01), engine=engine
    )
    engine.follow(trainer.tokenizer)
    images = torch.rand(ITEMS, 3, 8, 8)
    losses = []
    for number in range(STEPS):
        rows = batch_indices(ITEMS, BATCH_SIZE, number, 0)[engine.rows(BATCH_SIZE)]
        metrics = engine.mean(trainer.step(images[rows]))
        losses.append({name: metrics[name] for name in ("loss", "reconstruction", "commitment")})
    return {"metrics": losses, "weights": trainer.state_dict()["tokenizer"]}


def decode(engine: AccelerateEngine) -> dict[str, Tensor]:
    torch.manual_seed(4)
    generator = Generator(
        nat().eval(),
        tokenizer().eval(),
        partial(balanced_labels, num_classes=3),
        batch_size=4,
        engine=engine,
    )
    batches = list(generator.batches(published(3), seed=5, num_samples=21))
    return {
        "images": torch.cat([batch.images for batch in batches]),
        "labels": torch.cat([batch.labels for batch in batches]),
        "parameters": torch.cat([batch.generation.parameters for batch in batches]),
    }


def everything(
    engine: AccelerateEngine, folder: Path, die_at: int | None = None
) -> dict[str, object]:
    return {
        "nat": train_nat(engine, folder, die_at),
        "tokenizer": train_tokenizer(engine),
        "decoded": decode(engine),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--die-at", type=int)
    arguments = parser.parse_args()
    out = arguments.out
    torch.set_num_threads(1)
    engine = AccelerateEngine()
    found = everything(engine, out.parent / "nat", arguments.die_at)
    found["processes"] = engine.num_processes
    if engine.is_main:
        torch.save(found, out)
    engine.wait()


if __name__ == "__main__":
    main()
