"""Trains and decodes small models and writes down all that must not depend on the processes.

Run by torchrun with the file to write to: `torchrun --nproc-per-node 2 several_processes.py OUT`.
With `--die-at STEP` only one model is trained, and the last process kills itself in that step of
the first attempt.
"""

import argparse
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import torch
from adanat.batch_sharing import gather_rows, own_spans
from adanat.engine import AccelerateEngine
from adanat.generation import Generator, balanced_labels
from adanat.loop import IntervalHook, PictureHook, train_loop
from adanat.sampling_order import batch_indices
from advreward import AdversarialConfig, AdversarialReward, Discriminator, DiscriminatorConfig
from natgen import NAT, NATConfig, NATTrainer, NATTrainingConfig, published
from natgen.transformer import Block
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


def text_nat() -> NAT:
    model = NAT(
        NATConfig(
            codebook_size=12,
            grid_size=(4, 4),
            embed_dim=16,
            depth=2,
            num_heads=2,
            num_classes=None,
            context_dim=6,
            num_context_tokens=2,
            dropout=0.0,
        )
    )
    model.set_null_context(torch.rand(2, 6))
    return model


def train_sharded(engine: AccelerateEngine, folder: Path) -> dict[str, object]:
    """A text NAT: the first step unsharded, then two sharded sessions, each resuming."""
    sessions = [session(engine, folder, end, sharded=end > 1) for end in (1, STEPS - 1, STEPS)]
    return {
        "metrics": [metrics for session in sessions for metrics in session["metrics"]],
        "weights": sessions[-1]["weights"],
        "held": [session["held"] for session in sessions],
    }


def session(engine: AccelerateEngine, folder: Path, end: int, *, sharded: bool) -> dict[str, Any]:
    """Train the text NAT up to a step, from what is in the folder."""
    torch.manual_seed(engine.process_index)
    config = NATTrainingConfig(
        learning_rate=0.01,
        warmup_steps=0,
        grad_clip=0.5,  # below the norms that come up
        accumulation_steps=2,
        activation_checkpointing=True,
    )
    trainer = NATTrainer(text_nat(), config, seed=1, engine=engine)
    models = trainer.model, trainer.ema_model
    if sharded:
        engine.shard(*models, optimizer=trainer.optimizer, unit=Block)
    else:
        engine.follow(*models)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(12, (ITEMS, 4, 4), generator=generator)
    context = torch.rand(ITEMS, 2, 6, generator=generator)
    metrics: list[dict[str, float]] = []

    def step(number: int) -> dict[str, float]:
        rows = batch_indices(ITEMS, BATCH_SIZE, number, 0)[engine.rows(BATCH_SIZE)]
        metrics.append(trainer.step(tokens[rows], context[rows]))
        return metrics[-1]

    def validate(number: int) -> dict[str, float]:
        mask_generator = torch.Generator().manual_seed(number)
        return trainer.evaluate_loss(tokens[:6], context[:6], mask_generator)

    @torch.no_grad()
    def logits_as_images() -> Tensor:  # 4 of 16 * 12 = 3 * 8 * 8 numbers
        logits = trainer.ema_model(tokens[:4].flatten(1), context[:4]).logits
        return logits.sigmoid().reshape(4, 3, 8, 8)

    train_loop(
        step_fn=step,
        total_steps=end,
        folder=folder,
        get_state=trainer.state_dict,
        set_state=trainer.load_state_dict,
        description="sharded",
        hooks=[IntervalHook(1, validate)],
        pictures=[PictureHook(1, "logits", logits_as_images, columns=2)],
        engine=engine,
    )
    return {
        "metrics": metrics,
        "weights": trainer.ema_model.state_dict(),
        "held": _numbers_here(*models, optimizer=trainer.optimizer),
    }


def _numbers_here(*models: NAT, optimizer: torch.optim.Optimizer) -> int:
    """How many numbers of weights and moments this process holds."""
    weights = [p for model in models for p in model.parameters()]
    moments = [v for values in optimizer.state.values() for v in values.values()]
    local = (getattr(t, "to_local", lambda t=t: t)() for t in (*weights, *moments))
    return sum(tensor.numel() for tensor in local)


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


def train_discriminator(engine: AccelerateEngine) -> dict[str, object]:
    torch.manual_seed(engine.process_index)
    discriminator = Discriminator(DiscriminatorConfig(channels={"means": 3}, num_classes=3))
    engine.follow(discriminator)
    config = AdversarialConfig(learning_rate=0.01, gradient_penalty=0.5)
    reward = AdversarialReward(
        lambda images: {"means": images.mean(dim=(2, 3), keepdim=True)},
        discriminator,
        config,
        engine,
    )
    pictures = torch.rand(STEPS, 2, BATCH_SIZE, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    rows = engine.rows(BATCH_SIZE)
    labels = torch.arange(BATCH_SIZE)[rows] % 3
    metrics = []
    for sides in pictures:
        real, fake = (reward.extract(side[rows]) for side in sides)
        metrics.append(engine.mean(reward.update(real, labels, fake, labels)))
    return {"metrics": metrics, "weights": discriminator.state_dict()}


def decode(engine: AccelerateEngine) -> dict[str, Tensor]:
    torch.manual_seed(4)
    generator = Generator(
        nat().eval(), tokenizer().eval(), partial(balanced_labels, num_classes=3), batch_size=4
    )
    found = {}
    for count in (3, 21):  # fewer batches than processes, and a short last one
        batches = [
            generator.draw(published(3), span, seed=5) for span in own_spans(engine, count, 4)
        ]
        for name, parts in {
            "images": [batch.images for batch in batches],
            "labels": [batch.labels for batch in batches],
            "parameters": [batch.generation.parameters for batch in batches],
        }.items():
            found[f"{name} of {count}"] = gather_rows(engine, torch.cat(parts), count, 4)
    return found


def everything(engine: AccelerateEngine, folder: Path) -> dict[str, object]:
    return {
        "nat": train_nat(engine, folder / "nat"),
        "sharded": train_sharded(engine, folder / "sharded"),
        "tokenizer": train_tokenizer(engine),
        "discriminator": train_discriminator(engine),
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
    if arguments.die_at is None:
        found = everything(engine, out.parent)
    else:
        found = {"nat": train_nat(engine, out.parent / "nat", arguments.die_at)}
    found["processes"] = engine.num_processes
    if engine.is_main:
        torch.save(found, out)
    engine.wait()


if __name__ == "__main__":
    main()
