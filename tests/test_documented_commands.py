"""Every `adanat` command in the pages' shell examples is one that the parser takes."""

import functools
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adanat import cli
from workspace import ROOT

PAGES = (
    "README.md",
    "apps/README.md",
    "docs/benchmarks.md",
    "docs/evaluation.md",
    "docs/performance.md",
    *sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs" / "results").glob("*.md")),
)
PLACEHOLDERS = {"RECIPE": "tiny"}  # any other capitals stand for paths

_FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
_SCRIPTS = _PROJECT["tool"]["hatch"]["envs"]["apps"]["scripts"]


def commands(page: Path) -> Iterator[list[str]]:
    """What follows `adanat` in each line of the page's shell examples."""
    text = "\n".join(_FENCE.findall(page.read_text())).replace("\\\n", " ")
    for part in (part for line in text.splitlines() for part in line.split("&&")):
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(part, comments=True)]
        if words[:2] == ["hatch", "run"]:
            words = words[2:]
            if words[0].startswith("apps:"):
                script = _SCRIPTS[words[0].removeprefix("apps:")]
                if not isinstance(script, str):
                    continue
                words = shlex.split(script.replace("{args}", shlex.join(words[1:])))
        if "adanat" in words:
            yield words[words.index("adanat") + 1 :]


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `cli.main` parse arguments and do nothing with them."""
    load = cli.Command.load

    def idle(command: cli.Command) -> Callable[..., None]:
        return functools.wraps(load(command))(lambda *args, **kwargs: None)

    monkeypatch.setattr(cli.Command, "load", idle)
    monkeypatch.setattr("adanat.evaluation.commands.evaluate_source", lambda options: None)


@pytest.mark.usefixtures("parse_only")
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_understood(page: str) -> None:
    found = list(commands(ROOT / page))
    assert found
    for arguments in found:
        if arguments != ["--help"]:
            cli.main(arguments)


@pytest.mark.usefixtures("parse_only")
def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "in256", "--no-such-option", "1"])
