"""Where the projects of the workspace stand, for the tests that look at them from outside."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARIES = ("vqtok", "natgen", "policyrl", "advreward")
PROJECTS = {
    **{name: ROOT / "packages" / name for name in LIBRARIES},
    "natbench": ROOT / "packages" / "bench",
    "adanat": ROOT / "apps",
}

_PYTHON_FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def python_example(page: Path) -> str:
    """All python fences of a page, in order: later ones may build on earlier ones."""
    return "\n".join(_PYTHON_FENCE.findall(page.read_text()))
