"""The smallest module that still fails: `nxcc reduce`, and what random tests do with a module that they find.

A candidate is a module and a value for each parameter. Steps, tried over and over until none helps: fewer results, results
taken from further up, instructions replaced by parameters that hold what the oracle computed there, by an operand, or
(inside loops and branches) by zeros, calls inlined, dimensions made smaller. Whoever asks says what counts as failing.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np

from nxcc.compiler.arrays import read_arrays, write_npz
from nxcc.compiler.debugging.trial import AGREES, Trial
from nxcc.compiler.files import check_outputs
from nxcc.compiler.inputs import read_model
from nxcc.compiler.limits import raised_after
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.parameters import INPUT, Tensor, check_inputs, leaf_shapes, random_inputs
from nxcc.compiler.problems import raise_problems
from nxcc.compiler.weights import bind_file
from nxcc.ir.diagnostics import USAGE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.files import whole_file, write_whole
from nxcc.ir.hlo.attributes import SliceDimension, Window
from nxcc.ir.hlo.builder import Builder, clone_computation, clone_instruction, clone_module, infer_shape, inline_call
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.operator import ShapeError, find
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.writer import write_text
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.literals import Literal, splat
from nxcc.ir.shapes import Shape

Value = Any

DEFAULT_TRIALS = 500
LEAST_TRIAL_SECONDS = 10.0
TRIAL_FACTOR = 5.0
"""A trial may take so much longer than the last one that failed, since a smaller module should take less."""
FIRST_TRIAL_SECONDS = 3600.0
_KEPT = frozenset(("parameter", "constant"))


@dataclass(frozen=True)
class Candidate:
    """A module and one value a parameter."""

    module: Module
    values: tuple[Value, ...]

    @property
    def size(self) -> int:
        """Instructions of all computations that the entry reaches."""
        return sum(len(computation.instructions) for computation in self.module.reachable())


Fails = Callable[[Module, Sequence[Value]], bool]


@dataclass
class Budget:
    """How long to go on."""

    trials: int = DEFAULT_TRIALS
    seconds: float = 600.0
    used: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def is_spent(self) -> bool:
        return self.used >= self.trials or time.monotonic() - self.start > self.seconds


def reduce_candidate(start: Candidate, fails: Fails, budget: Budget | None = None) -> Candidate:
    """The smallest failing candidate found within the budget; `start` itself if nothing smaller fails."""
    search = _Search(fails, budget or Budget())
    found = extract(start, [start.module.entry.root], frozenset())
    if not search.accepts(found):
        return start
    while not search.budget.is_spent:
        before = found
        for step in STEPS:
            found = search.exhaust(step, found)
        if found is before:
            break
    return found


class _Overdue(BaseException):
    """A trial takes too long; no Exception, so that nothing on the way takes it for a fault of the compiler."""


class _Search:
    def __init__(self, fails: Fails, budget: Budget) -> None:
        self.fails = fails
        self.budget = budget

        self.limit_seconds = FIRST_TRIAL_SECONDS

    def accepts(self, candidate: Candidate) -> bool:
        """Whether a candidate is a valid module that fails, and not by running for ever: a step may take a loop's end away."""
        self.budget.used += 1
        start = time.monotonic()
        try:
            verify(candidate.module)
            with raised_after(self.limit_seconds, _Overdue()):
                found = self.fails(candidate.module, candidate.values)
        except (CompileError, _Overdue):
            return False
        if found:
            self.limit_seconds = max(LEAST_TRIAL_SECONDS, TRIAL_FACTOR * (time.monotonic() - start))
        return found

    def exhaust(self, step: Step, found: Candidate) -> Candidate:
        """Apply a step as long as one of its proposals fails too."""
        progress = True
        while progress and not self.budget.is_spent:
            progress = False
            for proposal in step(found):
                if self.budget.is_spent:
                    break
                if proposal is not None and self.accepts(proposal):
                    found, progress = proposal, True
                    break
        return found


Step = Callable[[Candidate], Iterator[Candidate | None]]


# Cutting


def extract(candidate: Candidate, roots: Sequence[Instruction], cut: frozenset[Instruction],
            values: Mapping[Instruction, Value] | None = None) -> Candidate:
    """A candidate with what `roots` need; instructions in `cut` become parameters that hold their values.

    One root is the result as it is, several become a tuple. Computations that are not called are left out, and so are
    aliases, layouts of the entry and other notes of the header.
    """
    module = candidate.module
    needed = _needed(roots, cut)
    made = Module(module.name)
    computations: dict[Computation, Computation] = {}
    used = _called(needed - cut)
    for callee in module.reachable():
        if callee in used:
            computations[callee] = made.add(clone_computation(callee, callee.name, computations))
    entry = made.add(Computation(module.entry.name), entry=True)
    known = dict(zip(module.entry.parameters, candidate.values, strict=True)) | dict(values or {})
    copies: dict[Instruction, Instruction] = {}
    kept: list[Value] = []
    for old in module.entry.post_order():
        if old not in needed:
            continue
        if old.opcode == "parameter" or old in cut:
            copy = Instruction(old.name, find("parameter"), old.shape, (), {"parameter_number": len(kept)})
            kept.append(known[old])
        else:
            copy = clone_instruction(old, [copies[o] for o in old.operands], [computations[c] for c in old.called])
        copies[old] = entry.add(copy)
    entry.root = copies[roots[0]] if len(roots) == 1 else Builder(entry).make("tuple", *(copies[root] for root in roots))
    return Candidate(made, tuple(kept))


def _needed(roots: Sequence[Instruction], cut: frozenset[Instruction]) -> set[Instruction]:
    found: set[Instruction] = set()
    stack = list(roots)
    while stack:
        instruction = stack.pop()
        if instruction not in found:
            found.add(instruction)
            if instruction not in cut:
                stack.extend(instruction.operands)
    return found


def _called(instructions: Iterable[Instruction]) -> set[Computation]:
    """Computations that instructions call, directly or not."""
    found: set[Computation] = set()
    stack = [c for i in instructions for c in i.called]
    while stack:
        computation = stack.pop()
        if computation not in found:
            found.add(computation)
            stack += [c for i in computation.instructions for c in i.called]
    return found


def recorded(candidate: Candidate) -> dict[Instruction, Value]:
    """What every instruction of the entry computes."""
    entry = candidate.module.entry
    found: dict[Instruction, Value] = {}

    def note(instruction: Instruction, value: Value) -> None:
        if instruction.parent is entry:
            found[instruction] = value

    evaluate(candidate.module, candidate.values, note)
    return found


def can_be_parameter(instruction: Instruction) -> bool:
    """Whether a parameter can stand for an instruction: arrays of static shape only, and no parameter or constant yet."""
    shapes = [instruction.shape]
    while shapes:
        shape = shapes.pop()
        if not (shape.is_array or shape.is_tuple) or shape.dynamic:
            return False
        shapes += shape.elements
    return instruction.opcode not in _KEPT


def _recorded_or_nothing(candidate: Candidate) -> dict[Instruction, Value]:
    try:
        return recorded(candidate)
    except CompileError:
        return {}


def _fewer_results(candidate: Candidate) -> Iterator[Candidate | None]:
    """Halves of a tuple's elements, then all but one."""
    root = candidate.module.entry.root
    if root.opcode != "tuple" or not root.operands:
        return
    elements = list(root.operands)
    size = len(elements) // 2
    while size:
        for at in range(0, len(elements), size):
            yield extract(candidate, elements[at:at + size], frozenset())
            if size > 1 or len(elements) > 2:
                rest = elements[:at] + elements[at + size:]
                if rest:
                    yield extract(candidate, rest, frozenset())
        size //= 2
    if len(elements) == 1:
        yield extract(candidate, elements, frozenset())


def _earlier_result(candidate: Candidate) -> Iterator[Candidate | None]:
    """The result is what the result is computed from."""
    for operand in dict.fromkeys(candidate.module.entry.root.operands):
        if operand.opcode not in _KEPT:
            yield extract(candidate, [operand], frozenset())


def _parameters_for_instructions(candidate: Candidate) -> Iterator[Candidate | None]:
    """Parameters in place of the first half of the instructions, of quarters, and so on down to one."""
    values = _recorded_or_nothing(candidate)
    entry = candidate.module.entry
    order = [i for i in entry.post_order() if i in values and can_be_parameter(i) and i is not entry.root]
    size = max(1, len(order) // 2)
    while order:
        for at in range(0, len(order), size):
            yield extract(candidate, [entry.root], frozenset(order[at:at + size]), values)
        if size == 1:
            return
        size //= 2


def _operands_for_instructions(candidate: Candidate) -> Iterator[Candidate | None]:
    """An operand of equal shape in place of an instruction, in any computation; zeros inside called ones."""
    for c, computation in enumerate(candidate.module.computations):
        for n, instruction in enumerate(computation.instructions):
            if instruction.opcode in _KEPT:
                continue
            for o, operand in enumerate(instruction.operands):
                if _type(operand.shape) == _type(instruction.shape):
                    yield _substituted(candidate, c, n, lambda copy, _, o=o: copy.operands[o])  # type: ignore[misc]
            if computation is not candidate.module.entry and instruction.shape.is_array and not instruction.shape.dynamic:
                yield _substituted(candidate, c, n, lambda copy, builder: builder.literal(
                    splat(copy.shape.dtype, copy.shape.dims, 0)))


def _type(shape: Shape) -> Shape:
    return shape.without_layout()


def _substituted(candidate: Candidate, computation: int, instruction: int,
                 choose: Callable[[Instruction, Builder], Instruction]) -> Candidate | None:
    """A copy in which one instruction, found by its numbers, is replaced by what `choose` gives."""
    module = clone_module(candidate.module)
    inside = module.computations[computation]
    old = list(inside.instructions)[instruction]
    inside.replace(old, choose(old, Builder(inside)))
    inside.sort()
    return _trimmed(Candidate(module, candidate.values))


def _trimmed(candidate: Candidate) -> Candidate:
    """Without instructions that nothing needs, in any computation."""
    for computation in candidate.module.computations:
        needed = _needed([computation.root], frozenset())
        for instruction in reversed(computation.post_order()):
            if instruction not in needed and instruction.opcode != "parameter":
                computation.remove(instruction)
    return extract(candidate, [candidate.module.entry.root], frozenset())


def _inlined_calls(candidate: Candidate) -> Iterator[Candidate | None]:
    """The instructions of a call or a fusion in its place."""
    for n, instruction in enumerate(candidate.module.entry.instructions):
        if instruction.opcode in ("call", "fusion"):
            module = clone_module(candidate.module)
            call = list(module.entry.instructions)[n]
            inline_call(call, Builder(module.entry))
            module.entry.sort()
            yield _trimmed(Candidate(module, candidate.values))


# Smaller dimensions


def _smaller_dimensions(candidate: Candidate) -> Iterator[Candidate | None]:
    """One size, wherever it occurs, replaced by a smaller one."""
    instructions = candidate.module.instructions()
    sizes = {size for i in instructions for leaf in i.shape.leaves() if not leaf.dynamic for size in leaf.dims}
    for size in sorted(sizes, reverse=True):
        for smaller in dict.fromkeys((1, 2, size // 4, size // 2, size - 1)):
            if 0 < smaller < size:
                yield _resized(candidate, size, smaller)


def _resized(candidate: Candidate, size: int, smaller: int) -> Candidate | None:
    """Every dimension of one size cut to another; None where the operators do not allow it."""
    module = clone_module(candidate.module)
    resize = _Resize(size, smaller)
    module.entry_layout = None
    try:
        for computation in module.reachable():
            for instruction in computation.post_order():
                resize.instruction(instruction)
    except ShapeError:
        return None
    return Candidate(module, tuple(resize.value(value) for value in candidate.values))


@dataclass(frozen=True)
class _Resize:
    size: int
    smaller: int

    def number(self, size: int) -> int:
        return self.smaller if size == self.size else size

    def shape(self, shape: Shape) -> Shape:
        return Shape(shape.dtype, tuple(map(self.number, shape.dims)), tuple(map(self.shape, shape.elements)), shape.dynamic,
                     shape.layout)

    def value(self, value: Value) -> Value:
        if isinstance(value, tuple):
            return tuple(map(self.value, value))
        if value is None:
            return None
        part = value[tuple(slice(self.number(d)) for d in value.shape)]
        return np.ascontiguousarray(part).reshape(part.shape)  # which makes a scalar a vector of one

    def instruction(self, instruction: Instruction) -> None:
        """Resize attributes, then take the shape that the operator gives, or the resized one where it gives none."""
        attributes = {key: self.attribute(value) for key, value in instruction.attributes.items()}
        instruction.attributes = attributes
        operator = instruction.operator
        wanted = self.shape(instruction.shape)
        if operator.shape is not None and instruction.operands:
            inferred = infer_shape(operator, [o.shape for o in instruction.operands], attributes, instruction.called)
            wanted = inferred if _dtypes(inferred) == _dtypes(wanted) else wanted
        instruction.shape = wanted

    def attribute(self, value: Any) -> Any:
        if isinstance(value, Literal):
            return self.literal(value)
        if isinstance(value, Window):
            return Window(tuple(replace(dim, size=self.number(dim.size)) for dim in value.dims))
        if isinstance(value, tuple) and value and all(isinstance(part, SliceDimension) for part in value):
            return tuple(replace(part, limit=self.number(part.limit)) for part in value)
        if isinstance(value, tuple) and self.size > 4 and value and all(type(part) is int for part in value):
            return tuple(map(self.number, value))
        return value

    def literal(self, literal: Literal) -> Literal:
        if literal.shape.is_tuple:
            return Literal(self.shape(literal.shape), elements=tuple(map(self.literal, literal.elements)))
        return Literal(self.shape(literal.shape), self.value(literal.array))


def _dtypes(shape: Shape) -> list[Any]:
    return [leaf.dtype for leaf in shape.leaves()]


STEPS: tuple[Step, ...] = (_fewer_results, _earlier_result, _parameters_for_instructions, _inlined_calls,
                           _operands_for_instructions, _smaller_dimensions)
"""In the order in which they are tried: what cuts most comes first."""


# The command


@dataclass(frozen=True)
class Start:
    """What the user starts from: a model, options, inputs; strict: simulate in strict mode."""

    path: str
    options: CompileOptions
    inputs: str | None = None
    strict: bool = False
    seed: int = 0

    def candidate(self) -> Candidate:
        """The module as read, weights bound, with given or seeded random values."""
        module = read_model(self.path)
        verify(module)
        if self.options.weights:
            bind_file(module, self.options.weights)
        return Candidate(module, self._values(module))

    def trial(self) -> Trial:
        options = replace(self.options, weights="", output="", depfile="", stop_after="", dump_after=())
        return Trial(options, self.strict, self.seed)

    def _values(self, module: Module) -> tuple[Value, ...]:
        shapes = [shape for parameter in module.entry.parameters for _, shape in leaf_shapes(parameter.shape)]
        tensors = [Tensor(f"input{k}", k, "", INPUT, shape.dtype, shape) for k, shape in enumerate(shapes)]
        if self.inputs is None:
            leaves = iter(random_inputs(tensors, self.seed))
        else:
            given, problems = check_inputs(read_arrays(self.inputs), tensors, self.inputs)
            raise_problems(problems)
            leaves = iter(given)
        return tuple(packed(parameter.shape, leaves) for parameter in module.entry.parameters)


def packed(shape: Shape, leaves: Iterator[Any]) -> Value:
    """Arrays in leaf order as a value of a shape."""
    if shape.is_tuple:
        return tuple(packed(element, leaves) for element in shape.elements)
    return next(leaves) if shape.is_array else None


def reduce_file(start: Start, output: str, command: str = "", trials: int = DEFAULT_TRIALS) -> dict[str, Any]:
    """Reduce a model and write it as text, its inputs beside it as npz; the report as plain JSON.

    command: run with the path of a module as its last word; a module fails if the exit status is that of the whole model.
    Without one a module fails if it ends in the same verdict. Raises CompileError(USAGE) if the model does not fail.
    """
    stem = os.path.splitext(output)[0]
    check_outputs([output, f"{stem}.npz"], [path for path in (start.path, start.inputs) if path])
    candidate = start.candidate()
    if command:
        fails, words = _by_command(command, candidate)
    else:
        fails, words = _by_verdict(start, candidate)
    budget = Budget(trials)
    found = reduce_candidate(candidate, fails, budget)
    write_whole(output, write_text(found.module))
    with whole_file(f"{stem}.npz") as file:
        write_npz(file, {f"input{k}": value for k, value in enumerate(flatten(found.values))})
    return {"model": start.path, "fails": words, "output": output, "inputs": f"{stem}.npz", "trials": budget.used,
            "instructions_before": candidate.size, "instructions": found.size,
            "text": write_text(found.module, short=True)}


def _by_verdict(start: Start, candidate: Candidate) -> tuple[Fails, str]:
    trial = start.trial()
    whole = trial.judge(candidate.module, candidate.values)
    if whole.kind == AGREES:
        raise CompileError(USAGE, f"{start.path} does not fail: simulator and oracle agree",
                           remedy="give the options and inputs with which it fails, or --test COMMAND")

    def fails(module: Module, values: Sequence[Value]) -> bool:
        found = trial.judge(module, values)
        return (found.kind, found.key) == (whole.kind, whole.key)

    return fails, whole.text


def _by_command(command: str, candidate: Candidate) -> tuple[Fails, str]:
    words = shlex.split(command)

    def status(module: Module) -> int:
        with tempfile.TemporaryDirectory(prefix="nxcc-reduce-") as folder:
            path = os.path.join(folder, "module.hlo")
            write_whole(path, write_text(module))
            return subprocess.run([*words, path], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode

    try:
        wanted = status(candidate.module)
    except OSError as error:
        raise CompileError(USAGE, f"--test {command!r} cannot be run", why=str(error)) from None
    if wanted == 0:
        raise CompileError(USAGE, f"--test {command!r} succeeds on the whole model",
                           remedy="the command must exit with another status than 0 where a module fails")
    return lambda module, values: status(module) == wanted, f"{command} exits with {wanted}"


def reduce_lines(body: dict[str, Any]) -> list[str]:
    """The same for people."""
    return [f"{body['model']}: {body['fails']}",
            f"{body['instructions_before']} instructions became {body['instructions']} in {body['trials']} trials",
            f"written to {body['output']}, its inputs to {body['inputs']}", "", *body["text"].splitlines()]
