"""The Python API: the same few verbs as the command line.

`compile` gives a `Compiled` (the file and what was found out); `load` gives a `Loaded` to run. Both raise `CompileError`, the
one exception for what a user can cause.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from nxcc.compiler.cache.compiling import compile_through_cache
from nxcc.compiler.console.progress import Journal
from nxcc.compiler.options import options_from
from nxcc.compiler.runtime.loaded import Loaded
from nxcc.compiler.runtime.loaded import load as load_neff
from nxcc.ir.diagnostics import USAGE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.literals import Array

__all__ = ["CompileError", "Compiled", "Model", "compile", "load"]


@dataclass(frozen=True)
class Compiled:
    """A compiled model: the NEFF's path and the report of the compile as plain JSON."""

    path: str
    report: dict[str, Any]

    def load(self, weights: str | Mapping[str, Array] | None = None, *, strict: bool = False) -> Model:
        """Load the NEFF into the simulator."""
        return load(self.path, weights, strict=strict)


class Model:
    """A loaded NEFF. inputs and outputs describe what `run` takes and gives."""

    def __init__(self, loaded: Loaded, path: str) -> None:
        self._loaded = loaded
        self._path = path

    @property
    def inputs(self) -> tuple[str, ...]:
        """`name: dtype[dims]` of each input, in order."""
        return tuple(f"{t.name}: {t.shape.with_dtype(t.dtype)}" for t in self._loaded.inputs)

    def run(self, inputs: Sequence[Array] | Mapping[str, Array] | None = None) -> list[Array]:
        """The outputs in tuple order, as numpy arrays; inputs in order or by name, seeded random ones if absent."""
        return self._loaded.run(inputs)

    def estimate(self) -> dict[str, Any]:
        """Predicted time of one call and what bounds it, as `nxcc estimate --json` prints."""
        from nxcc.compiler.reports.estimate import estimate_file
        return estimate_file(self._path)


def compile(model: str | os.PathLike[str], output: str | os.PathLike[str] = "", **options: Any) -> Compiled:
    """Compile a model file. options: those of `nxcc compile`, hyphens as underscores (auto_cast="all", optlevel=0).

    Raises CompileError for what the model or the machine do not allow, and for options that do not exist.
    """
    try:
        chosen = options_from(output=os.fspath(output), **options)
    except ValueError as error:
        raise CompileError(USAGE, str(error)) from None
    journal = Journal(quiet=True)
    report = compile_through_cache(os.fspath(model), chosen, journal)
    return Compiled(report["output"], report)


def load(path: str | os.PathLike[str], weights: str | Mapping[str, Array] | None = None, *, strict: bool = False) -> Model:
    """Load a NEFF into the simulator; weights: a file or arrays for the parameters declared as weights."""
    name = os.fspath(path)
    return Model(load_neff(name, weights, strict=strict), name)
