"""Data sets: sources, fixed splits, webdataset shards, and splits in memory."""

from adanat.data.images import ImageSet, load_split
from adanat.data.shards import (
    CAPTION,
    IMAGE,
    LABEL,
    METADATA,
    BadSamples,
    Field,
    Index,
    ShardInfo,
    prepare_shards,
    read_index,
    read_samples,
    verify_shard,
)
from adanat.data.sources import SOURCES, SourceImages, load_source
from adanat.data.splits import SPLITS, split_indices

__all__ = [
    "CAPTION",
    "IMAGE",
    "LABEL",
    "METADATA",
    "SOURCES",
    "SPLITS",
    "BadSamples",
    "Field",
    "ImageSet",
    "Index",
    "ShardInfo",
    "SourceImages",
    "load_source",
    "load_split",
    "prepare_shards",
    "read_index",
    "read_samples",
    "split_indices",
    "verify_shard",
]
