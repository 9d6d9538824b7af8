"""The direction of imports, the packages that ship, and what start-up may load."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("backends", "compiler", "ir", "neff", "passes")
SOURCES = [ROOT / "__main__.py", ROOT / "cli.py", *(p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py")))]
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "ir": (),
    "passes": ("ir",),
    "backends": ("ir",),
    "neff": ("ir.dtypes", "ir.diagnostics", "ir.facts", "ir.files"),
    "compiler": ("ir", "passes", "backends", "neff"),
    "cli": ("compiler", "ir.diagnostics", "__main__"),
    "__main__": ("cli", "compiler.console.interrupts"),
}
"""Folder -> prefixes it may import beside itself: the one place where direction is declared."""

APART = {
    "backends/simulator": ("backends.lowering", "backends.codegen", "backends.assembly", "backends.synchronization", "ir.hlo"),
    "backends/lowering": ("backends.simulator",),
    "backends/isa": ("backends.lowering", "backends.tile.builder", "backends.simulator", "ir.hlo"),
    "ir/hlo/ops": ("backends",),
}
"""Folder -> what it must not import although the arrows allow it: judges share nothing with what they judge."""


def nxcc_imports(path: Path) -> set[str]:
    """Names below `nxcc` that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert not {n for n in found if n.split(".")[0] in FOLDERS}, f"{path}: write nxcc.<folder>"
    return {n.removeprefix("nxcc.") for n in found if n.startswith("nxcc.")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_declared_direction(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0].removesuffix(".py")
    allowed = (folder, *MAY_IMPORT[folder])
    for name in nxcc_imports(path):
        assert any(name == a or name.startswith(a + ".") for a in allowed), f"{folder} imports {name}"


@pytest.mark.parametrize("folder", APART)
def test_judges_share_nothing_with_the_judged(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name in nxcc_imports(path):
            assert not any(name == a or name.startswith(a + ".") for a in APART[folder]), f"{path.name} imports {name}"


def test_shipped_packages_are_those_on_disk() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shipped = set(settings["tool"]["setuptools"]["packages"])
    on_disk = {"nxcc"} | {"nxcc." + ".".join(p.parent.relative_to(ROOT).parts)
                          for folder in FOLDERS for p in (ROOT / folder).rglob("__init__.py")}
    assert shipped == on_disk


def test_help_loads_nothing_heavy() -> None:
    code = ("import sys\nsys.argv = ['nxcc', '--help']\nfrom nxcc.cli import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "heavy = {'numpy', 'google.protobuf', 'scipy', 'lark', 'rich', 'ml_dtypes'} & set(sys.modules)\n"
            "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("path", [p for p in SOURCES if p != ROOT / "ir" / "facts.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_declarations_are_cheap_to_import(path: Path) -> None:
    standard = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
                and node.module == "dataclasses" and any(alias.name == "dataclass" for alias in node.names)]
    assert not standard, f"{path}:{standard[0]}: nxcc.ir.facts.dataclass writes no methods before they are used"
