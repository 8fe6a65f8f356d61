from __future__ import annotations

from pathlib import Path

import pytest
import torch
from advreward import ClassifierScorer, PretrainedReward, SimilarityScorer
from advreward.clip import clip_scorer
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

WORDS = ("a", "shoe", "red", "coat")


def outcome(count: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"images": torch.rand(count, 3, 12, 12), "labels": torch.arange(count) % 3}


def classify(images: Tensor) -> Tensor:
    return 10 * images.mean((2, 3))


def test_log_probability_of_the_class() -> None:
    reward = PretrainedReward(ClassifierScorer(classify), batch_size=3)
    batch = outcome()
    expected = classify(batch["images"]).log_softmax(1)[torch.arange(7), batch["labels"]]
    torch.testing.assert_close(reward(batch), expected)
    assert not reward(batch).requires_grad


def test_similarity_to_the_row_of_the_label() -> None:
    batch, table = outcome(), torch.randn(3, 3)
    reward = PretrainedReward(SimilarityScorer(classify, table), batch_size=2)
    vectors = torch.nn.functional.normalize(classify(batch["images"]), dim=1)
    rows = torch.nn.functional.normalize(table, dim=1)[batch["labels"]]
    torch.testing.assert_close(reward(batch), (vectors * rows).sum(1))


def test_similarity_to_given_vectors() -> None:
    batch = outcome()
    batch["condition"] = classify(batch["images"]) * 4
    reward = PretrainedReward(SimilarityScorer(classify), condition_name="condition")
    torch.testing.assert_close(reward(batch), torch.ones(7))


@pytest.mark.parametrize(
    "scorer", [ClassifierScorer(classify), SimilarityScorer(classify, torch.eye(3))]
)
def test_labels_out_of_range_are_named(scorer) -> None:
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), got \[1, 3\]"):
        scorer(torch.rand(2, 3, 4, 4), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match=r"labels must be int64 \(B,\), got torch.float32"):
        scorer(torch.rand(2, 3, 4, 4), torch.zeros(2))


def test_vectors_of_another_space_are_refused() -> None:
    with pytest.raises(ValueError, match=r"texts \(2, 5\) and images \(2, 3\)"):
        SimilarityScorer(classify)(torch.rand(2, 3, 4, 4), torch.rand(2, 5))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        PretrainedReward(ClassifierScorer(classify), batch_size=0)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of one narrow layer a tower, random, with a vocabulary of four words."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    pieces = ["<|startoftext|>", "<|endoftext|>", *sorted({c for w in WORDS for c in w})]
    pieces += [f"{piece}</w>" for piece in pieces[2:]]
    tokenizer = CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[])
    tower = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": len(pieces), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={**tower, **text, "max_position_embeddings": 12},
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_clip_equals_transformers_own_similarity(clip_folder: Path) -> None:
    prompts = ["a red shoe", "a coat", "shoe"]
    batch = outcome()
    batch["images"] = torch.rand(7, 3, 16, 16).mul(255).round() / 255
    rewards = PretrainedReward(clip_scorer(clip_folder, prompts), batch_size=4)(batch)

    model, tokenizer = (
        CLIPModel.from_pretrained(clip_folder),
        CLIPTokenizer.from_pretrained(clip_folder),
    )
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    pixels = processor(list((batch["images"] * 255).round().to(torch.uint8)), return_tensors="pt")
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        output = model(pixel_values=pixels["pixel_values"], **tokens)
        cosine = output.logits_per_image / model.logit_scale.exp()
    torch.testing.assert_close(
        rewards, cosine[torch.arange(7), batch["labels"]], atol=1e-5, rtol=1e-4
    )
    assert len(set(rewards.tolist())) == 7


def test_clip_resizes_and_needs_prompts(clip_folder: Path) -> None:
    scorer = clip_scorer(clip_folder, ["a coat"] * 3)
    assert not any(parameter.requires_grad for parameter in scorer.parameters())
    assert scorer(torch.rand(2, 3, 9, 30), torch.tensor([0, 1])).shape == (2,)
    with pytest.raises(ValueError, match="prompts is empty"):
        clip_scorer(clip_folder, [])
    with pytest.raises(OSError, match="absent"):
        clip_scorer(clip_folder / "absent", ["a"])
