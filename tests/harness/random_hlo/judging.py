"""What all judges say of a random module, and the smallest module with the same fault."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from nxcc.compiler.debugging.candidate import Candidate
from nxcc.compiler.debugging.reduce import Budget, reduce_candidate
from nxcc.compiler.debugging.trial import AGREES, DIFFERS, REFUSED, Trial, Verdict, difference
from nxcc.compiler.driver import Source, compile_module
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.runtime.loaded import load
from nxcc.compiler.tolerances import output_error
from nxcc.compiler.verify import oracle_inside
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.hlo.builder import Builder, clone_module
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.writer import write_text
from nxcc.neff.writer import write_neff
from nxcc.passes.pipeline import PASS_NAMES

from harness.passwise import PassTrial
from harness.random_hlo.generator import Bounds, Generator
from harness.xla import NoVerdict, Xla


class Judge(Protocol):
    """Whoever says whether a module goes right on these values, one a parameter."""

    def judge(self, module: Module, inputs: Sequence[Any]) -> Verdict: ...


EXCUSED = "differs beside special values in products"
"""A verdict that is no fault, see `excused_elements`."""


@dataclass
class Tally:
    """What a number of modules came to. opcodes: how often each was generated; refused: codes of errors for the user."""

    modules: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    opcodes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Fault:
    """A module that some judge finds wrong. trial: the judge's name."""

    seed: int
    trial: str
    verdict: Verdict
    candidate: Candidate
    judge: Judge


@dataclass(frozen=True)
class Court:
    """Who judges. levels: of optimisation. strict: each in strict simulation; else every fourth module at the last level.

    quick: nothing but the levels. cast: the mode of --auto-cast, if not the target's own. xla: runs modules with XLA, which
    then judges the oracle.
    """

    levels: tuple[str, ...] = ("0", "1")
    strict: bool = False
    target: str = "v2"
    quick: bool = False
    cast: str = ""
    xla: Xla | None = None


class CastTrial(Trial):
    """A trial on a target that casts what it multiplies: the oracle on the module with these casts is the judge."""

    def judge(self, module: Module, inputs: Sequence[Any]) -> Verdict:
        verdict = super().judge(module, inputs)
        if verdict.kind != DIFFERS:
            return verdict
        leaves = flatten(tuple(inputs))
        with tempfile.TemporaryDirectory(prefix="nxcc-trial-") as folder:
            path = os.path.join(folder, "module.neff")
            build = compile_module(clone_module(module), self.options, Source())
            assert build.package is not None
            write_neff(path, build.package)
            loaded = load(path)
            named = {tensor.name: array for tensor, array in zip(loaded.inputs, leaves, strict=True)}
            wanted = oracle_inside(loaded, None, loaded.prepare(named))
            got = loaded.run(leaves)
        words = difference(module, inputs, got, wanted)
        within = all(output_error(one, other) <= CAST_TOLERANCE for one, other in zip(got, wanted, strict=True))
        return Verdict(DIFFERS, DIFFERS, words) if words and not within else Verdict(AGREES)


CAST_TOLERANCE = 0.01
"""Of a float, where operands are cast to 16 bits: one that lies beside the middle of two steps of 2^-8 may go either way."""


@dataclass(frozen=True)
class XlaTrial:
    """The oracle is judged, by XLA."""

    xla: Xla

    def judge(self, module: Module, inputs: Sequence[Any]) -> Verdict:
        try:
            wanted = self.xla.run(module, inputs)
        except NoVerdict as error:
            return Verdict(REFUSED, f"XLA: {str(error)[:60]}", str(error))
        try:
            got = flatten(evaluate(module, inputs))
        except CompileError as error:
            return Verdict(REFUSED, f"{error.code.name} {error.what}", str(error))
        words = difference(module, inputs, got, wanted)
        return Verdict(DIFFERS, f"oracle {DIFFERS}", words) if words else Verdict(AGREES)


def trials_for(seed: int, court: Court | None = None) -> dict[str, Trial]:
    """The judges of a module: each level, one pass switched off in turn, and strict simulation of every fourth.

    Every second module is turned as large ones are, the others as small ones, in which nothing that is not finite spreads.
    """
    court = court or Court()
    if not court.levels:
        return {}
    off, last = PASS_NAMES[seed % len(PASS_NAMES)], court.levels[-1]

    def trial(level: str, strict: bool = court.strict, **options: Any) -> Trial:
        kind = Trial if (court.target, court.cast) == ("v2", "") else CastTrial
        words = {"optlevel": level, "target": court.target, "auto_cast": court.cast, "relayout": ("", "fast")[seed % 2]}
        return kind(CompileOptions(**words, **options), strict, seed)

    found = {f"-O{level}": trial(level) for level in court.levels}
    if court.quick:
        return found
    found[f"-O{last} --disable-pass {off}"] = trial(last, disable_pass=(off,))
    if seed % 4 == 0 and not court.strict:
        found[f"-O{last} --strict"] = trial(last, strict=True)
    return found


def check(seed: int, tally: Tally, bounds: Bounds | None = None, court: Court | None = None) -> Fault | None:
    """Generate a module and hear its judges; the first fault."""
    candidate = Generator(seed, bounds).candidate()
    tally.modules += 1
    tally.opcodes += Counter(i.opcode for i in candidate.module.instructions())
    judges: dict[str, Judge] = {"passes": _pass_trial(seed, court or Court())} | trials_for(seed, court)
    if court is not None and court.xla is not None:
        judges = {"XLA": XlaTrial(court.xla)} | judges
    for name, trial in judges.items():
        verdict = trial.judge(candidate.module, candidate.values)
        tally.verdicts[verdict.kind] += 1
        if verdict.kind == REFUSED:
            tally.refused[verdict.key] += 1
        if verdict.kind == DIFFERS and name != "-O0" and isinstance(trial, Trial) and differs_where_excused(candidate, trial):
            tally.verdicts[EXCUSED] += 1
        elif verdict.is_fault:
            return Fault(seed, name, verdict, candidate, trial)
    return None


def _pass_trial(seed: int, court: Court) -> PassTrial:
    """Passes at the last level, each time with other casts."""
    cast = court.cast or ("none", "matmult", "all")[seed % 3]
    return PassTrial(CompileOptions(optlevel=court.levels[-1] if court.levels else "1", target=court.target, auto_cast=cast))


def differs_where_excused(candidate: Candidate, trial: Trial) -> bool:
    """Whether the results agree in all elements that no product of NaN or infinity reaches, or in all where no transpose is a
    product, in which they would spread."""
    module, values = candidate.module, candidate.values
    exact = replace(trial, options=replace(trial.options, relayout="exact"))
    if trial.options.relayout != "exact" and _special_values(candidate) and exact.judge(module, values).kind == AGREES:
        return True
    wanted = flatten(evaluate(module, values))
    got = trial.run(module, flatten(tuple(values)))
    allowed = excused_elements(candidate, wanted)
    if allowed is None or any(one.shape != other.shape for one, other in zip(got, wanted, strict=True)):
        return False
    spared = [np.where(mask, other, one) for mask, one, other in zip(allowed, got, wanted, strict=True)]
    return not difference(module, values, spared, wanted)


def excused_elements(candidate: Candidate, wanted: Sequence[Any]) -> list[Any] | None:
    """The elements of each result that depend on a dot or convolution of NaN or infinity; None if there is none.

    From level 1 on operands are turned on the tensor engine, by a product with the identity, in which one such value makes
    its whole row NaN (hardware model: NaN/Inf and PE transposes). At level 0 nothing is turned there. What depends on such a
    product is what moves when the product becomes NaN, or large.
    """
    products = _special_products(candidate)
    if not products:
        return None
    found = [np.zeros(np.shape(value), bool) for value in wanted]
    for poison in (np.nan, 1e3):
        moved = flatten(evaluate(_poisoned(candidate.module, products, poison), candidate.values))
        for mask, one, other in zip(found, moved, wanted, strict=True):
            mask |= _bits(one) != _bits(other)
    return found


def _bits(value: Any) -> Any:
    """An array whose elements are equal where the bits are."""
    flat = np.ascontiguousarray(value)
    return flat.view(np.dtype((np.void, flat.dtype.itemsize))).reshape(np.shape(value)) if flat.size else flat


def _special_values(candidate: Candidate) -> set[Instruction]:
    """Instructions whose value holds a NaN or an infinity."""
    special: set[Instruction] = set()

    def note(instruction: Instruction, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biu":
            wide = np.complex128 if value.dtype.kind == "c" else np.float64
            with np.errstate(invalid="ignore"):
                if not np.isfinite(value.astype(wide)).all():
                    special.add(instruction)

    evaluate(candidate.module, candidate.values, note)
    return special


def _special_products(candidate: Candidate) -> set[str]:
    """Names of the products that read a NaN or an infinity."""
    special = _special_values(candidate)
    return {i.name for i in candidate.module.instructions() if i.opcode in ("dot", "convolution") and special & {*i.operands}}


def _poisoned(module: Module, products: set[str], poison: float) -> Module:
    """A copy in which a number stands for these products."""
    copy = clone_module(module)
    for computation in copy.computations:
        for product in [i for i in computation.instructions if i.name in products and i.shape.dtype.is_float]:
            builder = Builder(computation)
            value = np.asarray(poison).astype(product.shape.dtype.numpy)
            number = builder.splat(product.shape.dtype, product.shape.dims, value)
            computation.replace(product, number)
            computation.sort()
    return copy


def reduced(fault: Fault, trials: int = 150, seconds: float = 60.0) -> Candidate:
    """The smallest module found with the same fault."""
    def fails(module: Module, values: Sequence[Any]) -> bool:
        verdict = fault.judge.judge(module, values)
        return (verdict.kind, verdict.key) == (fault.verdict.kind, fault.verdict.key)

    return reduce_candidate(fault.candidate, fails, Budget(trials, seconds))


def fault_text(fault: Fault, small: Candidate) -> str:
    """What to paste into a bug report or a test."""
    head = f"seed {fault.seed}, {fault.trial}: {fault.verdict.kind}: {fault.verdict.text}"
    lines = [head, write_text(small.module, short=True)]
    lines += [f"input{k}: {value!r}" for k, value in enumerate(flatten(tuple(small.values))) if value.size <= 16]
    return "\n".join(lines)
