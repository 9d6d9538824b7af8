"""What one module goes through, and which class it ends in.

A module either passes, or is in exactly one class: the worst of what its steps found.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from conformance.corpus import Case, Corpus, open_corpora
from conformance.known import KNOWN
from conformance.tolerances import longest_sum, output_error, tolerance, within_rule
from conformance.walk import REJECTED, SLOW, WRONG, Differs, Stopped, Walk, WalkOutcome

from nxcc.compiler.driver import Build, Request, compile_file
from nxcc.compiler.options import options_from
from nxcc.compiler.runtime.loaded import Loaded, load
from nxcc.compiler.verify import oracle_inside
from nxcc.ir.hlo.equality import modules_equal
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.proto.reader import read_module
from nxcc.ir.hlo.proto.writer import module_bytes
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.shapes import Shape

from harness.inputs import random_leaves

Array = np.ndarray[Any, Any]

READ_STEPS = ("text", "binary", "same", "verify", "print", "encode", "oracle")
"""Steps that come before the machine: read the text, read the binary, both say the same, verify, print and read again (from
text and from binary), serialize and read again, oracle against the stored result."""

HOST_OPCODES = frozenset(("fft", "cholesky", "triangular-solve"))
"""Operators that may be on the host without counting against the device."""


CAST_TOLERANCE = 0.01
"""Of a float, where operands are cast to 16 bits: one that lies beside the middle of two steps of 2^-8 may go either way."""


@dataclass(frozen=True)
class Variant:
    """What a module is compiled for."""

    target: str
    level: str

    def __str__(self) -> str:
        return f"{self.target}-O{self.level}"


def device_steps(variant: Variant | str) -> tuple[str, str, str]:
    """Names of the steps of one variant: compile, machine verifier, simulator against the stored result."""
    return f"compile {variant}", f"machine {variant}", f"device {variant}"


@dataclass(frozen=True)
class Settings:
    """levels, targets: what to compile for, each with each; none: stop before the machine. strict: simulate in strict mode.

    unscored: hold modules without a stored result against the oracle on random inputs.
    """

    levels: tuple[str, ...] = ("1",)
    strict: bool = False
    unscored: bool = False
    targets: tuple[str, ...] = ("v2",)

    @property
    def variants(self) -> list[Variant]:
        return [Variant(target, level) for target in self.targets for level in self.levels]


@dataclass
class Outcome(WalkOutcome):
    """What a module went through. host: opcodes of host regions by variant.

    known: the stored result is not the module's, see `known`; it counts as not reached, but is no failure.
    needs_host: variants where an instruction is on the host for other reasons than fft, cholesky, triangular-solve, complex or
    64-bit.
    """

    host: dict[str, dict[str, int]] = field(default_factory=dict)
    needs_host: list[str] = field(default_factory=list)
    opcodes: tuple[str, ...] = ()
    unfit_differences: list[str] = field(default_factory=list)
    known: bool = False


def expected_class(case: Case) -> str:
    """The class that is right for a module that XLA's verifier rejects, or that never ends in XLA; empty for all others."""
    return {"rejected": REJECTED, "timeout": SLOW}.get(case.facts.get("xla_cpu", ""), "")


def run_case(corpus: Corpus, case: Case, settings: Settings) -> Outcome:
    """Take one module through all steps. Raises TooSlow if the caller's alarm does."""
    return _Walk(corpus, case, settings).run()


class ModuleRunner:
    """Takes modules through all steps, for the pool."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened: dict[str, Corpus] = {}

    def __call__(self, case: Case) -> Outcome:
        if case.source not in self._opened:
            self._opened[case.source] = open_corpora([case.source])[0]
        return run_case(self._opened[case.source], case, self.settings)

    def lost(self, case: Case) -> Outcome:
        """The outcome of a module whose process was lost: nothing but what it is."""
        return Outcome(case.source, case.name, case.family, case.scored, expected_class(case))


class _Walk(Walk[Outcome]):
    def __init__(self, corpus: Corpus, case: Case, settings: Settings) -> None:
        super().__init__(Outcome(case.source, case.name, case.family, case.scored, expected_class(case),
                                 opcodes=tuple(case.facts.get("opcodes", ()))))
        self.corpus = corpus
        self.case = case
        self.settings = settings
        self.inputs: list[Array] = []
        self.expected: list[Array] | None = None
        self.modules: list[Module] = []

    def steps(self) -> None:
        module = self._read()
        self._round_trips(module)
        if self.case.has_result:
            self.inputs, self.expected = self.corpus.arrays(self.case)
            with self.optional():
                self._oracle(module)
        elif self.settings.unscored and _bytes(module) <= RANDOM_BYTES:
            with self.optional():
                self._random_result(module)
        for variant in self.settings.variants:
            with self.optional():
                self._device(variant)

    # Reading

    def _read(self) -> Module:
        text, binary = self.corpus.text(self.case), self.corpus.binary(self.case)
        modules = self.modules
        if text is not None:
            with self.optional():
                modules.append(self.do("text", lambda: read_text(text, name=self.case.name)))
        if binary is not None:
            with self.optional():
                modules.append(self.do("binary", lambda: read_module(binary, name=self.case.name)))
        if not modules:
            raise Stopped
        if len(modules) == 2:
            with self.optional():
                self.do("same", self._same)
        for module in modules:
            self.do("verify", lambda module=module: verify(module))
        return modules[-1]

    def _same(self) -> None:
        words = modules_equal(*self.modules, names=False, notes=False, counts=False)
        if self.case.name in KNOWN["same"]:
            words = None if words else "text and binary: agree, although known to differ"
        if words is not None:
            raise Differs(f"text and binary: {words}")

    def _round_trips(self, module: Module) -> None:
        with self.optional():
            # Text has no place for the names in the computations that asynchronous instructions wrap.
            names = all(instruction.opcode != "async-start" for instruction in module.instructions())
            self.do("print", lambda: [_must_equal(read_text(write_text(m)), m, "printed and read again", names=names)
                                       for m in self.modules])
        with self.optional():
            self.do("encode", lambda: _must_equal(read_module(module_bytes(module)), module, "serialized and read again"))

    # Results

    def _oracle(self, module: Module) -> None:
        results = self.do("oracle", lambda: flatten(evaluate(module, packed(module, self.inputs))))
        self._judge("oracle", results, self.expected, module)

    def _random_result(self, module: Module) -> None:
        """Random inputs and the oracle's word for them, where the corpus has none."""
        self.inputs = random_leaves(parameter.shape for parameter in module.entry.parameters)
        self.expected = self.do("oracle", lambda: flatten(evaluate(module, packed(module, self.inputs))))

    def _judge(self, step: str, results: Sequence[Array], expected: Sequence[Array] | None, module: Module,
               least_limit: float = 0.0) -> None:
        """Hold results against what is expected; a result that is not fit to score is counted, never a failure."""
        if expected is None:
            return
        words = difference(results, expected, module, self.case.facts.get("checks", ()), least_limit)
        if self.case.name in KNOWN["result"]:
            self.outcome.known = True
            self.outcome.steps[step] = False
            words = None if words else "agrees, although known to differ"
        if words is None:
            return
        if self.case.has_result and not self.case.scored:
            self.outcome.unfit_differences.append(f"{step}: {words}")
            return
        self.fail(step, WRONG, f"{step.partition(' ')[0]}: {_work(self.outcome.opcodes)}", words)
        raise Stopped

    def _device(self, variant: Variant) -> None:
        compiling, checking, running = device_steps(variant)
        with tempfile.TemporaryDirectory(prefix="nxcc-conformance-") as folder:
            build = self.do(compiling, lambda: self._compile(folder, variant))
            self._count_host(build, str(variant))
            loaded: Loaded = self.do(checking, lambda: load(build.output, strict=self.settings.strict))
            if self.expected is not None:
                results = self.do(running, lambda: loaded.run(self.inputs))
                if build.options.auto_cast != "none" and self.case.name not in KNOWN["result"]:
                    self._judge(running, results, self._as_cast(loaded), self.modules[-1], CAST_TOLERANCE)
                else:
                    self._judge(running, results, self.expected, self.modules[-1])

    def _as_cast(self, loaded: Loaded) -> list[Array]:
        """What the oracle makes of the module with the casts that a target without f32 products makes."""
        named = {tensor.name: array for tensor, array in zip(loaded.inputs, self.inputs, strict=True)}
        return oracle_inside(loaded, None, loaded.prepare(named))

    def _compile(self, folder: str, variant: Variant) -> Build:
        binary = self.corpus.binary(self.case)
        path = os.path.join(folder, "module.pb")
        with open(path, "wb") as file:
            file.write(binary if binary is not None else module_bytes(self.modules[-1]))
        options = options_from(output=os.path.join(folder, "module.neff"), optlevel=variant.level, target=variant.target,
                               auto_cast="none", placement="support")
        return compile_file(Request(path, options))

    def _count_host(self, build: Build, variant: str) -> None:
        """Opcodes that run on the host, and whether one of them has no excuse."""
        assert build.plan is not None
        names = {row.instruction for row in build.plan.host}
        found: Counter[str] = Counter()
        excused = True
        for node in build.plan.nodes:
            for instruction in () if node.on_device else node.module.entry.instructions:
                if instruction.name in names:
                    found[instruction.opcode] += 1
                    excused &= _excused(instruction)
        self.outcome.host[variant] = dict(found)
        if not excused:
            self.outcome.needs_host.append(variant)


RANDOM_BYTES = 1 << 28
"""Modules whose parameters and results are larger are not run on random inputs: several copies would not fit in memory."""


def _bytes(module: Module) -> int:
    shapes = [parameter.shape for parameter in module.entry.parameters] + [module.entry.root.shape]
    return sum(leaf.byte_size for shape in shapes for leaf in shape.leaves() if leaf.is_array)


_COMMON = frozenset(("parameter", "constant", "tuple", "get-tuple-element", "broadcast", "reshape", "bitcast", "copy"))


def _work(opcodes: Iterable[str]) -> str:
    """The opcodes of a module that a wrong result may be due to."""
    return " ".join(sorted(o for o in opcodes if o not in _COMMON)[:6]) or "no arithmetic"


def _excused(instruction: Instruction) -> bool:
    """Whether the host is in order: by opcode, or because complex or 64-bit values are in it."""
    if instruction.opcode in HOST_OPCODES:
        return True
    shapes = [instruction.shape, *(o.shape for o in instruction.operands)]
    if any(leaf.dtype.is_complex or leaf.dtype.bits == 64 for shape in shapes for leaf in shape.leaves()):
        return True
    return any(_excused(inner) for computation in instruction.called for inner in computation.instructions)


def packed(module: Module, leaves: Sequence[Array]) -> list[Any]:
    """Arrays in leaf order as one value a parameter."""
    rest = iter(leaves)

    def value(shape: Shape) -> Any:
        if shape.is_tuple:
            return tuple(value(element) for element in shape.elements)
        return next(rest) if shape.is_array else None

    return [value(parameter.shape) for parameter in module.entry.parameters]


def difference(results: Sequence[Array], expected: Sequence[Array], module: Module,
               checks: Sequence[Mapping[str, Any]] = (), least_limit: float = 0.0) -> str | None:
    """The first output that is neither within its tolerance nor passes the test's own check, in words.

    least_limit: what any float may be off.
    """
    leaves = list(module.entry.root.shape.leaves())
    if not len(results) == len(expected) == len(leaves):
        return f"{len(results)} outputs, expected {len(expected)}"
    length = longest_sum(module)
    for number, (got, wanted, leaf) in enumerate(zip(results, expected, leaves, strict=True)):
        error, limit = output_error(got, wanted, leaf.dtype), tolerance(leaf.dtype, length)
        if leaf.dtype.is_float or leaf.dtype.is_complex:
            limit = max(limit, least_limit)
        if error > limit and not (checks and within_rule(got, wanted, checks[number])):
            return f"output{number} {leaf}: error {error:.3g}, limit {limit:.3g}; {_sample(got, wanted)}"
    return None


def _sample(got: Array, wanted: Array) -> str:
    if got.shape != wanted.shape:
        return f"shape {list(got.shape)} for {list(wanted.shape)}"
    wrong = np.argwhere((got != wanted) & ~((got != got) & (wanted != wanted)))
    if not len(wrong):
        return "same values"
    place = tuple(int(i) for i in wrong[0])
    return f"{len(wrong)} of {wanted.size} differ, at {list(place)} {got[place]} for {wanted[place]}"


def _must_equal(got: Module, wanted: Module, what: str, *, names: bool = True) -> None:
    words = modules_equal(got, wanted, names=names, counts=False)
    if words is not None:
        raise Differs(f"{what}: {words}")


