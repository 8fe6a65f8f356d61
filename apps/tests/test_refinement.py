"""Best of several candidates: never worse, one candidate changes nothing, the cost is stated."""

import pytest
import torch
from adanat.generation import Generator, balanced_labels
from adanat.refinement import RefinedBatch, refined_batches
from natgen import NAT, NATConfig, published
from torch import Tensor
from vqtok import Tokenizer, small

CLASSES = 3


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    tokenizer = Tokenizer(small(8, downsample_factors=(2,), base_channels=8, codebook_size=16))
    config = NATConfig(
        codebook_size=16,
        grid_size=tokenizer.grid_size,
        embed_dim=16,
        depth=2,
        num_heads=2,
        num_classes=CLASSES,
    )
    return Generator(
        NAT(config).eval(), tokenizer.eval(), lambda i: balanced_labels(i, CLASSES), batch_size=6
    )


def brightness(outcome: dict[str, Tensor]) -> Tensor:
    """Bright for even labels, dark for odd ones."""
    sign = 1.0 - 2.0 * (outcome["labels"] % 2)
    return sign * outcome["images"].mean(dim=(1, 2, 3))


def refine(generator: Generator, candidates: int, **options: int) -> list[RefinedBatch]:
    settings = {"seed": 5, "num_samples": 10, **options}
    return list(
        refined_batches(
            generator,
            published(3),
            brightness,
            lambda indices: {"labels": balanced_labels(indices, CLASSES)},
            candidates=candidates,
            **settings,
        )
    )


def test_one_candidate_is_the_plain_sample(generator: Generator) -> None:
    plain = list(generator.batches(published(3), seed=5, num_samples=10))
    for refined, batch in zip(refine(generator, 1), plain, strict=True):
        assert torch.equal(refined.images, batch.images)
        assert torch.equal(refined.labels, batch.labels)


def test_the_best_is_kept_and_more_never_hurt(generator: Generator) -> None:
    few, many = refine(generator, 2), refine(generator, 4)
    for less, more in zip(few, many, strict=True):
        assert torch.equal(more.rewards[:2], less.rewards)  # the same candidates, and others
        best = more.rewards.amax(dim=0)
        assert (best >= less.rewards.amax(dim=0)).all()
        assert torch.equal(more.rewards[more.chosen, torch.arange(len(best))], best)
        kept = {"images": more.images.float() / 255, "labels": more.labels}
        torch.testing.assert_close(brightness(kept), best)
    assert torch.cat([batch.chosen for batch in many]).unique().numel() > 1


def test_every_candidate_costs_the_same_passes(generator: Generator) -> None:
    passes = []
    for candidates in (1, 3):
        before = generator.cost.passes
        refine(generator, candidates)
        passes.append(generator.cost.passes - before)
    assert passes[1] == pytest.approx(3 * passes[0])


def test_a_sample_does_not_depend_on_where_it_starts(generator: Generator) -> None:
    whole = torch.cat([batch.images for batch in refine(generator, 3)])
    part = torch.cat([batch.images for batch in refine(generator, 3, start=4, num_samples=3)])
    assert torch.equal(whole[4:7], part)


def test_no_candidate_is_refused(generator: Generator) -> None:
    with pytest.raises(ValueError, match="candidates must be at least 1, got 0"):
        refine(generator, 0)
