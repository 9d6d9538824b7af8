"""Replace an elementwise computation that is a known function by that function.

Before: the forty instructions that a front end writes for 0.5 * x * erfc(-x / sqrt(2)).
After:  y = f32[..] custom-call(x), custom_call_target="AwsNeuronGelu"

Front ends expand GELU and its like in many forms; the scalar engine has them as one instruction. The computation is known by
what it computes, not by how it is written: every value between a product and the one value that it depends on is evaluated,
on a dense grid, on all magnitudes, and at and beside every constant that occurs in it, where a branch could hide.

Where the result is bf16 or f16, so may be what lies between, and roundings on the way are left out, as XLA may leave them out:
  y = bf16[..] convert(custom-call(f32[..] convert(x)))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from nxcc.ir.dtypes import BF16, F16, F32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names, clone_instruction
from nxcc.ir.hlo.module import Instruction, Module

Array = np.ndarray[Any, Any]

MAX_INSTRUCTIONS = 100
"""Longest expansion that is looked at; GELU by XLA's erfc, with all its branches, has about 60."""

MAX_PENDING = 12
"""Values that may be open at once on the way back to the argument."""

TRANSCENDENTAL = frozenset(("exponential", "tanh", "erf", "logistic"))


@dataclass(frozen=True)
class Function:
    """A function by its custom-call target, or by its opcode if it has one; tolerance: of |f - g| relative to 1 + |x|, or to 1
    if the function is bounded."""

    name: str
    reference: Callable[[Array], Array]
    tolerance: float
    is_operator: bool = False
    is_bounded: bool = False


def _erf(x: Array) -> Array:
    """For a few thousand points; loading scipy for them would take longer than the whole pass."""
    return np.fromiter(map(math.erf, x.tolist()), np.float64, x.size)


FUNCTIONS = (
    Function("AwsNeuronGelu", lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(2.0))), 1e-6),
    Function("AwsNeuronGeluApprxTanh", lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), 1e-6),
    Function("AwsNeuronSilu", lambda x: x / (1 + np.exp(-x)), 1e-6),
    Function("logistic", lambda x: 1 / (1 + np.exp(-x)), 1e-6, is_operator=True, is_bounded=True),
)

NARROW = {BF16: 2.0**-12, F16: 2.0**-14}
"""Types that round the result, with what their constants may be off by: a sixteenth of a last place."""

ROOTS = ("multiply", "divide")
"""Opcodes that an expansion ends in."""


@dataclass(frozen=True)
class RecognizeFunctions:
    name: str = "recognize-functions"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in module.reachable():
            changed |= _rewrite(Builder(computation, names=names))
        return changed


def _rewrite(builder: Builder) -> bool:
    computation = builder.computation
    if not any(i.opcode in TRANSCENDENTAL for i in computation.instructions):
        return False
    order = computation.post_order()
    position = {instruction: index for index, instruction in enumerate(order)}
    replaced: set[Instruction] = set()
    known: dict[Any, Function | None] = {}
    for root in reversed(order):
        if root.opcode not in ROOTS or not _are_floats(root, root) or root in replaced or not root.shape.element_count:
            continue
        for argument, cone in _cones(root, position):
            key = _structure(argument, cone)
            if key not in known:
                known[key] = _recognize(argument, cone) if _are_floats(argument, root) else None
            function = known[key]
            if function is not None:
                _replace(builder, root, argument, function)
                replaced.update(cone)
                break
    if replaced:
        computation.sort()
    return bool(replaced)


def _cones(root: Instruction, position: dict[Instruction, int]) -> Iterator[tuple[Instruction, list[Instruction]]]:
    """Values that the root depends on alone, nearest first, each with the instructions between, operands first."""
    pending = {root}
    cone: list[Instruction] = []
    seen = False
    while pending and len(cone) < MAX_INSTRUCTIONS and len(pending) <= MAX_PENDING:
        current = max(pending, key=position.__getitem__)
        if len(pending) == 1 and cone and seen:
            yield current, cone[::-1]
        if not _is_step(current, root):
            return
        pending.discard(current)
        cone.append(current)
        seen |= current.opcode in TRANSCENDENTAL
        pending.update(o for o in current.operands if _number(o) is None)


def _is_step(instruction: Instruction, root: Instruction) -> bool:
    return instruction.operator.elementwise and instruction.shape.dims == root.shape.dims \
        and not instruction.control_predecessors \
        and (instruction.opcode != "convert" or _are_floats(instruction.operands[0], root))


def _are_floats(value: Instruction, root: Instruction) -> bool:
    """Whether roundings between a value and the root may be left out: there are none, or the root is rounded itself."""
    return value.shape.dtype is F32 or (value.shape.dtype in NARROW and root.shape.dtype in NARROW)


def _number(value: Instruction) -> Any:
    """The one value of a constant or of a constant repeated, else None."""
    while value.opcode in ("broadcast", "reshape"):
        value = value.operands[0]
    if value.opcode == "constant" and value.shape.is_array and value.attributes["literal"].is_splat:
        return value.attributes["literal"].splat_value
    return None


def _structure(argument: Instruction, cone: list[Instruction]) -> Any:
    """What decides the function: equal layers are recognised once."""
    numbers = {argument: 0}
    rows = []
    for instruction in cone:
        operands = tuple(numbers[o] if o in numbers else f"{_number(o)!r}" for o in instruction.operands)
        numbers[instruction] = len(numbers)
        rows.append((instruction.opcode, instruction.attributes.get("direction"), instruction.shape.dtype, operands))
    return argument.shape.dtype, tuple(rows)


def _recognize(argument: Instruction, cone: list[Instruction]) -> Function | None:
    """The function that the cone computes; a few points tell most of what it is not."""
    likely = _matching(argument, cone, FEW, FUNCTIONS)
    certain = _matching(argument, cone, _samples(cone), likely) if likely else []
    return certain[0] if certain else None


FEW = np.array([-3.5, -1.25, -0.5, 0.375, 1.5, 4.0], np.float32)


def _matching(argument: Instruction, cone: list[Instruction], x: Array,
              functions: Sequence[Function]) -> list[Function]:
    """Those functions that agree with the cone at all points x, the nearest first."""
    values = {argument: x}
    for instruction in cone:
        operands = [values[o] if o in values else _repeated(o, x.shape) for o in instruction.operands]
        with np.errstate(all="ignore"):
            values[instruction] = _unrounded(instruction, operands)
    found = values[cone[-1]].astype(np.float64)
    slack = NARROW.get(cone[-1].shape.dtype, 0.0)
    errors = [(_error(f, found, x.astype(np.float64)), f) for f in functions]
    return [f for error, f in sorted(errors, key=itemgetter(0)) if error <= max(f.tolerance, slack)]


def _error(function: Function, found: Array, x: Array) -> float:
    """The largest difference in the units of the function's tolerance."""
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(found - function.reference(x)) / (1 + np.abs(x) * (not function.is_bounded))))


def _unrounded(instruction: Instruction, operands: list[Array]) -> Array:
    """What it computes of f32 operands, in f32."""
    if instruction.opcode == "convert":
        return operands[0]
    evaluate = instruction.operator.evaluate
    assert evaluate is not None
    if instruction.shape.dtype in NARROW:
        instruction = clone_instruction(instruction, instruction.operands)
        instruction.shape = instruction.shape.with_dtype(F32)
    return np.asarray(evaluate(instruction, *operands))


def _repeated(constant: Instruction, dims: tuple[int, ...]) -> Array:
    dtype = constant.shape.dtype
    return np.full(dims, _number(constant), dtype.numpy).astype(F32.numpy if dtype in NARROW else dtype.numpy)


def _samples(cone: list[Instruction]) -> Array:
    """Finite points where the computation is compared: a grid, all magnitudes, and around each constant in it."""
    constants = [_number(o) for i in cone for o in i.operands]
    special = np.array([float(c) for c in constants if c is not None and np.isfinite(c)], np.float32)
    special = np.concatenate([special, -special, np.sqrt(np.abs(special)), -np.sqrt(np.abs(special))])
    beside = np.concatenate([np.nextafter(special, np.float32(np.inf)), np.nextafter(special, np.float32(-np.inf))])
    magnitudes = np.logspace(-30, 12, 400, dtype=np.float32)
    grid = np.linspace(-16, 16, 3201, dtype=np.float32)
    return np.concatenate([grid, magnitudes, -magnitudes, special, beside, np.zeros(1, np.float32)]).astype(np.float32)


def _replace(builder: Builder, root: Instruction, argument: Instruction, function: Function) -> None:
    builder.location = root.location
    argument, shape = _held_in(F32, argument, builder), root.shape.with_dtype(F32)
    if function.is_operator:
        known = builder.make(function.name, argument, shape=shape)
    else:
        known = builder.make("custom-call", argument, shape=shape, custom_call_target=function.name)
    builder.computation.replace(root, _held_in(root.shape.dtype, known, builder))


def _held_in(dtype: DType, value: Instruction, builder: Builder) -> Instruction:
    return value if value.shape.dtype is dtype else builder.convert(value, dtype)
