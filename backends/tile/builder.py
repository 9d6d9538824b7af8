"""Writes tile programs: allocates tiles, emits instructions, cuts loops. Lowering rules talk only to this."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from nxcc.backends import berths
from nxcc.backends.berths import Berth, Room
from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine, InstructionSpec, Memory, Program
from nxcc.backends.target import Target
from nxcc.backends.tile.casts import cast_on_chip, is_reachable
from nxcc.backends.tile.expressions import Expr, Index, Symbol, expr
from nxcc.backends.tile.program import Access, Loop, Op, Operand, ScalarLoad, ScalarOp, Statement, TileProgram, View, contiguous
from nxcc.backends.tile.runs import cover
from nxcc.backends.tile.turning import column_pieces, turn, turn_bits
from nxcc.backends.tile.walks import joint_dims, tile_of, words_of
from nxcc.ir.diagnostics import OUT_OF_MEMORY, UNSUPPORTED, CompileError
from nxcc.ir.dtypes import F32, DType
from nxcc.ir.facts import dataclass

INT32_MAX = 2**31 - 1

RUN_BYTES = 32768
"""Bytes a partition of the runs that a transfer moves for elements that lie apart, at most."""

RUN_SHARE = 3
"""The free memory is so many times as large, at least."""


@dataclass(frozen=True, slots=True)
class Copies:
    """How many tiles rotate in loops: inner ones stream through a tile of work, outer ones go from tile to tile."""

    inner: int = 1
    outer: int = 1

    @property
    def rotates(self) -> bool:
        return self.inner > 1


SINGLE = Copies()


Clock = Callable[[Program, Target], int]
"""Ticks that a program takes on a target: the timing simulator, which nothing here knows."""


class Findings(Protocol):
    """What searches have found, by a text that says all that the answer depends on beside the compiler; a dict will do."""

    def get(self, key: str, /) -> tuple[int, ...] | None: ...

    def __setitem__(self, key: str, found: tuple[int, ...], /) -> None: ...


class Kernel:
    """Builder of one tile program.

    Tiles are allocated upwards and given back when the block (`with kernel.scope()`, or a loop) that made them ends.
    `debug` is the index given to the instructions that follow. tf32: products of f32 run at full rate, on 10 mantissa bits.
    exact_transposes: no NaN and no infinity goes through a transpose, which is a product and would spread it; see `turning.py`.
    work: seconds that instructions written so far stream through Vector and Scalar, to choose between the two.
    banks: temporaries in PSUM that nobody has; who takes the first gives it back as the last.
    alone: whether no other region runs beside this one.
    level: how cuts of products are found: 1 by a rule, 2 by search over the closed form, 3 on the clock as well, in so many
    processes as `jobs` says, unless `findings` know the answer. choices: which option of what the rule asks for (see `choose`).
    """

    def __init__(self, name: str, target: Target, copies: Copies = SINGLE, room: Room | None = None,
                 whole: Room | None = None) -> None:
        """room: what of SBUF and PSUM the program may use, whole: the most that any may; all of it unless given."""
        self.target = target
        self.whole = whole or berths.room(target, Berth.WHOLE)
        self.room = room or self.whole
        self.copies = copies
        self.tf32 = False
        self.exact_transposes = False
        self.alone = False
        self.level = 2
        self.clock: Clock | None = None
        self.jobs = 1
        self.findings: Findings = {}
        self.choices: Mapping[str, int] = {}
        self.asked: dict[str, int] = {}
        self.work = {Engine.VECTOR: 0.0, Engine.SCALAR: 0.0}
        self.banks: list[Access] = []
        self.program = TileProgram(name)
        self.debug = -1
        self._where: Expr | None = None
        self._loading = Engine.SYNC
        self._block: list[Statement] = self.program.body
        self._sbuf = 0
        self._psum = 0
        self._names = 0

    def choose(self, name: str, *options: int) -> int:
        """One of some numbers, the first unless a search says otherwise; equal ones count once."""
        different = list(dict.fromkeys(options))
        self.asked.setdefault(name, len(different))
        return different[min(self.choices.get(name, 0), len(different) - 1)]

    # ---- memory -------------------------------------------------------------------------------------------------

    def sbuf(self, sizes: Sequence[int], dtype: DType) -> Access:
        """A tile of SBUF: sizes[0] partitions, row-major free dimensions."""
        bytes_ = self._align(math.prod(sizes[1:]) * dtype.byte_size, self.target.sbuf.align_bytes)
        if self._sbuf + bytes_ > self.room.sbuf_bytes:
            raise CompileError(OUT_OF_MEMORY, f"{self.program.name} needs more than "
                               f"{self.room.sbuf_bytes} bytes of SBUF a partition",
                               why=f"{self._sbuf} in use, {bytes_} more asked for")
        offset = expr(self._sbuf)
        self._sbuf += bytes_
        self.program.sbuf_bytes = max(self.program.sbuf_bytes, self._sbuf)
        return Access(Memory.SBUF, dtype, 0, sizes[0], offset, contiguous(sizes[1:]))

    def sbuf_at_end(self, sizes: Sequence[int], dtype: DType) -> Access:
        """As `sbuf`, at the end of the room, which is smaller from here on."""
        bytes_ = self._align(math.prod(sizes[1:]) * dtype.byte_size, self.target.sbuf.align_bytes)
        assert bytes_ <= self.sbuf_free_bytes, f"{bytes_} of {self.sbuf_free_bytes} bytes"
        self.program.sbuf_bytes = max(self.program.sbuf_bytes, self.room.sbuf_bytes)
        start = (self.room.sbuf_bytes - bytes_) // self.target.sbuf.align_bytes * self.target.sbuf.align_bytes
        self.room = replace(self.room, sbuf_bytes=start)
        return Access(Memory.SBUF, dtype, 0, sizes[0], expr(start), contiguous(sizes[1:]))

    def psum(self, sizes: Sequence[int], dtype: DType = F32) -> Access:
        """A tile of PSUM, rounded up to whole banks."""
        bank = self.target.psum.bank_bytes
        bytes_ = self._align(math.prod(sizes[1:]) * dtype.byte_size, bank)
        if self._psum + bytes_ > bank * self.room.psum_banks:
            raise CompileError(OUT_OF_MEMORY, f"{self.program.name} needs more than {self.room.psum_banks} PSUM banks")
        offset = self._psum
        self._psum += bytes_
        self.program.psum_banks = max(self.program.psum_banks, self._psum // bank)
        return Access(Memory.PSUM, dtype, 0, sizes[0], expr(offset), contiguous(sizes[1:]))

    def lend_banks(self, count: int) -> None:
        """Banks of PSUM that no product wants become temporaries of elementwise work."""
        sizes = self.target.partitions, self.target.tensor.moving_max
        self.banks = [self.psum(sizes) for _ in range(min(count, self.psum_free_banks))]

    @property
    def sbuf_free_bytes(self) -> int:
        """Bytes a partition that are still free here."""
        return self.room.sbuf_bytes - self._sbuf

    @property
    def psum_free_banks(self) -> int:
        """Banks of PSUM that are still free here."""
        return self.room.psum_banks - self._psum // self.target.psum.bank_bytes

    @staticmethod
    def _align(value: int, unit: int) -> int:
        return -(-value // unit) * unit

    # ---- structure ----------------------------------------------------------------------------------------------

    def symbol(self, name: str, kind: str, low: int, high: int) -> Symbol:
        self._names += 1
        return Symbol(f"{name}{self._names}", kind, low, high)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Tiles made inside are given back at the end."""
        sbuf, psum = self._sbuf, self._psum
        yield
        self._sbuf, self._psum = sbuf, psum

    @contextmanager
    def psum_scope(self) -> Iterator[None]:
        """Tiles in PSUM made inside are given back at the end; those in SBUF stay."""
        psum = self._psum
        yield
        self._psum = psum

    @contextmanager
    def loop(self, count: int, slots: bool = False, always: bool = False) -> Iterator[Expr]:
        """A loop of `count` iterations; yields its variable. slots, always: see Loop."""
        statement = Loop(self.symbol("i", "loop", 0, count - 1), count, slots=slots, always=always)
        self._block.append(statement)
        outer, self._block = self._block, statement.body
        with self.scope():
            yield Expr(0, ((statement.symbol, 1),))
        self._block = outer

    def tiles(self, total: int, step: int, *, outer: bool = False, turns: int = 1) -> Iterator[tuple[Expr, int]]:
        """Cut 0..total into pieces of `step`: yields (start, size), so that the body is written once.

        The body is emitted a bounded number of times, whatever `total` is: once or, where buffers are to rotate, `copies`
        times inside a loop over the full pieces, and again for what is left. Copies in one loop have tiles of their own, so
        that the next piece is loaded while this one is worked on. outer: a loop around other loops, see Copies. turns: pieces
        that the caller gives tiles of their own anyway, in turns.
        """
        copies = max(self.copies.outer if outer else self.copies.inner, turns)
        full, rest = divmod(total, step)
        rounds, single = divmod(full, copies)
        if rounds > 1:
            with self.loop(rounds) as index:
                for copy in range(copies):
                    yield index * (step * copies) + copy * step, step
        else:
            single = full
        pieces = [(expr(piece * step), step) for piece in range(full - single, full)]
        pieces += [(expr(full * step), rest)] * bool(rest)
        for first in range(0, len(pieces), copies):
            with self.scope():
                yield from pieces[first:first + copies]

    @contextmanager
    def where(self, condition: Expr) -> Iterator[None]:
        """Transfers written inside happen where the scalar is 1, not where it is 0; all else happens anyway."""
        outer, self._where = self._where, condition if self._where is None else self.scalar("and", self._where, condition, 0, 1)
        yield
        self._where = outer

    @contextmanager
    def loading(self, engine: Engine) -> Iterator[None]:
        """Transfers into the chip written inside are this engine's, unless they say otherwise."""
        outer, self._loading = self._loading, engine
        yield
        self._loading = outer

    # ---- run-time scalars ---------------------------------------------------------------------------------------

    def load_scalar(self, source: View, low: int = -INT32_MAX - 1, high: int = INT32_MAX) -> Expr:
        """A register with the one 32-bit (or narrower) integer at `source`; low and high are what is known of its range."""
        symbol = self.symbol("s", "scalar", low, high)
        self._block.append(ScalarLoad(symbol, source))
        return Expr(0, ((symbol, 1),))

    def scalar(self, op: str, a: Index, b: Index, low: int, high: int) -> Expr:
        """A register with a op b (ops of the sequencer's ALU); low and high bound the result."""
        symbol = self.symbol("s", "scalar", low, high)
        self._block.append(ScalarOp(symbol, op, expr(a), expr(b)))
        return Expr(0, ((symbol, 1),))

    def clamp_scalar(self, value: Expr, low: int, high: int) -> Expr:
        """min(max(value, low), high) in the sequencers."""
        raised = self.scalar("maximum", value, low, low, max(low, value.bounds()[1]))
        return self.scalar("minimum", raised, high, low, high)

    # ---- instructions -------------------------------------------------------------------------------------------

    def emit(self, spec: InstructionSpec, engine: Engine | None = None, fields: dict[str, Any] | None = None,
             **operands: Operand | None) -> None:
        """Append an instruction; the engine is the spec's first unless given."""
        chosen = engine or spec.engines[0]
        assert chosen in spec.engines, f"{spec.name} does not run on {chosen}"
        if chosen not in self.target.engines:
            raise CompileError(UNSUPPORTED, f"{self.program.name} would run on the {chosen.name.lower()} engine",
                               why=f"{self.target.name} has none")
        present = {name: operand for name, operand in operands.items() if operand is not None}
        first = present.get(spec.operands[0].name) if spec.operands else None
        if chosen in self.work and isinstance(first, Access):
            self.work[chosen] += first.free / self.target.engines[chosen].clock_hz
        is_dma = bool(spec.operands) and spec.operands[0].dma
        self._block.append(Op(spec, chosen, present, fields or {}, self.debug, self._where if is_dma else None))

    def hold(self, tile: Access, engine: Engine) -> None:
        """Let an engine start nothing that is written from here on until what is on its way to a tile has come."""
        self._block.append(Op(isa.control.NOP, engine, {}, {}, self.debug, awaits=tile))

    def dma(self, destination: Access | View, source: Access | View, *, accumulate: str = "none",
            engine: Engine | None = None) -> None:
        """destination = source, with cast; both have the same sizes. Loops over what a descriptor cannot express.

        Where tiles rotate, results leave by another queue than the Sync engine's, which could not fetch the next piece behind
        a store that waits for its data. Where transfers cannot cast, Vector does.
        """
        if engine is None:
            stores = destination.memory is Memory.HBM and source.memory is Memory.SBUF
            engine = self.target.storing_engine if stores and self.copies.rotates else self._loading
        to = destination.linear() if isinstance(destination, Access) else destination
        of = source.linear() if isinstance(source, Access) else source
        assert to.sizes == of.sizes, f"DMA of {of.sizes} into {to.sizes}"
        if to.elements == 0:
            return
        if to.dtype is not of.dtype and not self.target.features.dma_cast:
            cast_on_chip(self, to, of, accumulate, engine)
            return
        if self.copies.rotates and accumulate == "none" and self._where is None and self._moved_in_runs(to, of, engine):
            return
        sizes, to_strides, of_strides = joint_dims(to, of)
        together = to_strides[-1] == to.dtype.byte_size and of_strides[-1] == of.dtype.byte_size
        if len(sizes) > (self.target.dma.dims_max if together else self.target.dma.loops_max):
            outer = min(range(len(sizes) - 1), key=lambda d: sizes[d])
            with self.loop(sizes[outer]) as index:
                self.dma(View(to.memory, to.dtype, to.address, tuple(zip(to_strides, sizes, strict=True))).at(outer, index),
                         View(of.memory, of.dtype, of.address, tuple(zip(of_strides, sizes, strict=True))).at(outer, index),
                         accumulate=accumulate, engine=engine)
            return
        to = View(to.memory, to.dtype, to.address, tuple(zip(to_strides, sizes, strict=True)))
        of = View(of.memory, of.dtype, of.address, tuple(zip(of_strides, sizes, strict=True)))
        self.emit(isa.dma.DMA_COPY, engine, {"sizes": sizes, "accumulate": accumulate}, source=of, destination=to)

    def _moved_in_runs(self, to: View, of: View, engine: Engine) -> bool:
        """Whether a transfer was written that moves longer runs, with an engine that picks or orders their elements."""
        loads = to.memory is Memory.SBUF
        near, far = (to, of) if loads else (of, to)
        least = self.target.dma.descriptor_bytes_min
        found = cover(far, near, least, dense=not loads)
        if found is None or to.dtype is not of.dtype and not (to.dtype.is_float and of.dtype.is_float):
            return False
        place, order = tile_of(near)
        if not is_reachable(self, place):
            return False
        size, room = found.size(far) * far.dtype.byte_size, min(RUN_BYTES, self.sbuf_free_bytes // RUN_SHARE)
        if size > room:
            return self._moved_in_parts(to, of, engine, max(found.inner, key=lambda d: abs(far.dims[d][0])), size, room)
        runs = found.runs(far)
        staged = self.sbuf((place.partitions, *(far.dims[d][1] for d in found.outer), found.span), far.dtype)
        lines = staged.linear().reshape(runs.sizes)
        assert lines is not None
        steps = {d: staged.dims[number][0] for number, d in enumerate(found.outer)}
        steps |= {d: far.dims[d][0] // far.dtype.byte_size for d in found.inner}
        free = [d for d in order if d in steps]
        picked = replace(staged, offset=staged.offset + found.before, dims=tuple((steps[d], far.dims[d][1]) for d in free))
        if loads:
            self.dma(lines, runs, engine=engine)
            self._copy_by_idler(place, picked)
        else:
            self._copy_by_idler(picked, place)
            self.dma(runs, lines, engine=engine)
        return True

    def _moved_in_parts(self, to: View, of: View, engine: Engine, dim: int, size: int, room: int) -> bool:
        """As `_moved_in_runs`, part by part of a dimension, since all runs together take more room than there is."""
        total = to.dims[dim][1]
        step = total * room // (size * self.copies.inner)
        if not step:
            return False
        for start, count in self.tiles(total, step):
            self.dma(to.cut(dim, start, count), of.cut(dim, start, count), engine=engine)
        return True

    def _copy_by_idler(self, out: Access, data: Access) -> None:
        scalar = out.dtype.is_float and data.dtype.is_float and self.scalar_is_idler(out.free)
        self.copy(out, data, Engine.SCALAR if scalar else Engine.VECTOR)

    def matmul(self, out: Access, stationary: Access, moving: Access, accumulate: bool | Expr = False,
               exact: bool = False) -> None:
        """out[m, n] (+)= sum_k stationary[k, m] * moving[k, n]; more m than the array has columns take a pass each.

        accumulate: an expression means wherever it is not 0. exact: f32 operands are not rounded, whatever `tf32` says.
        """
        fields: dict[str, Any] = {"accumulate": True, "tf32": self.tf32 and stationary.dtype is F32 and not exact}
        if not isinstance(accumulate, Expr):
            fields["accumulate"] = accumulate
        elif accumulate.is_constant:
            fields["accumulate"] = accumulate.constant != 0
        else:
            fields["turn"] = accumulate
        most = self.target.tensor.stationary_max
        if stationary.free <= most:
            self.emit(isa.pe.MATMUL, fields=fields, stationary=stationary, moving=moving, out=out)
            return
        with self.scope():
            for start, piece in column_pieces(self, stationary, most):
                self.emit(isa.pe.MATMUL, fields=dict(fields), stationary=piece, moving=moving, out=out.rows(start, piece.free))

    def pe_transpose(self, out: Access, data: Access) -> None:
        """out[f, p] = data[p, f]; more f than the array has columns take a pass each."""
        most = self.target.tensor.transpose_max
        write = turn_bits if self.exact_transposes else turn
        if data.free <= most:
            write(self, out, data)
            return
        with self.scope():
            for start, piece in column_pieces(self, data, most):
                write(self, out.rows(start, piece.free), piece)

    def activation(self, out: Access, data: Access, function: str = "copy", *, scale: float | Access = 1.0,
                   bias: Access | None = None, sum: Access | None = None) -> None:
        """out = function(data * scale + bias); sum: [P, 1] gets the sum of the results."""
        tensor = scale if isinstance(scale, Access) else None
        self.emit(isa.scalar.ACTIVATION, fields={"function": function, "scale": 1.0 if isinstance(scale, Access) else scale},
                  data=data, out=out, scale_tensor=tensor, bias=bias, sum=sum)

    def tensor_tensor(self, out: Access, a: Access, b: Access, op: str, engine: Engine = Engine.VECTOR) -> None:
        self.emit(isa.vector.TENSOR_TENSOR, engine, {"op": op}, a=a, b=b, out=out)

    def tensor_scalar(self, out: Access, data: Access, op0: str, scalar0: float | Access, op1: str = "bypass",
                      scalar1: float | Access = 0.0, *, reverse0: bool = False, reverse1: bool = False,
                      engine: Engine = Engine.VECTOR) -> None:
        """out = (data op0 scalar0) op1 scalar1; a scalar is a number or one value a partition."""
        fields: dict[str, Any] = {"op0": op0, "op1": op1, "reverse0": reverse0, "reverse1": reverse1,
                                  "immediate0": 0.0 if isinstance(scalar0, Access) else float(scalar0),
                                  "immediate1": 0.0 if isinstance(scalar1, Access) else float(scalar1)}
        self.emit(isa.vector.TENSOR_SCALAR, engine, fields, data=data, out=out,
                  scalar0=scalar0 if isinstance(scalar0, Access) else None,
                  scalar1=scalar1 if isinstance(scalar1, Access) else None)

    def tensor_reduce(self, out: Access, data: Access, op: str, axes: int = 1, *, negate: bool = False,
                      engine: Engine = Engine.VECTOR) -> None:
        self.emit(isa.vector.TENSOR_REDUCE, engine, {"op": op, "axes": axes, "negate": negate}, data=data, out=out)

    def scalar_is_idler(self, columns: int, habit: float = 0.0) -> bool:
        """Whether Scalar would be done earlier than Vector with so many more columns, or at most `habit` seconds later."""
        vector, scalar = (self.work[e] + columns / self.target.engines[e].clock_hz for e in (Engine.VECTOR, Engine.SCALAR))
        return scalar < vector + habit

    def copy(self, out: Access, data: Access, engine: Engine = Engine.VECTOR) -> None:
        """out = data with cast, on Vector, GpSimd or Scalar; 64-bit elements are moved word by word. Loops over what an access
        cannot express."""
        if max(len(out.dims), len(data.dims)) > self.target.pattern.dims_max:
            for to, of in self._shallow(out, data):
                self.copy(to, of, engine)
        elif out.dtype.bits > 32:
            for to, of in zip(words_of(out), words_of(data), strict=True):
                self.copy(to, of, engine)
        elif engine is Engine.SCALAR:
            self.activation(out, data)
        else:
            self.emit(isa.vector.TENSOR_COPY, engine, data=data, out=out)

    def _shallow(self, a: Access, b: Access) -> Iterator[tuple[Access, Access]]:
        """Tiles of equal sizes with no more free dimensions than an instruction has: loops go over the outermost ones."""
        assert a.sizes == b.sizes, f"{a.sizes} beside {b.sizes}"
        sizes, *strides = joint_dims(a, b)
        a, b = (replace(tile, dims=tuple(zip(own, sizes, strict=True))) for tile, own in zip((a, b), strides, strict=True))
        if len(sizes) <= self.target.pattern.dims_max:
            yield a, b
            return
        with self.loop(sizes[0]) as index:
            yield from self._shallow(a.at(0, index), b.at(0, index))

    def bn_stats(self, out: Access, data: Access) -> None:
        """out [P, 6] = count, mean and variance * count of the even elements, then of the odd ones."""
        self.emit(isa.vector.BN_STATS, data=data, out=out)

    def bn_aggr(self, out: Access, data: Access) -> None:
        """out [P, 2] = mean and variance of what triples (count, mean, variance * count) describe."""
        self.emit(isa.vector.BN_AGGR, data=data, out=out)

    def copy_predicated(self, out: Access, predicate: Access, data: Access) -> None:
        """out = data where the predicate is not 0; 64-bit elements word by word."""
        if out.dtype.bits > 32:
            for to, of in zip(words_of(out), words_of(data), strict=True):
                self.copy_predicated(to, predicate, of)
            return
        self.emit(isa.vector.COPY_PREDICATED, data=data, predicate=predicate, out=out)

    def select(self, out: Access, predicate: Access, a: Access, b: Access | float) -> None:
        """out = predicate ? a : b."""
        self.emit(isa.vector.SELECT, fields={"immediate": 0.0 if isinstance(b, Access) else float(b)},
                  predicate=predicate, a=a, b=b if isinstance(b, Access) else None, out=out)

    def memset(self, out: Access, value: float, engine: Engine = Engine.VECTOR) -> None:
        """out = value; a 64-bit integer word by word. Loops over what an access cannot express."""
        if len(out.dims) > self.target.pattern.dims_max:
            for to, _ in self._shallow(out, out):
                self.memset(to, value, engine)
            return
        if out.dtype.bits > 32:
            for place, word in enumerate(words_of(out)):
                self.memset(word, int(value) >> 32 * place & 0xFFFFFFFF, engine)
            return
        self.emit(isa.vector.MEMSET, engine, {"value": float(value)}, out=out)

    def reciprocal(self, out: Access, data: Access) -> None:
        self.emit(isa.vector.RECIPROCAL, data=data, out=out)

    def iota(self, out: Access, base: Index, steps: Sequence[int], channel_multiplier: int = 0) -> None:
        """out[p, i..] = base + p * channel_multiplier + sum i_k * steps[k]."""
        self.emit(isa.gpsimd.IOTA, fields={"base": expr(base), "channel_multiplier": channel_multiplier, "steps": tuple(steps)},
                  out=out)
