"""The tile program: loops over tiles and engine instructions whose operands are access patterns on buffers.

Operands are values of two kinds. An `Access` is a block of SBUF or PSUM: a partition range and up to four free dimensions.
A `View` is a strided walk over linear memory: a value in HBM, or SBUF as a DMA sees it. Both are cut, permuted and
broadcast without moving data; what an access pattern can express is never materialised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

from nxcc.backends.isa.program import DMA_PARTITION_STRIDE, Engine, InstructionSpec, Memory
from nxcc.backends.tile.expressions import Expr, Index, Symbol, expr
from nxcc.ir.dtypes import DType
from nxcc.ir.facts import dataclass

Dims = tuple[tuple[int, int], ...]


def contiguous(sizes: Sequence[int], unit: int = 1) -> Dims:
    """(stride, size) pairs of a row-major block whose innermost stride is `unit`."""
    dims: list[tuple[int, int]] = []
    stride = unit
    for size in reversed(sizes):
        dims.append((stride, size))
        stride *= max(size, 1)
    return tuple(reversed(dims))


def merge_dims(dims: Dims) -> Dims:
    """The same walk with the fewest dimensions: size 1 dropped, neighbours joined where strides allow."""
    merged: list[tuple[int, int]] = []
    for stride, size in dims:
        if size == 1:
            continue
        if merged and merged[-1][0] == stride * size:
            merged[-1] = (stride, merged[-1][1] * size)
        else:
            merged.append((stride, size))
    return tuple(merged)


def reshape_dims(dims: Dims, sizes: Sequence[int]) -> Dims | None:
    """The same walk with other sizes, if strides can express it; None if the data would have to move."""
    if math.prod(size for _, size in dims) == 0:
        return contiguous(sizes)
    pieces = list(merge_dims(dims))
    result: list[tuple[int, int]] = []
    for size in reversed(sizes):
        if size == 1:
            result.append((0, 1))
            continue
        if not pieces:
            return None
        stride, extent = pieces.pop()
        if extent % size:
            return None
        result.append((stride, size))
        if extent != size:
            pieces.append((stride * size, extent // size))
    return tuple(reversed(result))


@dataclass(frozen=True, slots=True)
class View:
    """A strided walk over linear memory: address in bytes, dims of (stride in bytes, size), outermost first."""

    memory: Memory
    dtype: DType
    address: Expr
    dims: Dims

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.dims)

    @property
    def elements(self) -> int:
        return math.prod(self.sizes)

    @property
    def is_contiguous(self) -> bool:
        merged = merge_dims(self.dims)
        return not merged or (len(merged) == 1 and merged[0][0] == self.dtype.byte_size)

    def cut(self, dim: int, start: Index, size: int, step: int = 1) -> View:
        """`size` elements of one dimension from `start`, every `step`-th (negative: backwards)."""
        stride = self.dims[dim][0]
        dims = (*self.dims[:dim], (stride * step, size), *self.dims[dim + 1:])
        return View(self.memory, self.dtype, self.address + expr(start) * stride, dims)

    def at(self, dim: int, index: Index) -> View:
        """One place along a dimension, which goes away."""
        stride = self.dims[dim][0]
        return View(self.memory, self.dtype, self.address + expr(index) * stride, self.dims[:dim] + self.dims[dim + 1:])

    def permute(self, order: Sequence[int]) -> View:
        return View(self.memory, self.dtype, self.address, tuple([self.dims[d] for d in order]))

    def insert(self, dim: int, size: int = 1) -> View:
        """A new dimension along which the same elements repeat."""
        return View(self.memory, self.dtype, self.address, (*self.dims[:dim], (0, size), *self.dims[dim:]))

    def reshape(self, sizes: Sequence[int]) -> View | None:
        dims = reshape_dims(self.dims, sizes)
        return None if dims is None else View(self.memory, self.dtype, self.address, dims)

    def retype(self, dtype: DType) -> View:
        """The same bytes under a dtype of the same width."""
        assert dtype.byte_size == self.dtype.byte_size
        return View(self.memory, dtype, self.address, self.dims)


@dataclass(frozen=True, slots=True)
class Access:
    """A block of SBUF or PSUM: partitions and free dimensions of (stride in elements, size), outermost first.

    offset: bytes from the start of each partition.
    """

    memory: Memory
    dtype: DType
    partition: int
    partitions: int
    offset: Expr
    dims: Dims

    @property
    def sizes(self) -> tuple[int, ...]:
        """Partitions, then free sizes."""
        return (self.partitions, *(size for _, size in self.dims))

    @property
    def free(self) -> int:
        """Elements a partition."""
        return math.prod(size for _, size in self.dims)

    def _at(self, offset: Expr, dims: Dims) -> Access:
        return Access(self.memory, self.dtype, self.partition, self.partitions, offset, dims)

    def rows(self, start: int, count: int) -> Access:
        """A range of partitions."""
        assert 0 <= start and start + count <= self.partitions
        return Access(self.memory, self.dtype, self.partition + start, count, self.offset, self.dims)

    def cut(self, dim: int, start: Index, size: int, step: int = 1) -> Access:
        """`size` places of free dimension `dim` from `start`."""
        stride = self.dims[dim][0]
        dims = (*self.dims[:dim], (stride * step, size), *self.dims[dim + 1:])
        return self._at(self.offset + expr(start) * (stride * self.dtype.byte_size), dims)

    def at(self, dim: int, index: Index) -> Access:
        stride = self.dims[dim][0]
        return self._at(self.offset + expr(index) * (stride * self.dtype.byte_size), self.dims[:dim] + self.dims[dim + 1:])

    def permute(self, order: Sequence[int]) -> Access:
        return self._at(self.offset, tuple([self.dims[d] for d in order]))

    def insert(self, dim: int, size: int = 1) -> Access:
        return self._at(self.offset, (*self.dims[:dim], (0, size), *self.dims[dim:]))

    def reshape(self, *sizes: int) -> Access:
        """Other free sizes over the same walk; an assertion error if strides cannot express it."""
        dims = reshape_dims(self.dims, sizes)
        assert dims is not None, f"cannot reshape {self.dims} to {sizes}"
        return self._at(self.offset, dims)

    def flat(self) -> Access:
        """The fewest free dimensions, at least one."""
        return self._at(self.offset, merge_dims(self.dims) or ((1, 1),))

    def retype(self, dtype: DType) -> Access:
        assert dtype.byte_size == self.dtype.byte_size
        return Access(self.memory, dtype, self.partition, self.partitions, self.offset, self.dims)

    def linear(self) -> View:
        """The same block as a DMA sees it; SBUF only."""
        assert self.memory is Memory.SBUF
        size = self.dtype.byte_size
        dims = ((DMA_PARTITION_STRIDE, self.partitions), *((stride * size, n) for stride, n in self.dims))
        return View(Memory.SBUF, self.dtype, self.offset + self.partition * DMA_PARTITION_STRIDE, dims)


Operand = Access | View


class Op:
    """One engine instruction or DMA trigger on an engine.

    where: 1 or 0; a transfer happens where it is 1, and counts as done where it is 0. awaits: a tile that must have come
    before the engine goes on, though the instruction does not read it.
    """

    __slots__ = ("spec", "engine", "operands", "fields", "debug", "where", "awaits")

    def __init__(self, spec: InstructionSpec, engine: Engine, operands: dict[str, Operand], fields: dict[str, Any],
                 debug: int, where: Expr | None = None, awaits: Access | None = None) -> None:
        self.spec = spec
        self.engine = engine
        self.operands = operands
        self.fields = fields
        self.debug = debug
        self.where = where
        self.awaits = awaits

    @property
    def is_dma(self) -> bool:
        return bool(self.spec.operands) and self.spec.operands[0].dma


@dataclass(slots=True)
class Loop:
    """Run `body` with symbol = 0..count-1. slots: iterations work on tiles of their own, so that transfers into or out of
    these may be under way together. always: its code is the same for every count, a single run included."""

    symbol: Symbol
    count: int
    body: list[Statement] = field(default_factory=list)
    slots: bool = False
    always: bool = False

    @property
    def runs(self) -> int:
        """Iterations that synchronization reckons with: where code is the same for every count, never one alone."""
        return max(self.count, 2) if self.always else self.count


@dataclass(slots=True)
class ScalarLoad:
    """symbol = the one element at `source`, on every engine that uses it."""

    symbol: Symbol
    source: View


@dataclass(slots=True)
class ScalarOp:
    """symbol = a op b, in the sequencers that use it."""

    symbol: Symbol
    op: str
    a: Expr
    b: Expr


Statement = Op | Loop | ScalarLoad | ScalarOp


@dataclass()
class TileProgram:
    """A region's code. arguments: symbols that the caller sets (HBM bases in units of ARGUMENT_UNIT bytes).

    sbuf_bytes: of a partition, psum_banks: what its tiles take, from 0 on.
    """

    name: str
    arguments: tuple[Symbol, ...] = ()
    body: list[Statement] = field(default_factory=list)
    sbuf_bytes: int = 0
    psum_banks: int = 0

    def ops(self) -> Iterator[Op]:
        """All instructions, in program order, loops entered once."""
        stack: list[Iterator[Statement]] = [iter(self.body)]
        while stack:
            for statement in stack[-1]:
                if isinstance(statement, Loop):
                    stack.append(iter(statement.body))
                    break
                if isinstance(statement, Op):
                    yield statement
            else:
                stack.pop()


ARGUMENT_UNIT = 64
"""Bytes that one step of an address argument stands for: registers have 32 bits, HBM has 2^34 bytes."""
