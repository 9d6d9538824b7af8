"""What all judges say of a random module, and the smallest module with the same fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reduce import Budget, Candidate, reduce_candidate
from nxcc.compiler.trial import DIFFERS, REFUSED, Trial, Verdict, difference
from nxcc.ir.hlo.builder import Builder, clone_module
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.writer import write_text
from nxcc.passes.pipeline import PASS_NAMES

from harness.random_hlo.generator import Bounds, Generator

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


def trials_for(seed: int) -> dict[str, Trial]:
    """The judges of a module: both levels, one pass switched off in turn, and strict simulation of every fourth."""
    off = PASS_NAMES[seed % len(PASS_NAMES)]
    found = {"-O0": Trial(CompileOptions(optlevel="0")), "-O1": Trial(CompileOptions(optlevel="1")),
             f"-O1 --disable-pass {off}": Trial(CompileOptions(optlevel="1", disable_pass=(off,)))}
    if seed % 4 == 0:
        found["-O1 --strict"] = Trial(CompileOptions(optlevel="1"), strict=True, seed=seed)
    return found


def check(seed: int, tally: Tally, bounds: Bounds | None = None) -> Fault | None:
    """Generate a module and hear its judges; the first fault."""
    candidate = Generator(seed, bounds).candidate()
    tally.modules += 1
    tally.opcodes += Counter(i.opcode for i in candidate.module.instructions())
    for name, trial in trials_for(seed).items():
        verdict = trial.judge(candidate.module, candidate.values)
        tally.verdicts[verdict.kind] += 1
        if verdict.kind == REFUSED:
            tally.refused[verdict.key] += 1
        if verdict.kind == DIFFERS and name != "-O0" and differs_where_excused(candidate, trial):
            tally.verdicts[EXCUSED] += 1
        elif verdict.is_fault:
            return Fault(seed, name, verdict, candidate)
    return None


def differs_where_excused(candidate: Candidate, trial: Trial) -> bool:
    """Whether the results agree in all elements that no product of NaN or infinity reaches."""
    module, values = candidate.module, candidate.values
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


def _special_products(candidate: Candidate) -> set[str]:
    """Names of the products that read a NaN or an infinity."""
    special: set[Instruction] = set()

    def note(instruction: Instruction, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biu":
            wide = np.complex128 if value.dtype.kind == "c" else np.float64
            with np.errstate(invalid="ignore"):
                if not np.isfinite(value.astype(wide)).all():
                    special.add(instruction)

    evaluate(candidate.module, candidate.values, note)
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
    trial = trials_for(fault.seed)[fault.trial]

    def fails(module: Module, values: Sequence[Any]) -> bool:
        verdict = trial.judge(module, values)
        return (verdict.kind, verdict.key) == (fault.verdict.kind, fault.verdict.key)

    return reduce_candidate(fault.candidate, fails, Budget(trials, seconds))


def fault_text(fault: Fault, small: Candidate) -> str:
    """What to paste into a bug report or a test."""
    head = f"seed {fault.seed}, {fault.trial}: {fault.verdict.kind}: {fault.verdict.text}"
    lines = [head, write_text(small.module, short=True)]
    lines += [f"input{k}: {value!r}" for k, value in enumerate(small.values) if np.asarray(value).size <= 16]
    return "\n".join(lines)
