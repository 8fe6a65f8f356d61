"""A tokenizer judged alone: what it makes of images, pair by pair and as a set."""

import numpy as np
import pytest
import torch
from adanat.data import load_split
from adanat.errors import DataError
from adanat.evaluation import SourceEvaluation, evaluate_source, tokenizers
from adanat.evaluation.judged import open_judged
from adanat.evaluation.pixels import PixelExtractor
from adanat.evaluation.sources import Item, Origin
from adanat.generation import from_uint8
from adanat.metrics import to_uint8
from adanat.metrics.bootstrap import mean_interval
from adanat.prepare import adm_crop
from adanat.recipes import get_recipe
from adanat.run import Run
from adanat.stages import prepare_data
from PIL import Image
from scipy.ndimage import gaussian_filter
from vqtok import Tokenizer, codebook_statistics, small

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the tiny recipe as far as its tokenizer, which has random weights."""
    run = Run(get_recipe("tiny"), tmp_path_factory.mktemp("run"))
    prepare_data(run)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Tokenizer(run.recipe.tokenizer.model).save_pretrained(run.folder.tokenizer_model)
    return run


@pytest.fixture
def photographs(tmp_path):
    """Three pictures that are neither square nor of the tokenizer's size."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 30, 41, 3), dtype=np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder, pixels


def options(source, tokenizer, tmp_path, **changes):
    defaults = {
        "source": str(source),
        "reconstruct": str(tokenizer),
        "metrics": ("psnr",),
        "output": tmp_path / "out.json",
        "cache_dir": tmp_path / "cache",
        "feature_size": 32,
        "batch_size": 7,
    }
    return SourceEvaluation(**(defaults | changes))


def reconstructed(tokenizer, images):
    """uint8 (N, H, W, 3) after a tokenizer, and the codes."""
    codes = tokenizer.eval().encode(from_uint8(torch.tensor(images).permute(0, 3, 1, 2)))
    return to_uint8(tokenizer.decode(codes)).permute(0, 2, 3, 1).numpy(), codes


def test_a_run_s_tokenizer_is_judged_on_the_run_s_own_images(run, tmp_path):
    codes = ("codebook-usage", "codebook-perplexity")
    result = evaluate_source(
        options(
            *(run.output_dir, run.output_dir, tmp_path),
            metrics=("lite2", "l1", *codes),
            split="validation",
            num_samples=20,
        )
    )
    figures = {figure.key: figure for figure in result.figures}
    tokenizer = Tokenizer.from_pretrained(run.folder.tokenizer_model)
    size = tokenizer.config.image_size
    images = load_split(run.folder.data, "validation", size).images[:20].permute(0, 2, 3, 1)
    made, grids = reconstructed(tokenizer, images.numpy())
    error = np.abs(made.astype(float) - images.numpy()).mean() / 255
    assert figures["l1"].value == pytest.approx(error, rel=1e-6)
    assert figures["l1"].low < error < figures["l1"].high
    expected = codebook_statistics(grids, tokenizer.codebook_size)
    assert figures["codebook_usage"].value == pytest.approx(expected["usage"])
    assert figures["codebook_perplexity"].value == pytest.approx(expected["perplexity"])
    assert figures["codebook_usage"].interval is None
    assert figures["lite2_fd"].value > 0
    assert figures["lite2_fd"].num_reference == 20
    assert result.reference == f"the first 20 of 300 validation images of {run.output_dir}"
    assert (result.policy, result.cost, result.seeds) == (None, None, ())


def test_other_images_are_cropped_to_the_tokenizer_s_size(photographs, pipeline_by_class, tmp_path):
    folder, pixels = photographs
    pipeline_by_class.save_pretrained(tmp_path / "pipeline")
    source = open_judged(options(folder, tmp_path / "pipeline", tmp_path), CPU)[0]
    crops = np.stack([adm_crop(Image.fromarray(picture), 8) for picture in pixels])
    expected, _ = reconstructed(pipeline_by_class.tokenizer, crops)
    found = list(source.items(0, 3))
    np.testing.assert_array_equal([item.image for item in found], expected)
    np.testing.assert_array_equal([item.origin.image for item in found], crops)
    np.testing.assert_array_equal([item.image for item in source.originals.items(1, 3)], crops[1:])


def test_keys_tell_tokenizers_apart(photographs, tmp_path):
    keys = set()
    for seed in (0, 1, 1):
        torch.manual_seed(seed)
        Tokenizer(small(8, downsample_factors=(2,), base_channels=8)).save_pretrained(tmp_path)
        keys.add(open_judged(options(photographs[0], tmp_path, tmp_path), CPU)[0].key)
    assert len(keys) == 2


def test_each_pair_is_measured_as_by_hand():
    random = np.random.default_rng(3)
    real = random.integers(0, 256, (4, 16, 12, 3), dtype=np.uint8)
    noise = random.integers(-30, 31, real.shape)
    noise[3] = 0
    made = np.clip(real + noise, 0, 255).astype(np.uint8)
    codes = np.arange(6)
    found = PixelExtractor(device=CPU)(
        [Item(m, origin=Origin(r, codes, 9)) for m, r in zip(made, real, strict=True)]
    )
    squared = ((made.astype(float) - real) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(found["psnr"][:3], 10 * np.log10(255**2 / squared[:3]), rtol=1e-5)
    # The perfect one counts as if one of its values were off by one.
    assert found["psnr"][3] == pytest.approx(10 * np.log10(255**2 * real[0].size), rel=1e-6)
    expected = [
        ssim_by_scipy(m.astype(float), r.astype(float)) for m, r in zip(made, real, strict=True)
    ]
    np.testing.assert_allclose(found["ssim"], expected, rtol=1e-3)
    assert found["ssim"][3] == pytest.approx(1)


def ssim_by_scipy(first, second):
    """Wang et al. 2004, eq. 13, with mirrored borders."""

    def blur(x):
        return gaussian_filter(x, 1.5, truncate=3.5, mode="mirror", axes=(0, 1))

    means = blur(first), blur(second)
    variances = blur(first**2) - means[0] ** 2, blur(second**2) - means[1] ** 2
    covariance = blur(first * second) - means[0] * means[1]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    upper = (2 * means[0] * means[1] + c1) * (2 * covariance + c2)
    lower = (means[0] ** 2 + means[1] ** 2 + c1) * (variances[0] + variances[1] + c2)
    return (upper / lower).mean()


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(5, 2, 4000).astype(np.float32)
    found = mean_interval(values, seed=1)
    assert found.mean == pytest.approx(values.mean(dtype=float))
    assert found.half_width == pytest.approx(1.96 * values.std() / 4000**0.5, rel=0.1)


def test_published_files_are_named_with_their_format(monkeypatch, tmp_path):
    config = small(8, downsample_factors=(2,), base_channels=8)
    loaded = {}

    def load(file, sizes):
        loaded[file] = sizes
        return Tokenizer(sizes)

    monkeypatch.setattr(tokenizers, "_PUBLISHED", {"llamagen": (load, lambda: config)})
    assert not tokenizers.load_tokenizer("llamagen:a/vq.pt", CPU).training
    assert loaded == {"a/vq.pt": config}
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match=r"vq\.pt"):
        tokenizers.load_tokenizer(f"open-muse:{tmp_path / 'vq.pt'}", CPU)


def test_what_does_not_fit_is_refused(photographs, run, tmp_path):
    with pytest.raises(DataError, match="holds no tokenizer: name a run folder"):
        open_judged(options(photographs[0], tmp_path, tmp_path), CPU)
    with pytest.raises(ValueError, match=r"seeds are \(0, 1\), but the images of .* are given"):
        open_judged(options(photographs[0], run.output_dir, tmp_path, seeds=(0, 1)), CPU)
    with pytest.raises(ValueError, match="psnr, l1 compare images with their reconstructions"):
        options("images", "", tmp_path, reconstruct=None, metrics=("psnr", "l1"))
    with pytest.raises(DataError, match="no reconstructions: name a tokenizer by --reconstruct"):
        PixelExtractor(device=CPU)([Item(np.zeros((8, 8, 3), np.uint8))])
