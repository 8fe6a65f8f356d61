"""What preparation works on: samples whose pictures are not read yet."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Readable(Protocol):
    """The bytes of a picture, wherever they lie. Picklable: other processes read them."""

    def read(self) -> bytes:
        """All bytes. Raises DataError when they cannot be had, ValueError when there are none."""
        ...


class Item(NamedTuple):
    """One sample of a source."""

    key: str
    """Its name in the shard, unique within the data set; without dots and slashes."""
    image: Readable
    texts: Mapping[str, str]
    """Other members by extension, such as ``{"cls": "7"}``."""


class Source(NamedTuple):
    """A data set as its publisher ships it, listed but not read."""

    splits: Mapping[str, Sequence[Item]]
    """By the publisher's names: ``train`` and ``val``."""
    class_names: tuple[str, ...]
    """In the order of the labels; empty for captions."""
    notes: Mapping[str, int]
    """What the listing itself passed over, by reason."""
