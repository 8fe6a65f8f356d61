"""ImageReward from a file of the published names, against transformers' own BLIP."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from advreward import PretrainedReward
from advreward.image_reward import image_reward_scorer
from torch import Tensor, nn
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval

PROMPTS = ["a red shoe", "a coat", "shoe"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "shoe", "red", "coat"]
# Transformers' names -> the published ones; what is not here is called alike.
RENAMED = {
    r"vision_model\.embeddings\.class_embedding": "visual_encoder.cls_token",
    r"vision_model\.embeddings\.position_embedding": "visual_encoder.pos_embed",
    r"vision_model\.embeddings\.patch_embedding": "visual_encoder.patch_embed.proj",
    r"vision_model\.post_layernorm": "visual_encoder.norm",
    r"vision_model\.encoder\.layers": "visual_encoder.blocks",
    r"self_attn\.projection": "attn.proj",
    r"self_attn": "attn",
    r"layer_norm(\d)": r"norm\1",
}


@pytest.fixture(scope="module")
def blip() -> BlipForImageTextRetrieval:
    torch.manual_seed(0)
    config = BlipConfig(
        text_config={
            "vocab_size": len(PIECES),
            "hidden_size": 128,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 40,
            "bos_token_id": 2,
            "sep_token_id": 3,
        },
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "image_size": 24,
            "patch_size": 8,
            "layer_norm_eps": 1e-6,  # as BLIP's own; transformers' default is another
        },
        image_text_hidden_size=8,
    )
    config.text_config.encoder_hidden_size = 64
    model = BlipForImageTextRetrieval(config).eval()
    for parameter in model.parameters():  # biases and norms are trivial at first
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def head() -> nn.Sequential:
    torch.manual_seed(1)
    widths, dropouts = (128, 1024, 128, 64, 16, 1), 3
    layers: list[nn.Module] = []
    for index in range(5):
        layers.append(nn.Linear(widths[index], widths[index + 1]))
        nn.init.normal_(layers[-1].weight, std=widths[index] ** -0.5)  # keeps the spread
        if index < dropouts:
            layers.append(nn.Dropout(0.2))
    return nn.Sequential(*layers).eval()


@pytest.fixture
def published(blip: BlipForImageTextRetrieval, head: nn.Sequential) -> dict[str, Tensor]:
    state = {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None]}
    for name, tensor in blip.state_dict().items():
        if name.startswith("itm_head"):
            continue
        for ours, theirs in RENAMED.items():
            name = re.sub(ours, theirs, name)
        state[f"blip.{name}"] = tensor
    return state | {f"mlp.layers.{name}": tensor for name, tensor in head.state_dict().items()}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={p: i for i, p in enumerate(PIECES)}).save_pretrained(folder)
    return folder


def outcome(count: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {"images": torch.rand(count, 3, 24, 24), "labels": torch.arange(count) % 3}


def test_scores_are_those_of_the_published_parts(
    blip: BlipForImageTextRetrieval,
    head: nn.Sequential,
    published: dict[str, Tensor],
    tokenizer: Path,
    tmp_path: Path,
) -> None:
    torch.save(published, tmp_path / "ImageReward.pt")
    scorer = image_reward_scorer(tmp_path / "ImageReward.pt", PROMPTS, tokenizer=tokenizer)
    batch = outcome()
    rewards = PretrainedReward(scorer, batch_size=2)(batch)

    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    tokens = BertTokenizer.from_pretrained(tokenizer)(
        [PROMPTS[label] for label in batch["labels"]],
        padding="max_length",
        max_length=35,
        return_tensors="pt",
    )
    with torch.inference_mode():
        seen = blip(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=(batch["images"] - mean) / std,
        ).question_embeds
        expected = (head(seen[:, 0]).squeeze(1) - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(rewards, expected, rtol=1e-4, atol=1e-5)
    assert rewards.std() > 0.05


def test_images_are_resized_and_nothing_is_trained(
    published: dict[str, Tensor], tokenizer: Path, tmp_path: Path
) -> None:
    torch.save(published, tmp_path / "ImageReward.pt")
    scorer = image_reward_scorer(tmp_path / "ImageReward.pt", PROMPTS, tokenizer=tokenizer)
    assert scorer(torch.rand(2, 3, 9, 30), torch.tensor([0, 2])).shape == (2,)
    assert not any(parameter.requires_grad for parameter in scorer.parameters())
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\), got \[1, 3\]"):
        scorer(torch.rand(2, 3, 24, 24), torch.tensor([1, 3]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blip.visual_encoder.pos_embed", r"is not ImageReward's: it has no tensor 'pos_embed'"),
        ("blip.text_encoder.encoder.layer.1.output.dense.bias", r"BlipTextModel: missing: encoder"),
        ("mlp.layers.6.weight", r"does not fit the Sequential: missing: 6\.weight"),
    ],
)
def test_files_of_other_models_are_refused(
    published: dict[str, Tensor], tokenizer: Path, tmp_path: Path, name: str, message: str
) -> None:
    del published[name]
    torch.save(published, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=message):
        image_reward_scorer(tmp_path / "other.pt", PROMPTS, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="prompts is empty"):
        image_reward_scorer(tmp_path / "other.pt", [], tokenizer=tokenizer)
