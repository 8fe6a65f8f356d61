"""Where the bytes of a sample lie: a part of a file, found once and read at any time."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from adanat.errors import DataError


class Member(NamedTuple):
    """``size`` bytes at ``offset`` of the file at ``path``; a tar member, or a file of its own."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes. Raises DataError where the file is missing or has become shorter."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error
        if len(data) != self.size:
            raise DataError(
                f"{self.path} is cut off: {self.size} bytes at {self.offset} were to be read, "
                f"{len(data)} are there"
            )
        return data


class NamedMember(NamedTuple):
    """A regular file within a tar file."""

    name: str
    member: Member


def file_member(path: Path) -> Member:
    """A whole file. Raises DataError where it cannot be asked for its size."""
    try:
        return Member(os.fspath(path), 0, path.stat().st_size)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def tar_members(path: Path, within: Member | None = None) -> Iterator[NamedMember]:
    """List the regular files of an uncompressed tar file, in order; nothing is unpacked.

    Links, devices and folders are passed over: what they point at is not part of the archive.

    Args:
        path: The tar file.
        within: Set for a tar file that is itself a member of ``path``.

    Raises:
        DataError: The file is missing, no tar file, compressed, or cut off.
    """
    start = within.offset if within is not None else 0
    last = "its start"
    try:
        with path.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for info in tar:
                    if within is not None and info.offset_data + info.size > start + within.size:
                        raise tarfile.ReadError("a member reaches beyond the archive")
                    if info.isreg():
                        # tarfile counts from the start of the file, also in a nested archive.
                        yield NamedMember(
                            info.name, Member(os.fspath(path), info.offset_data, info.size)
                        )
                    last = f"member {info.name!r}"
                    tar.members.clear()  # type: ignore[attr-defined]  # or it keeps every header
    except tarfile.TarError as error:
        raise DataError(
            f"{path} is cut off or no uncompressed tar file ({error}, after {last}): "
            "fetch or unpack it again"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
