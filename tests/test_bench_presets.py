"""The laptop preset measures what the Fashion-MNIST recipe trains."""

from adanat.recipes import get_recipe
from natbench.presets import laptop


def test_laptop_preset_has_the_sizes_of_the_recipe() -> None:
    recipe, preset = get_recipe("fashion-mnist"), laptop()
    assert preset.tokenizer == recipe.tokenizer.model
    assert preset.nat.codebook_size == recipe.tokenizer.model.codebook_size
    for name in ("embed_dim", "depth", "num_heads", "dropout"):
        assert getattr(preset.nat, name) == getattr(recipe.generator, name)
    assert preset.nat.num_classes == recipe.data.num_classes
    assert preset.policy_hidden_dim == recipe.policy.hidden_dim
    assert preset.backbone_size == recipe.reward.input_size
