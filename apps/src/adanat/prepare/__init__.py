"""Data sets of the benchmarks: from what their publishers ship to samples by index."""

from adanat.prepare.datasets import Preparation, prepare_cc3m, prepare_coco, prepare_imagenet
from adanat.prepare.image_set import item_captions, item_names, open_split
from adanat.prepare.index import PreparedIndex, read_prepared
from adanat.prepare.pictures import adm_crop, open_rgb
from adanat.prepare.reading import PreparedSplit, SplitImages

__all__ = [
    "Preparation",
    "PreparedIndex",
    "PreparedSplit",
    "SplitImages",
    "adm_crop",
    "item_captions",
    "item_names",
    "open_rgb",
    "open_split",
    "prepare_cc3m",
    "prepare_coco",
    "prepare_imagenet",
    "read_prepared",
]
