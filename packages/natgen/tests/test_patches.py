"""Patches of codes: the arrangement, and a NAT whose positions are patches."""

import dataclasses

import pytest
import torch
from natgen import NAT, NATTrainer, NATTrainingConfig, NoiseSource, generate, nat_l, published
from natgen.patches import merge_patches, split_patches

LABELS = torch.tensor([0, 3, 5])


def tokens_of(model, batch=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.mask_token_id + 1, (batch, model.seq_len), generator=generator)


def test_patches_by_hand():
    grid = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]])
    patches = split_patches(grid.flatten()[None], (4, 4), 2)
    assert patches.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


@pytest.mark.parametrize(("grid_size", "patch_size"), [((6, 4), 2), ((3, 6), 3), ((3, 5), 1)])
def test_merging_undoes_splitting(grid_size, patch_size):
    codes = torch.arange(2 * grid_size[0] * grid_size[1]).view(2, -1)
    patches = split_patches(codes, grid_size, patch_size)
    assert patches.shape == (2, codes.shape[1] // patch_size**2, patch_size**2)
    merged = merge_patches(patches[..., None], grid_size, patch_size)
    assert torch.equal(merged.squeeze(-1), codes)


def test_features_are_per_patch_and_logits_per_code(patch_model):
    output = patch_model(tokens_of(patch_model), LABELS)
    assert patch_model.feature_grid == (2, 3)
    assert output.features.shape == (3, 6, 16)
    assert output.logits.shape == (3, 24, 16)


def test_a_code_enters_its_own_patch(patch_model):
    """Without attention between positions, a code reaches the features of its patch alone."""
    for block in (*patch_model.in_blocks, patch_model.mid_block, *patch_model.out_blocks):
        torch.nn.init.zeros_(block.attention.proj.weight)
    tokens = tokens_of(patch_model, 1)
    changed = tokens.clone()
    changed[0, 2 * 6 + 5] = (
        tokens[0, 2 * 6 + 5] + 1
    ) % 16  # row 2, column 5: patch row 1, column 2
    before = patch_model(tokens, LABELS[:1])
    after = patch_model(changed, LABELS[:1])
    touched = (before.features != after.features).any(-1).view(2, 3)
    assert touched.tolist() == [[False] * 3, [False, False, True]]
    touched = (before.logits != after.logits).any(-1).view(4, 6)
    assert touched.nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


def test_codes_of_a_patch_have_logits_of_their_own(patch_model):
    masks = torch.full((1, 24), patch_model.mask_token_id)
    logits = patch_model(masks, LABELS[:1]).logits.view(4, 6, -1)
    assert not torch.allclose(logits[0, 0], logits[0, 1])
    assert not torch.allclose(logits[0, 0], logits[1, 0])


def test_every_parameter_gets_a_gradient(patch_model):
    output = patch_model(tokens_of(patch_model), LABELS)
    (output.logits.square().sum() + output.features.square().sum()).backward()
    for name, parameter in patch_model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_training_and_decoding(patch_model):
    """Each code of a patch is learnt apart: the pattern has other codes at all places."""
    config = NATTrainingConfig(
        learning_rate=1e-2, betas=(0.9, 0.99), warmup_steps=5, label_smoothing=0.0
    )
    torch.manual_seed(0)
    model = NAT(dataclasses.replace(patch_model.config, dropout=0.0))
    trainer = NATTrainer(model, config, seed=0)
    labels = torch.arange(5)
    images = (labels[:, None] * 3 + torch.arange(24)) % 16
    for _ in range(250):
        trainer.step(images.repeat(4, 1), labels.repeat(4))
    generation = generate(
        trainer.ema_model,
        published(4, remask_temperature=1.0, sampling_temperature=0.3),
        labels,
        sample_indices=labels,
        noise=NoiseSource(0),
    )
    assert (generation.tokens == images).float().mean() > 0.95


def test_512_pixels_run_as_long_as_256():
    with torch.device("meta"):
        model = NAT(nat_l(grid_size=(32, 32), patch_size=2))
    assert model.seq_len == 1024
    assert model.feature_grid == (16, 16)
    assert model.token_embedding.position.shape == (256, 768)
