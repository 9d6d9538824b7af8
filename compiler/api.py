"""The Python API: the same few verbs as the command line.

`compile` gives a `Compiled` (the file and what was found out); `load` gives a `Model` to run. Both raise `CompileError`, the
one exception for what a user can cause; values of wrong types are refused here, so that nothing below has to look.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nxcc.compiler.cache.compiling import compile_through_cache
from nxcc.compiler.console.progress import Journal
from nxcc.compiler.options import options_from, path_value, refused_value
from nxcc.compiler.runtime.loaded import Loaded
from nxcc.compiler.runtime.loaded import load as load_neff
from nxcc.ir.diagnostics import USAGE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape
from nxcc.ir.streams import streams_kept

__all__ = ["CompileError", "Compiled", "Model", "compile", "load"]

Weights = str | os.PathLike[str] | Mapping[Any, Any] | None


@dataclass(frozen=True)
class Compiled:
    """A compiled model: the NEFF's path and the report of the compile as plain JSON."""

    path: str
    report: dict[str, Any]

    def load(self, weights: Weights = None, *, strict: bool = False) -> Model:
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

    @property
    def outputs(self) -> tuple[str, ...]:
        """`name: dtype[dims]` of each output, in order; a size that depends on values is its bound here."""
        return tuple(f"{row.name}: {Shape(row.dtype, row.shape)}" for row in self._loaded.outputs)

    def run(self, inputs: Sequence[Any] | Mapping[str, Any] | None = None) -> list[Array]:
        """The outputs in tuple order, as numpy arrays; inputs in order or by name, seeded random ones if absent.

        An input is what numpy makes an array of: its own, those that frameworks hold on a CPU, numbers.
        """
        if inputs is None:
            return self._loaded.run()
        if isinstance(inputs, Mapping):
            return self._loaded.run(_arrays("inputs", inputs))
        if isinstance(inputs, str | bytes) or not isinstance(inputs, Sequence):
            raise refused_value("inputs", inputs, "arrays in order, or by name")
        return self._loaded.run([_array(f"inputs[{n}]", value) for n, value in enumerate(inputs)])

    def estimate(self) -> dict[str, Any]:
        """Predicted time of one call and what bounds it, as `nxcc estimate --json` prints."""
        from nxcc.compiler.reports.estimate import estimate_file
        return estimate_file(self._path)


def compile(model: str | os.PathLike[str], output: str | os.PathLike[str] | None = None, **options: Any) -> Compiled:
    """Compile a model file. options: those of `nxcc compile`, hyphens as underscores (auto_cast="all", optlevel=0).

    Raises CompileError for what the model or the machine do not allow, and for options and values that do not exist.
    """
    chosen = options_from(output=output, **options)
    with streams_kept():
        report = compile_through_cache(path_value("model", model), chosen, Journal(quiet=True))
    return Compiled(report["output"], report)


def load(path: str | os.PathLike[str], weights: Weights = None, *, strict: bool = False) -> Model:
    """Load a NEFF into the simulator; weights: a file or arrays for the parameters declared as weights."""
    name = path_value("path", path)
    if not isinstance(strict, bool):
        raise refused_value("strict", strict, "True or False")
    return Model(load_neff(name, _weights(weights), strict=strict), name)


def _weights(given: Weights) -> str | dict[str, Array] | None:
    if given is None:
        return None
    return _arrays("weights", given) if isinstance(given, Mapping) else path_value("weights", given)


def _arrays(what: str, given: Mapping[Any, Any]) -> dict[str, Array]:
    """Arrays by name; a weight may be called by its number."""
    return {str(name): _array(f"{what}[{name!r}]", value) for name, value in given.items()}


def _array(what: str, value: Any) -> Array:
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # what frameworks raise for a tensor that numpy cannot have
        raise CompileError(USAGE, f"{what} is {type(value).__name__}, no array", why=str(error)) from None
    if found.dtype.hasobject or found.dtype.kind in "SUMm":
        raise refused_value(what, value, "an array of numbers")
    return found
