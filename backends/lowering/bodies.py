"""Computations of scalars on whole tiles: what a combiner, a comparator or the body of a map does to each element.

The called computation runs through the emission rules of the elementwise operators. Calls inside it are followed, constants
stay numbers, tuples stay tuples of tiles; temporaries are given back at their last use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.backends.lowering.pointwise.formulas import REASONS, TEMPORARIES, Tile, emits
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.module import Computation, Instruction

CALLS = frozenset({"call", "fusion", "map"})
PASSING = frozenset({"reshape", "bitcast", "broadcast", "transpose", "copy", "opt-barrier", "domain"})
"""Operators that change nothing when operand and result are one element."""
STRUCTURE = frozenset({"parameter", "constant", "tuple", "get-tuple-element", "bitcast-convert"})

Value = Any
"""A tile, a number, or a tuple of values."""


def body_reason(computation: Computation, target: Target, what: str) -> str | None:
    """Why a computation of scalars cannot run on tiles, in words; None if it can. what: its part in the instruction."""
    for instruction in computation.post_order():
        reason = _reason(instruction, target)
        if reason is None and instruction.opcode in CALLS:
            reason = body_reason(instruction.called[0], target, computation.name)
        if reason is not None:
            return f"{instruction.name} inside the {what} {computation.name}: {reason}"
    return None


def _reason(instruction: Instruction, target: Target) -> str | None:
    for leaf in instruction.shape.leaves():
        if leaf.dims:
            return "not a scalar"
        if leaf.dtype not in target.dma.dtypes:
            return f"the engines of {target.name} do not compute {leaf.dtype}"
    opcode = instruction.opcode
    if opcode in STRUCTURE or opcode in PASSING or opcode in CALLS:
        return None
    if opcode not in emits():
        return f"{opcode} is no elementwise operator of the device"
    reason = REASONS.get(opcode)
    return reason(instruction, target) if reason else None


def body_tiles(computation: Computation) -> int:
    """4-byte tiles of the operands' size that `run_body` would like to have besides its inputs and outputs."""
    own = sum(1 for i in computation.post_order() if i.opcode not in STRUCTURE and i.opcode not in PASSING)
    inner = max((body_tiles(i.called[0]) for i in computation.post_order() if i.opcode in CALLS), default=0)
    deepest = max((TEMPORARIES.get(i.opcode, 0) for i in computation.post_order()), default=0)
    widest = max((words_in(leaf.dtype) for i in computation.post_order() for leaf in i.shape.leaves()), default=1)
    return min(own, 8) * widest + inner + deepest


def words_in(dtype: DType) -> int:
    """4-byte tiles that a tile of these elements takes, rounded up."""
    return max(1, dtype.byte_size // 4)


def run_body(kernel: Kernel, computation: Computation, inputs: Sequence[Tile], outs: Sequence[Access]) -> None:
    """outs = computation(inputs), element by element; one tile of outs for each leaf of the result.

    inputs: tiles of outs' size with one free dimension, columns, or numbers. outs share no memory with inputs.
    """
    root = computation.root
    leaves = root.operands if root.opcode == "tuple" else (root,)
    body = _Body(kernel, outs[0], dict(zip(reversed(leaves), reversed(outs), strict=True)))
    result = body.run(computation, inputs)
    for value, out in zip(_flat(result), outs, strict=True):
        if not isinstance(value, Access):
            kernel.memset(out, value)
        elif value.offset != out.offset:
            kernel.copy(out, _repeated(value, out))


def _flat(value: Value) -> list[Tile]:
    return [leaf for element in value for leaf in _flat(element)] if isinstance(value, tuple) else [value]


def _repeated(tile: Access, like: Access) -> Access:
    """A column as a tile of like's size."""
    if tile.free == like.free:
        return tile
    return Access(tile.memory, tile.dtype, tile.partition, tile.partitions, tile.offset, ((0, like.free),))


class _Body:
    """Evaluates one call. like: a tile of the size of all others. targets: instructions whose value has its place already."""

    def __init__(self, kernel: Kernel, like: Access, targets: dict[Instruction, Access]) -> None:
        self.kernel = kernel
        self.like = like
        self.targets = targets
        self._holders: dict[Any, int] = {}
        self._owned: dict[Any, Access] = {}
        self._free: dict[int, list[Access]] = {}

    def run(self, computation: Computation, arguments: Sequence[Value]) -> Value:
        """The value of a computation; who calls holds it from now on."""
        order = computation.post_order()
        last = {operand: user for user in order for operand in user.operands}
        environment: dict[Instruction, Value] = {}
        for instruction in order:
            if instruction.opcode == "parameter":
                value = arguments[int(instruction.attributes["parameter_number"])]
            else:
                value = self._value(instruction, [environment[o] for o in instruction.operands])
            environment[instruction] = self._hold(value)
            for operand in dict.fromkeys(instruction.operands):
                if last[operand] is instruction and operand is not computation.root:
                    self._release(environment[operand])
        return self._hand_on(environment[computation.root])

    def _value(self, instruction: Instruction, operands: list[Value]) -> Value:
        opcode = instruction.opcode
        if opcode in CALLS:
            return self.run(instruction.called[0], operands)
        if opcode == "constant":
            return _number(instruction)
        if opcode == "tuple":
            return tuple(operands)
        if opcode == "get-tuple-element":
            return operands[0][instruction.attributes["index"]]
        if opcode in PASSING:
            return operands[0]
        if opcode == "bitcast-convert":
            return self._whole(operands[0], instruction.operands[0].shape.dtype).retype(instruction.shape.dtype)
        return self._emit(instruction, operands)

    def _emit(self, instruction: Instruction, operands: list[Value]) -> Access:
        dtype = instruction.shape.dtype
        out = self.targets.get(instruction) or self._take(dtype)
        if all(not isinstance(tile, Access) or tile.free < out.free for tile in operands):
            operands[0] = self._whole(operands[0], instruction.operands[0].shape.dtype)
        emits()[instruction.opcode](self.kernel, instruction, operands, out)
        return out

    def _whole(self, value: Tile, dtype: DType) -> Access:
        """The value as a tile with all its elements."""
        if isinstance(value, Access):
            return _repeated(value, self.like)
        tile = self._take(dtype)
        self.kernel.memset(tile, value)
        return tile

    def _take(self, dtype: DType) -> Access:
        """A tile of its own, used again once nobody holds it."""
        free = self._free.get(dtype.byte_size)
        if free:
            tile = free.pop().retype(dtype)
        else:
            tile = self.kernel.sbuf((self.like.partitions, self.like.free), dtype)
        self._owned[tile.offset] = tile
        return tile

    def _hold(self, value: Value) -> Value:
        for leaf in _flat(value):
            if isinstance(leaf, Access) and leaf.offset in self._owned:
                self._holders[leaf.offset] = self._holders.get(leaf.offset, 0) + 1
        return value

    def _hand_on(self, value: Value) -> Value:
        for leaf in _flat(value):
            if isinstance(leaf, Access) and leaf.offset in self._owned:
                self._holders[leaf.offset] -= 1
        return value

    def _release(self, value: Value) -> None:
        for leaf in _flat(value):
            if isinstance(leaf, Access) and leaf.offset in self._owned:
                self._holders[leaf.offset] -= 1
                if not self._holders[leaf.offset]:
                    tile = self._owned.pop(leaf.offset)
                    self._free.setdefault(tile.dtype.byte_size, []).append(tile)


def _number(instruction: Instruction) -> float:
    value = instruction.attributes["literal"].array.reshape(-1)[0]
    return int(value) if instruction.shape.dtype.is_integer else float(value)
