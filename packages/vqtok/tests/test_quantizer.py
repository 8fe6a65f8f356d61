import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqtok import codebook_statistics
from vqtok.quantizer import VectorQuantizer


def make_quantizer(seed: int = 0, *, threshold: float = 0.0, decay: float = 0.9) -> VectorQuantizer:
    generator = torch.Generator().manual_seed(seed)
    quantizer = VectorQuantizer(
        7, 3, decay=decay, dead_code_threshold=threshold, commitment_weight=0.25
    )
    quantizer.set_codebook(torch.randn(7, 3, generator=generator))
    return quantizer


def make_latent(seed: int = 1, batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 2, 5, generator=torch.Generator().manual_seed(seed))


def brute_force(latent: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    difference = latent.double()[:, None] - codebook.double()[None, :, :, None, None]
    return difference.square().sum(2).argmin(1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 6))
def test_nearest_is_by_euclidean_distance(seed: int, batch: int) -> None:
    quantizer, latent = make_quantizer(seed), make_latent(seed + 1, batch)
    assert torch.equal(quantizer.nearest(latent), brute_force(latent, quantizer.codebook))


@pytest.mark.parametrize("training", [True, False])
def test_forward_uses_the_nearest_code(training: bool) -> None:
    quantizer, latent = make_quantizer().train(training), make_latent()
    codebook = quantizer.codebook.clone()
    vectors, token_grid, commitment_loss = quantizer(latent)
    assert torch.equal(token_grid, brute_force(latent, codebook))
    chosen = codebook[token_grid].permute(0, 3, 1, 2)
    torch.testing.assert_close(vectors, chosen)
    torch.testing.assert_close(commitment_loss, 0.25 * (latent - chosen).square().mean())


def test_gradients_pass_straight_through() -> None:
    quantizer, latent = make_quantizer(), make_latent().requires_grad_()
    weights = torch.randn(latent.shape, generator=torch.Generator().manual_seed(2))
    (quantizer(latent).vectors * weights).sum().backward()
    torch.testing.assert_close(latent.grad, weights)


def test_codes_move_to_the_average_of_their_latents() -> None:
    quantizer, latent = make_quantizer(decay=0.9), make_latent()
    before = quantizer.codebook.clone()
    token_grid = quantizer(latent).token_grid
    flat, codes = latent.permute(0, 2, 3, 1).flatten(0, 2), token_grid.flatten()
    for code in range(7):
        hits = flat[codes == code]
        # set_codebook counts as one hit where no code can die.
        expected = (0.9 * before[code] + 0.1 * hits.sum(0)) / (0.9 + 0.1 * len(hits))
        torch.testing.assert_close(quantizer.codebook[code], expected, rtol=1e-4, atol=1e-5)


def test_dead_codes_become_latents_of_the_batch() -> None:
    quantizer, latent = make_quantizer(threshold=0.5, decay=0.5), make_latent()
    far = quantizer.codebook.clone()
    far[3] = 100.0
    quantizer.set_codebook(far)
    torch.manual_seed(0)
    for _ in range(6):
        quantizer(latent)
    flat = latent.permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.cdist(quantizer.codebook[3:4], flat).min() < 1.0


def test_set_codes_outlive_the_first_step() -> None:
    quantizer, latent = make_quantizer(threshold=2.0, decay=0.99), make_latent()
    before = quantizer.codebook.clone()
    used = quantizer(latent).token_grid.unique()
    unused = [code for code in range(7) if code not in used]
    torch.testing.assert_close(quantizer.codebook[unused], before[unused])


def test_evaluation_changes_nothing() -> None:
    quantizer = make_quantizer(threshold=2.0).eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(make_latent())
    quantizer.train().nearest(make_latent())
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_distances_stay_float32_under_autocast() -> None:
    # Two codes that bfloat16 cannot tell apart.
    quantizer = VectorQuantizer(
        2, 1, decay=0.9, dead_code_threshold=0.0, commitment_weight=0.25
    ).eval()
    quantizer.set_codebook(torch.tensor([[100.0], [100.1]]))
    latent = torch.tensor([100.01, 100.09]).view(1, 1, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert quantizer.nearest(latent).flatten().tolist() == [0, 1]
        assert quantizer.train()(latent).token_grid.flatten().tolist() == [0, 1]


def test_statistics_of_known_frequencies() -> None:
    even = codebook_statistics(torch.arange(8).repeat(3).view(2, 3, 4), 8)
    assert even == pytest.approx({"usage": 1.0, "perplexity": 8.0})
    skewed = codebook_statistics(torch.tensor([0, 0, 0, 1]), 4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert skewed == pytest.approx({"usage": 0.5, "perplexity": math.exp(entropy)})


def test_normalized_codes_are_chosen_by_angle() -> None:
    quantizer = VectorQuantizer(
        7, 3, decay=0.9, dead_code_threshold=0.0, commitment_weight=0.25, normalize_codes=True
    )
    codes = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    quantizer.set_codebook(codes)
    latent = make_latent()
    unit = latent / latent.norm(dim=1, keepdim=True)
    cosine = torch.einsum("bdhw,vd->bvhw", unit, codes / codes.norm(dim=1, keepdim=True))
    for training in (False, True):
        quantizer.set_codebook(codes)
        vectors, token_grid, commitment_loss = quantizer.train(training)(latent)
        assert torch.equal(token_grid, cosine.argmax(1))
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4, 2, 5))
        torch.testing.assert_close(commitment_loss, 0.25 * (unit - vectors).square().mean())
    torch.testing.assert_close(quantizer.codebook.norm(dim=1), torch.ones(7))


def test_codes_in_half_precision_are_normalized_in_float32() -> None:
    quantizer = VectorQuantizer(
        7, 3, decay=0.9, dead_code_threshold=0.0, commitment_weight=0.25, normalize_codes=True
    )
    codes = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).half()
    quantizer.set_codebook(codes)
    exact = codes.double() / codes.double().norm(dim=1, keepdim=True)
    torch.testing.assert_close(quantizer.codebook, exact.float(), rtol=1e-6, atol=1e-7)
