"""docs/broken-inputs.md tells what the tests of this folder show."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent


def cases(file: Path) -> list[str]:
    """What a file's tests say of themselves, in order."""
    tests = [
        node
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    return [(ast.get_docstring(test) or "").rstrip(".") for test in tests]


def test_the_page_lists_every_case(workspace_root: Path) -> None:
    page = (workspace_root / "docs" / "broken-inputs.md").read_text()
    listed = {}
    for section in page.split("\n## ")[1:]:
        (file,) = re.findall(r"\]\(\.\./apps/tests/broken_inputs/(test_\w+\.py)\)", section)
        rows = [line.strip("| ") for line in section.splitlines() if line.startswith("| ")]
        listed[file] = rows[2:]
    files = {file.name for file in HERE.glob("test_*.py")} - {Path(__file__).name}
    assert listed == {file: cases(HERE / file) for file in files}
    assert sum(map(len, listed.values())) >= 30
