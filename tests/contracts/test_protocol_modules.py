"""`protocols.py` is a leaf: it can be read, and copied, without the package around it."""

from __future__ import annotations

import ast

import pytest
from workspace import LIBRARIES, PROJECTS

ALLOWED = {"__future__", "collections", "contextlib", "torch", "typing"}


@pytest.mark.parametrize("name", LIBRARIES)
def test_protocols_import_only_types(name: str) -> None:
    tree = ast.parse((PROJECTS[name] / "src" / name / "protocols.py").read_text())
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import is an import of the package"
            imported.add((node.module or "").split(".")[0])
    assert imported <= ALLOWED
