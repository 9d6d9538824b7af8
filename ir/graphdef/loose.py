"""Values whose sizes only a run knows, as splitting strings and sparse tensors make them.

A Loose value is a step of a host program that has not run (`recording.py`), with what is known of its shape
(`shape_functions/`). Where a value comes out whose size is known after all, and an ordinary rule reads it, the steps that it
needs become one custom call (`nxcc.ir.hlo.programs`), which gives an array like any other: the string part of a graph runs
on the host, and what follows is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import GRAPH_DYNAMIC, CompileError
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.spans import Span, Spans, at
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.programs.program import PROGRAM, TEXTS, Program, Step, encode_texts
from nxcc.ir.literals import Array
from nxcc.ir.shapes import Shape

MAX_VALUES = 64
"""Of an integer vector whose elements are followed."""


@dataclass(frozen=True, eq=False)
class LooseStep:
    """A function, what it reads, and its attributes."""

    function: str
    inputs: tuple[Instruction | Loose, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Loose:
    """A result of a step. dims: None where not even the rank is known. values: of a small integer array, as Spans."""

    step: LooseStep
    port: int
    dtype: DType
    dims: Spans | None
    values: Array | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether every size is known."""
        return self.dims is not None and all(size.exact for size in self.dims)

    @property
    def shape(self) -> Shape:
        assert self.dims is not None
        return Shape(self.dtype, tuple(size.low for size in self.dims))


def exact_values(values: Array | None) -> Array | None:
    """The numbers that spans leave no choice."""
    if values is None or not all(span.exact for span in values.reshape(-1)):
        return None
    return np.array([span.low for span in values.reshape(-1)], np.int64).reshape(values.shape)


def spans_of(numbers: Array) -> Array:
    """An array of exact Spans."""
    found = np.empty(numbers.shape, object)
    found[...] = np.vectorize(lambda n: at(int(n)), otypes=[object])(numbers) if numbers.size else found
    return found


def text_constant(emit: Emitter, texts: Sequence[bytes], dims: Sequence[int], dtype: DType) -> Instruction:
    """Constant strings, which get their numbers when they run."""
    return _call(emit, TEXTS, (), Shape(dtype, tuple(dims)), encode_texts(texts))


def _call(emit: Emitter, target: str, operands: Sequence[Instruction], shape: Shape, config: bytes) -> Instruction:
    found = emit.make("custom-call", *operands, shape=shape, custom_call_target=target)
    found.backend_config = config
    return found


class Settled:
    """Makes arrays of Loose values, each once in a computation."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int, int], tuple[Loose, Instruction]] = {}

    def array(self, emit: Emitter, value: Loose, where: str) -> Instruction:
        """The value as an instruction; CompileError(GRAPH_DYNAMIC) if its size is not known."""
        if not value.is_fixed:
            raise unknown_size(value, where)
        key = id(value.step), value.port, id(emit.builder.computation)
        if key not in self._made:
            self._made[key] = value, self._make(emit, value)
        return self._made[key][1]

    def _make(self, emit: Emitter, value: Loose) -> Instruction:
        known = exact_values(value.values)
        if known is not None:
            return emit.constant(known.astype(value.dtype.numpy))
        operands, program = _collected(value)
        return _call(emit, PROGRAM, operands, value.shape, program.encode())


def unknown_size(value: Loose, where: str) -> CompileError:
    sizes = "its rank is not known" if value.dims is None else \
        f"its shape is [{', '.join(str(s.low) if s.exact else '?' for s in value.dims)}]"
    return CompileError(GRAPH_DYNAMIC, f"the size of what {value.step.function} gives depends on values", where, why=sizes,
                        remedy="bring it to a known shape first, or end the graph before it with --io-config")


def _collected(value: Loose) -> tuple[list[Instruction], Program]:
    """The steps that a value needs, in order, and the arrays that they read from outside."""
    order = _ordered(value.step)
    operands: dict[Instruction, int] = {}
    for step in order:
        for given in step.inputs:
            if isinstance(given, Instruction):
                operands.setdefault(given, len(operands))
    first: dict[int, int] = {}
    count = len(operands)
    for step in order:
        first[id(step)] = count
        count += RESULTS.get(step.function, 1)

    def number(given: Instruction | Loose) -> int:
        return operands[given] if isinstance(given, Instruction) else first[id(given.step)] + given.port

    steps = tuple(Step(step.function, tuple(map(number, step.inputs)), step.attributes) for step in order)
    return list(operands), Program(len(operands), steps, number(value))


RESULTS = {"StringSplit": 3, "StringSplitV2": 3, "StringNGrams": 2, "Unique": 2, "SparseReshape": 2, "SparseFillEmptyRows": 4,
           "RaggedTensorToSparse": 3, "RaggedRange": 2, "SelfAdjointEigV2": 2, "Svd": 3, "Lu": 2}
"""Functions with more than one result."""


def _ordered(last: LooseStep) -> list[LooseStep]:
    """Steps behind those that they need, without recursion."""
    found: dict[int, LooseStep] = {}
    stack = [last]
    while stack:
        step = stack[-1]
        missing = [given.step for given in step.inputs if isinstance(given, Loose) and id(given.step) not in found]
        if missing:
            stack += missing
        else:
            found[id(step)] = stack.pop()
    return list(found.values())


Known = tuple[Spans | None, Array | None]
"""What is known of a result: its dimensions, and its values."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an input: dims, values as Spans, and its type."""

    dims: Spans | None
    values: Array | None
    dtype: DType

    @property
    def numbers(self) -> Array | None:
        return exact_values(self.values)

    @property
    def size(self) -> Span:
        """How many elements a vector has."""
        from nxcc.ir.graphdef.spans import ANY
        return self.dims[0] if self.dims else ANY if self.dims is None else at(1)
