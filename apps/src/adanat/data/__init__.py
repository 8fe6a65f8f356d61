"""Data sets: sources, fixed splits, webdataset shards, and splits in memory."""

from adanat.data.emoji import FONT_NAME, EmojiFont, emoji_groups, find_font
from adanat.data.emoji_scenes import GROUNDS, Scene, paint, random_scene
from adanat.data.images import ImageSet, load_split
from adanat.data.preparation import EMOJI_SCENES, make_emoji_scenes, prepare_shards
from adanat.data.shards import (
    CAPTION,
    IMAGE,
    LABEL,
    METADATA,
    BadSamples,
    Field,
    Index,
    ShardInfo,
    read_index,
    read_samples,
    verify_shard,
)
from adanat.data.sources import SOURCES, SourceImages, load_source
from adanat.data.splits import SPLITS, split_indices

__all__ = [
    "CAPTION",
    "EMOJI_SCENES",
    "FONT_NAME",
    "GROUNDS",
    "IMAGE",
    "LABEL",
    "METADATA",
    "SOURCES",
    "SPLITS",
    "BadSamples",
    "EmojiFont",
    "Field",
    "ImageSet",
    "Index",
    "Scene",
    "ShardInfo",
    "SourceImages",
    "emoji_groups",
    "find_font",
    "load_source",
    "load_split",
    "make_emoji_scenes",
    "paint",
    "prepare_shards",
    "random_scene",
    "read_index",
    "read_samples",
    "split_indices",
    "verify_shard",
]
