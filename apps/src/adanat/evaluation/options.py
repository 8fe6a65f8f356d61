"""What `adanat evaluate SOURCE` can be told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from adanat.evaluation.figures import METRICS, ManifoldName, MetricName
from adanat.evaluation.weights import default_cache
from adanat.generation import Precision


@dataclass(frozen=True, kw_only=True)
class SourceEvaluation:
    """What to judge, against what, by which figures."""

    source: tyro.conf.Positional[str]
    """A run folder of this project, a pipeline that `adanat export-pipeline` saved, a folder of
    images, an .npz with arr_0 (ADM's layout), or webdataset shards (a .tar, a folder of them, or a
    quoted pattern such as 'data/test-*.tar')."""
    reference: str | None = None
    """Real images, named in the same ways, or an .npz with mu and sigma. Default with
    --reconstruct: the images themselves, as the tokenizer is given them."""
    reconstruct: str | None = None
    """Judge what this tokenizer makes of the images of SOURCE (rFID): a run folder, a saved
    pipeline, a folder of save_pretrained, or a published file as vqgan:FILE, open-muse:FILE or
    llamagen:FILE. Of a run folder as SOURCE, the images of --split; others are cropped to the
    tokenizer's size as ADM does."""
    split: Literal["fit", "validation", "test"] = "test"
    """Of a run folder whose images are reconstructed."""
    metrics: tuple[MetricName, ...] = ("lite2", "precision", "recall")
    """Figures: fid and kid (clean-fid's protocol), fid-adm and inception-score (ADM's), lite2 and
    lite2-kid (offline, never called FID), precision, recall, density, coverage, clip-score; with
    --reconstruct also psnr, ssim, l1, codebook-usage, codebook-perplexity."""
    output: Path
    """The JSON file of results."""
    manifold: ManifoldName = "lite2"
    """Features of precision, recall, density and coverage."""
    feature_size: int = 64
    """Side in pixels to which images are resized for lite2."""
    statistics_protocol: ManifoldName = "adm"
    """How a --reference file was made that has mu and sigma but does not say so itself."""
    num_samples: int | None = None
    """Images judged. Default: all that are given; 10,000 drawn by a run or pipeline."""
    num_reference: int | None = None
    """Real images used, the first ones (of a folder sorted by class, the first classes). Default:
    all."""
    policy: str = "adaptive"
    """Of a run folder: static, static_tuned, static_tuned_T8, static_searched, adaptive,
    adaptive_1, or adaptive_static. Of a pipeline: adaptive, static, maskgit or autonat."""
    num_steps: int | None = None
    """Decoding steps of the policy static of a run folder, static or maskgit of a pipeline."""
    precision: Precision = "fp32"
    """Of a run or pipeline: in which the transformer and the picture decoder run. Policies decide
    in float32."""
    seeds: tuple[int, ...] = (0,)
    """Of a run or pipeline: generation seeds; intervals are over them."""
    labels: Literal["balanced", "random", "captions"] = "balanced"
    """Of a run or pipeline: every class equally often, drawn at random, or the reference's
    captions."""
    text_encoder: str | None = None
    """Of a run folder trained on captions: minilm, hashed or clip:SOURCE. Default: the one that the
    run's transformer was trained with."""
    scoring_seed: int = 0
    """Seed of KID's subsets, the Inception Score's splits and the resampling."""
    batch_size: int = 100
    """Images at once, in generation and in feature extraction."""
    save_images: Path | None = None
    """Folder for the judged images as PNG files (one folder a seed)."""
    save_npz: Path | None = None
    """File for the judged images in ADM's layout (one file a seed)."""
    pictures: Path | None = None
    """Folder for pictures: a grid, nearest real neighbours, best and worst of each class."""
    weights_dir: Path | None = None
    """Folder of downloaded weights. Default: weights/ in the cache."""
    clip_dir: Path | None = None
    """Folder of a CLIP model as transformers saves it, for clip-score."""
    cache_dir: Path | None = None
    """Folder of features and reference statistics. Default: ~/.cache/adanat."""

    def __post_init__(self) -> None:
        if not self.metrics or not self.seeds:
            raise ValueError("metrics and seeds need at least one entry each")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}; each counts once: name others")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it must be at least 1")
        for name in ("num_samples", "num_reference"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"{name} is {count}; it must be at least 1")
        missing = [name for name in self.metrics if METRICS[name].compares is not None]
        if missing and self.reference is None and self.reconstruct is None:
            raise ValueError(
                f"{', '.join(missing)} compare with real images: name them by --reference"
            )
        pairs = [name for name in self.metrics if METRICS[name].extractor == "pixels"]
        if pairs and self.reconstruct is None:
            raise ValueError(
                f"{', '.join(pairs)} compare images with their reconstructions: name a tokenizer "
                "by --reconstruct"
            )
        if "clip-score" in self.metrics and self.clip_dir is None:
            raise ValueError("clip-score needs a CLIP model: name its folder by --clip-dir")

    @property
    def cache(self) -> Path:
        """Where everything is kept between evaluations."""
        return self.cache_dir or default_cache()

    @property
    def weights(self) -> Path:
        """Where the networks' weights are looked up and downloaded to."""
        return self.weights_dir or self.cache / "weights"
