"""Published weights of metric networks: looked up in folders, or downloaded once and checked."""

import fcntl
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from adanat.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A file that its publisher never changes.

    Attributes:
        name: File name, as the publisher has it.
        url: Where it is published.
        sha256: Hash of the content, hexadecimal.
    """

    name: str
    url: str
    sha256: str


CLEAN_INCEPTION = WeightFile(
    name="inception-2015-12-05.pt",
    url="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt",
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)
"""TorchScript Inception that clean-fid uses."""
ADM_INCEPTION = WeightFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
"""TensorFlow's Inception, the one of ADM's evaluator, ported by torch-fidelity."""


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/adanat`, by default `~/.cache/adanat`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adanat"


def fetch_weights(file: WeightFile, folder: Path) -> Path:
    """The path of a weight file in `folder`, downloaded if it is not there.

    Several processes may ask at once: one downloads under a lock, the others wait. A download is
    checked and moved into place whole.

    Raises:
        StorageError: The file cannot be had, or its content is another; the message says which
            file to put where.
    """
    path = folder / file.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                _download(file, path)
    except OSError as error:
        if not path.is_file():  # a folder that cannot be written may hold the file all the same
            raise StorageError(f"cannot write in {folder}: {error.strerror}") from error
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != file.sha256:
        raise StorageError(
            f"{path} has SHA-256 {found}, the published file {file.sha256}: replace it by "
            f"{file.url}"
        )
    return path


def _download(file: WeightFile, path: Path) -> None:
    try:
        # Writes beside the target, compares the hash, then moves.
        torch.hub.download_url_to_file(file.url, str(path), file.sha256, progress=False)
    except (OSError, RuntimeError) as error:
        raise StorageError(
            f"cannot download {file.url} ({error}). Put that file (SHA-256 {file.sha256}) at "
            f"{path}, or name the folder that holds it by --weights-dir."
        ) from error
