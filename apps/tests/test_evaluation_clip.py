"""CLIPScore against its definition, with a CLIP model of no worth."""

import json

import numpy as np
import pytest
import torch
from adanat.errors import DataError, StorageError
from adanat.evaluation.chunks import FeatureStore
from adanat.evaluation.clip import ClipExtractor
from adanat.evaluation.extractors import SCORES
from adanat.evaluation.figures import METRICS, Sample
from adanat.evaluation.sources import Item
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
)

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
CAPTIONS = ["abba", "cab", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    letters = [*"abc", *(f"{letter}</w>" for letter in "abc")]
    words = [*letters, "<|startoftext|>", "<|endoftext|>"]
    (root / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(root / "vocab.json"), str(root / "merges.txt"))
    size = {"height": 16, "width": 16}
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(root)
    shared = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = CLIPConfig(
            text_config={**shared, "vocab_size": 8, "bos_token_id": 6, "eos_token_id": 7},
            vision_config={**shared, "image_size": 16, "patch_size": 8},
            projection_dim=8,
        )
        model = CLIPModel(config)
    model.visual_projection.weight.data.neg_()  # these random towers disagree otherwise
    model.save_pretrained(root)
    return root


def test_scores_are_the_clipped_cosines_of_the_two_towers(folder):
    items = [Item(i, caption=c) for i, c in zip(IMAGES, CAPTIONS, strict=True)]
    found = ClipExtractor(folder, device=CPU)(items)[SCORES]
    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPProcessor.from_pretrained(folder)
    for item, score in zip(items, found, strict=True):  # one at a time: no padding
        image = processor.image_processor(Image.fromarray(item.image), return_tensors="pt")
        text = processor.tokenizer(item.caption, return_tensors="pt")
        with torch.no_grad():
            seen = model.visual_projection(model.vision_model(**image).pooler_output)[0]
            read = model.text_projection(model.text_model(**text).pooler_output)[0]
        cosine = float(seen @ read / (seen.norm() * read.norm()))
        assert score == pytest.approx(100 * max(cosine, 0), abs=1e-3)
    assert found.shape == (3,)
    assert found.max() > 0


def test_an_image_without_caption_and_a_folder_without_model_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="needs a caption for every image"):
        ClipExtractor(folder, device=CPU)([Item(IMAGES[0])])
    with pytest.raises(StorageError, match=r"has no model\.safetensors"):
        ClipExtractor(tmp_path, device=CPU)


def test_the_figure_is_the_mean_with_the_interval_of_resampled_images(tmp_path):
    scores = np.array([10, 20, 30, 36], dtype=np.float32)
    store = FeatureStore(tmp_path, num_images=4, chunk_size=4)
    store.write(0, {SCORES: scores})
    sample, metric = Sample(store=store, reference=None, seed=0), METRICS["clip-score"]
    found = metric.interval(sample, metric.value(sample))
    assert metric.value(sample) == found.mean == 24
    assert 10 < found.low < 24 < found.high < 36
