"""Where shards come from: local files, http(s), or a command that the user allows."""

import os
import select
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPException
from pathlib import Path

import braceexpand

from adanat.checkpoints import atomic_write
from adanat.errors import DataError
from adanat.prepare.members import tar_members

_PIPE = "pipe:"
_CHUNK = 1 << 20


def expand_shards(patterns: Iterable[str]) -> list[str]:
    """Expand ``{00000..00331}`` ranges and local wildcards, in order.

    Raises:
        DataError: Nothing is left, or a wildcard matches nothing.
    """
    found: list[str] = []
    for pattern in patterns:
        if pattern.startswith(_PIPE):  # braces may belong to the command
            found.append(pattern)
            continue
        for name in braceexpand.braceexpand(pattern):
            path = Path(name)
            if not _is_remote(name) and any(mark in name for mark in "*?["):
                matches = sorted(map(str, path.parent.glob(path.name)))
                if not matches:
                    raise DataError(f"no shard matches {name}")
                found += matches
            else:
                found.append(name)
    if not found:
        raise DataError("the list of shards is empty: name at least one")
    return found


def local_shards(
    names: Sequence[str],
    cache: Path,
    *,
    allow_commands: bool,
    timeout: float = 60.0,
    connections: int = 4,
) -> list[Path]:
    """Make every shard a local file: local ones stay where they are, others are fetched once.

    A fetched shard is a whole tar file or absent, so an interrupted fetch goes on where it stopped.

    Args:
        names: Paths, ``http(s)://`` addresses, or ``pipe:COMMAND`` whose output is the shard.
        cache: Folder of the fetched shards.
        allow_commands: Whether ``pipe:`` may run its command in a shell.
        timeout: Seconds without a byte after which a source counts as stuck.
        connections: How many are fetched at a time.

    Raises:
        DataError: A command without leave, two sources of one file name, a source that fails, is
            stuck, or gives no tar file.
    """
    if refused := [n for n in names if n.startswith(_PIPE) and not allow_commands]:
        raise DataError(
            f"{refused[0]!r} would run a shell command. If you trust this list of shards, allow "
            "it with --allow-commands."
        )
    targets = [
        cache / _file_name(name, number) if _is_remote(name) else Path(name)
        for number, name in enumerate(names)
    ]
    if len(set(targets)) != len(targets):
        twice = next(path for path in targets if targets.count(path) > 1)
        raise DataError(f"two shards are called {twice.name}: name each file differently")
    jobs = [
        (name, path)
        for name, path in zip(names, targets, strict=True)
        if _is_remote(name) and not path.is_file()
    ]
    with ThreadPoolExecutor(connections) as pool:
        fetches = [pool.submit(_fetch, name, path, timeout) for name, path in jobs]
        try:
            for fetch in as_completed(fetches):
                fetch.result()
        finally:
            pool.shutdown(cancel_futures=True)  # or hundreds would follow before the error is told
    return targets


def _is_remote(name: str) -> bool:
    return name.startswith((_PIPE, "http://", "https://"))


def _file_name(name: str, number: int) -> str:
    if name.startswith(_PIPE):
        return f"command-{number:05d}.tar"
    return Path(urllib.parse.urlparse(name).path).name or f"shard-{number:05d}.tar"


def _fetch(name: str, path: Path, timeout: float) -> None:
    chunks = _command_output if name.startswith(_PIPE) else _download

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for chunk in chunks(name, timeout):
                file.write(chunk)
        for _ in tar_members(temporary):
            pass  # reads every header: what was cut off on the way is not kept

    try:
        atomic_write(path, write)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _download(name: str, timeout: float) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(name, timeout=timeout) as response:
            expected, received = response.headers["Content-Length"], 0
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                yield chunk
    except TimeoutError as error:
        raise DataError(f"stuck, no byte within {timeout:g} s") from error
    except (urllib.error.URLError, HTTPException, ConnectionError) as error:
        raise DataError(f"cannot be fetched: {error}") from error
    if expected is not None and received != int(expected):
        raise DataError(f"cut off after {received:,} of {int(expected):,} bytes")


def _command_output(name: str, timeout: float) -> Iterator[bytes]:
    """What the command of a ``pipe:`` name prints; it is killed where it stops printing."""
    with subprocess.Popen(
        name.removeprefix(_PIPE), shell=True, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        output = process.stdout.fileno() if process.stdout is not None else -1
        try:
            while select.select([output], [], [], timeout)[0]:
                chunk = os.read(output, _CHUNK)
                if not chunk:
                    break
                yield chunk
            else:
                raise DataError(f"stuck, no byte within {timeout:g} s")
            if code := process.wait():
                raise DataError(f"the command failed with exit code {code}")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the shell's children, too
