"""CLIPScore against its definition, with a CLIP model of no worth."""

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
from transformers import CLIPModel, CLIPProcessor

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
CAPTIONS = ["abba", "cab", "a"]


def test_scores_are_the_clipped_cosines_of_the_two_towers(clip_folder):
    items = [Item(i, caption=c) for i, c in zip(IMAGES, CAPTIONS, strict=True)]
    found = ClipExtractor(clip_folder, device=CPU)(items)[SCORES]
    model = CLIPModel.from_pretrained(clip_folder).eval()
    processor = CLIPProcessor.from_pretrained(clip_folder)
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


def test_an_image_without_caption_and_a_folder_without_model_are_refused(clip_folder, tmp_path):
    with pytest.raises(DataError, match="needs a caption for every image"):
        ClipExtractor(clip_folder, device=CPU)([Item(IMAGES[0])])
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
