"""One trial of a module: compile it, load the NEFF, run it, hold it against the oracle; the verdict is a value.

What bisection, reduction and random testing ask again and again. A difference counts only if rounding does not explain
it: the oracle is evaluated again with every float disturbed by a step of its type, and what moves with that is no fault. A
denormal of the engines' f32 may count as zero, and what is too small for a narrow type may be there still, as with XLA's
`xla_allow_excess_precision`.
"""

from __future__ import annotations

import os
import re
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from nxcc.compiler.driver import Source, compile_module
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.own_files import package_folder
from nxcc.compiler.runtime.loaded import load
from nxcc.compiler.tolerances import output_error, tolerance
from nxcc.ir.diagnostics import NEFF_INVALID, PROGRAM_INVALID, CompileError
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import clone_module
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, evaluate_instruction, flatten
from nxcc.ir.literals import Array
from nxcc.neff.writer import write_neff

_finfo: Any = ml_dtypes.finfo

AGREES, DIFFERS, REFUSED, BROKEN = "agrees", "differs", "refused", "broken"

NOISE_RUNS = 3
NOISE_MARGIN = 8.0
"""How much more than noise of one step moves an output its error may be: engines round more often than once."""
F32_NOISE = 2.0**-20
"""Relative error that the engines' functions may have in f32; narrower types take one step of their own."""
UNDERFLOWING = frozenset(("multiply", "divide", "logistic", "exponential", "power"))
"""Operators whose results may be too small for their type."""

SMALLEST = 2.0**-126
"""Of the normal numbers that f32 and bf16 have."""

_OURS = (NEFF_INVALID, PROGRAM_INVALID)
"""Codes about files; here the compiler wrote the file, so that they speak of its own fault."""

Value = Any


@dataclass(frozen=True)
class Verdict:
    """What came of a trial.

    kind: AGREES, DIFFERS, REFUSED (an error for the user) or BROKEN (a fault of the compiler). key: equal for equal faults.
    """

    kind: str
    key: str = ""
    text: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether nxcc did wrong, not the module."""
        return self.kind in (DIFFERS, BROKEN)


@dataclass(frozen=True)
class Trial:
    """How modules are tried: options of the compile, and whether the simulator is strict, with the seed of its order."""

    options: CompileOptions
    strict: bool = False
    seed: int = 0

    def judge(self, module: Module, inputs: Sequence[Value]) -> Verdict:
        """The verdict on a module and inputs, one value a parameter; the module is left as it is."""
        try:
            got = self.run(module, flatten(tuple(inputs)))
            wanted = flatten(evaluate(module, inputs))
        except CompileError as error:
            kind = BROKEN if error.code in _OURS else REFUSED
            return Verdict(kind, f"{error.code.name} {_without_names(error.what)}", str(error))
        except Exception as error:  # noqa: BLE001  a fault of the compiler is what a trial looks for
            place = fault_place(error)
            return Verdict(BROKEN, f"{type(error).__name__} at {place}", f"{type(error).__name__} at {place}: {error}")
        words = difference(module, inputs, got, wanted)
        return Verdict(DIFFERS, DIFFERS, words) if words else Verdict(AGREES)

    def run(self, module: Module, leaves: list[Array]) -> list[Array]:
        """What the simulated NEFF of a module gives for these parameter leaves, as result leaves."""
        build = compile_module(clone_module(module), self.options, Source())
        assert build.package is not None
        with tempfile.TemporaryDirectory(prefix="nxcc-trial-") as folder:
            path = os.path.join(folder, "module.neff")
            write_neff(path, build.package)
            return load(path, strict=self.strict, seed=self.seed).run(leaves)


def fault_place(error: Exception) -> str:
    """File and line of the innermost frame of nxcc."""
    root = package_folder()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(root)]
    return f"{os.path.relpath(frames[-1].filename, root)}:{frames[-1].lineno}" if frames else "?"


def _without_names(words: str) -> str:
    return re.sub(r"%[\w.\-]+|\d+", "_", words)


def difference(module: Module, inputs: Sequence[Value], got: Sequence[Array], wanted: Sequence[Array]) -> str:
    """The first output that differs by more than its tolerance and by more than noise explains, in words; else empty."""
    leaves = list(module.entry.root.shape.leaves())
    suspects = [k for k, leaf in enumerate(leaves) if output_error(got[k], wanted[k]) > _limit(leaf.dtype)]
    if not suspects:
        return ""
    noise = _noise(module, inputs, wanted)
    for k in suspects:
        error = output_error(got[k], wanted[k])
        if got[k].shape != wanted[k].shape or error > NOISE_MARGIN * noise[k]:
            return f"output{k} {leaves[k]}: error {error:.3g}, limit {_limit(leaves[k].dtype):.3g}{_first(got[k], wanted[k])}"
    return ""


def _limit(dtype: DType) -> float:
    return tolerance(dtype)


def _first(got: Array, wanted: Array) -> str:
    if got.shape != wanted.shape:
        return f"; shape {list(got.shape)} for {list(wanted.shape)}"
    places = np.argwhere((got != wanted) & ~((got != got) & (wanted != wanted)))
    place = tuple(int(i) for i in places[0]) if len(places) else ()
    return f"; {len(places)} of {wanted.size} differ, at {list(place)} {got[place]} for {wanted[place]}" if len(places) else ""


def _noise(module: Module, inputs: Sequence[Value], wanted: Sequence[Array]) -> list[float]:
    """The largest error of each output over evaluations with disturbed intermediate values."""
    worst = [0.0] * len(wanted)
    for seed in range(NOISE_RUNS):
        disturbed = flatten(_disturbed(module, inputs, np.random.default_rng(seed)))
        errors = [output_error(one, other) for one, other in zip(disturbed, wanted, strict=True)]
        worst = [max(a, b) for a, b in zip(worst, errors, strict=True)]
    return worst


def _disturbed(module: Module, inputs: Sequence[Value], random: np.random.Generator) -> Value:
    """The module's result with every float that the entry computes moved by about a step of its type."""
    values: dict[Instruction, Value] = {}
    for instruction in module.entry.post_order():
        if instruction.opcode == "parameter":
            values[instruction] = _without_denormals(inputs[int(instruction.attributes["parameter_number"])], random)
            continue
        found = evaluate_instruction(instruction, [values[o] for o in instruction.operands])
        if instruction.opcode in UNDERFLOWING and instruction.shape.dtype.is_float:
            found = _kept_small(found, [values[o] for o in instruction.operands], random)
        values[instruction] = found if instruction.opcode == "constant" else _moved(found, random)
    return values[module.entry.root]


def _kept_small(value: Array, operands: Sequence[Array], random: np.random.Generator) -> Array:
    """Zeros that come of no zero are not quite zero here and there, where a type is narrow."""
    if _finfo(value.dtype).bits > 16:
        return value
    there = (value == 0) & (random.random(value.shape) < 0.5)
    for operand in operands:
        there = there & (operand != 0)
    least = np.asarray(_finfo(value.dtype).smallest_subnormal, value.dtype)
    return np.where(there, np.copysign(least, value), value).astype(value.dtype)


def _without_denormals(value: Value, random: np.random.Generator) -> Value:
    """What the engines may take for zero is zero here and there."""
    if isinstance(value, tuple):
        return tuple(_without_denormals(part, random) for part in value)
    if value is None or value.dtype.name not in ("float32", "bfloat16"):
        return value
    small = (np.abs(value.astype(np.float32)) < SMALLEST) & (random.random(value.shape) < 0.5)
    return np.where(small, np.copysign(np.zeros((), value.dtype), value), value).astype(value.dtype)


def _moved(value: Value, random: np.random.Generator) -> Value:
    if isinstance(value, tuple):
        return tuple(_moved(part, random) for part in value)
    if value is None or value.dtype.kind in "biu":
        return value
    if value.dtype.kind == "c":
        return (value * (1 + F32_NOISE * random.uniform(-1, 1, value.shape))).astype(value.dtype)
    try:
        step = max(float(_finfo(value.dtype).eps), F32_NOISE)
    except ValueError:
        return value
    factor = 1 + step * random.uniform(-1, 1, value.shape)
    with np.errstate(all="ignore"):
        moved = value.astype(np.float64) * factor
        # nobody promises the bits of a NaN: what depends on its sign moves too
        signed = np.where(np.isnan(moved), np.copysign(np.nan, factor - 1), moved)
        return _without_denormals(np.asarray(signed.astype(value.dtype)), random)
