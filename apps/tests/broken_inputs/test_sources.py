"""Sources of shards that fail: each docstring is a row of docs/broken-inputs.md."""

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from adanat.errors import DataError
from adanat.prepare import prepare_cc3m
from adanat.prepare.storage import local_shards
from tiny_data_sets import preparation


def test_command_without_leave(tmp_path: Path) -> None:
    """A `pipe:` entry without --allow-commands | refused, nothing is run."""
    with pytest.raises(DataError, match=r"would run a shell command.*--allow-commands"):
        prepare_cc3m([f"pipe:touch {tmp_path / 'ran'}"], ["x.tar"], preparation(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_failing_command(tmp_path: Path) -> None:
    """An allowed command that fails | refused, with its exit code; nothing of it is kept."""
    with pytest.raises(DataError, match=r"pipe:exit 3: the command failed with exit code 3"):
        prepare_cc3m(["pipe:exit 3"], ["x.tar"], preparation(tmp_path), allow_commands=True)
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_failure_among_others(tmp_path: Path) -> None:
    """A source that fails while others wait to be fetched | refused, those are not begun."""
    names = ["pipe:exit 3", "pipe:sleep 3", f"pipe:touch {tmp_path / 'ran'}"]
    with pytest.raises(DataError, match="exit code 3"):
        local_shards(names, tmp_path / "cache", allow_commands=True, connections=1)
    assert not (tmp_path / "ran").exists()


def test_stuck_command(tmp_path: Path) -> None:
    """A source that stops sending | refused after the timeout, it is named."""
    began = time.monotonic()
    with pytest.raises(DataError, match=r"pipe:sleep 60: stuck, no byte within 0.3 s"):
        prepare_cc3m(
            ["pipe:sleep 60"], ["x.tar"], preparation(tmp_path), allow_commands=True, timeout=0.3
        )
    assert time.monotonic() - began < 20


@pytest.fixture
def server(cc3m: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(cc3m))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            if not self.path.startswith("/cut/"):
                super().do_GET()
                return
            shard = (cc3m / "val" / "00000.tar").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(shard)))
            self.end_headers()
            self.wfile.write(shard)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_fetched_shards(server: str, cc3m: Path, tmp_path: Path) -> None:
    """Whole shards behind http, or given by an allowed command | fetched once, used."""
    index = prepare_cc3m(
        [f"{server}/train/{{00000..00000}}.tar"],
        [f"pipe:cat {cc3m / 'val' / '00000.tar'}"],
        preparation(tmp_path),
        allow_commands=True,
    )
    assert dict(index.splits) == {"fit": 3, "validation": 2, "test": 2}


def test_cut_download(server: str, tmp_path: Path) -> None:
    """A download that breaks off, be it between two samples | refused, it is named."""
    with pytest.raises(DataError, match=r"cut/00000.tar: cut off after [\d,]+ of [\d,]+ bytes"):
        prepare_cc3m([f"{server}/cut/00000.tar"], ["x.tar"], preparation(tmp_path))
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_missing_address(server: str, tmp_path: Path) -> None:
    """An address that is not there | refused, it is named."""
    with pytest.raises(DataError, match=r"train/00009.tar: cannot be fetched: .*404"):
        prepare_cc3m([f"{server}/train/00009.tar"], ["x.tar"], preparation(tmp_path))
