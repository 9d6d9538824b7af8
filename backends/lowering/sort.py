"""Sort by any comparator, and top-k: a bitonic network along the columns of tiles, other dimensions on rows.

Every step of the network compares the first half of a tile with the second and writes each pair side by side (a perfect
shuffle, after Stone, "Parallel processing with the perfect shuffle", 1971), so that all steps are the same instructions and run
in loops. The places that elements come from travel along: they decide ties, which makes the sort stable, and mark the columns
that fill the tile up to a power of two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.bodies import body_reason, body_tiles, run_body
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import loops, row_tiles
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index, expr
from nxcc.backends.tile.program import Access, View
from nxcc.backends.tile.walks import words_of
from nxcc.ir.dtypes import F32, PRED, S8, S16, S32, U8, U16, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.shapes import Shape

CARRIERS = {1: U8, 2: U16, 4: F32}
"""dtypes under which a select moves bits of each width."""

STAGES_TOGETHER = 4
"""Stages that share their code; the shorter ones among them run some steps for nothing."""

BEYOND_SCORES = 100
"""More than any score of `_swaps`."""

WORK_BYTES = 32768
"""Bytes of a partition that are left for the comparator's work on a piece of the columns."""

WHOLE_ROW = 256
"""Columns up to which a row is sorted as it is."""

JOINED = 1024
"""Columns that the k first of all pieces of a row should have together."""


def _columns_max(target: Target, dtypes: Sequence[DType]) -> int:
    """The longest row, a power of two, of which two copies, their places and a row of numbers fit into SBUF."""
    each = 2 * (sum(dtype.byte_size for dtype in dtypes) + U16.byte_size) + S32.byte_size // 2
    return 1 << min(15, ((target.sbuf.usable_bytes - WORK_BYTES) // each).bit_length() - 1)


def _too_long(dtypes: Sequence[DType], size: int, target: Target) -> str | None:
    most = _columns_max(target, dtypes)
    if size > most:
        return f"{size} elements along the sorted dimension do not fit into SBUF, at most {most} do"
    return None


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    shapes = [operand.shape for operand in instruction.operands]
    if not shapes[0].dims:
        return None
    too_long = _too_long([shape.dtype for shape in shapes], shapes[0].dims[instruction.attribute("dimensions")[0]], target)
    return too_long or body_reason(instruction.called[0], target, "comparator")


@rule("sort", unsupported=_unsupported)
def lower_sort(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Rows are sorted on their own, up to 128 at a time."""
    if not operands[0].dims:
        for result, operand in zip(results, operands, strict=True):
            kernel.dma(result, operand)
        return
    dim = instruction.attribute("dimensions")[0]
    order = [*(d for d in range(len(operands[0].dims)) if d != dim), dim]
    views = [view.permute(order).insert(0) for view in (*operands, *results)]
    count = len(operands)
    for cut in row_tiles(kernel, views, 1):
        network = load_rows(kernel, cut[:count])
        network.sort(instruction.called[0])
        for tile, result in zip(network.tiles, cut[count:], strict=True):
            kernel.dma(result, _as_rows(tile.cut(0, 0, network.size), result))


def load_rows(kernel: Kernel, views: Sequence[View]) -> Network:
    """Views [rows.., columns] as the tiles of a network."""
    size = views[0].sizes[-1]
    rows = math.prod(views[0].sizes[:-1])
    network = make_network(kernel, rows, size, [view.dtype for view in views])
    for tile, view in zip(network.tiles, views, strict=True):
        kernel.dma(_as_rows(tile.cut(0, 0, size), view), view)
    return network


def make_network(kernel: Kernel, rows: int, size: int, dtypes: Sequence[DType]) -> Network:
    """A network whose data are yet to be written to the first `size` columns of its tiles."""
    steps = max(size - 1, 1).bit_length()
    columns = 1 << steps
    tiles = [[kernel.sbuf((rows, columns), dtype) for dtype in (*dtypes, U16)] for _ in range(2)]
    if columns > size:
        for tile in tiles[0][:-1]:
            kernel.memset((tile.retype(U8) if tile.dtype is PRED else tile).cut(0, size, columns - size), 0)
    kernel.iota(tiles[0][-1], 0, (1,))
    numbers = kernel.sbuf((rows, columns // 2), S32)
    kernel.iota(numbers, 0, (1,))
    columns_of_one = [kernel.sbuf((rows, 1), dtype) for dtype in (S32, S32, F32)]
    return Network(kernel, size, steps, tiles[0], tiles[1], numbers, *columns_of_one)


def _as_rows(tile: Access, view: View) -> View:
    """A tile [rows, columns] as a DMA sees it, with the view's sizes."""
    shaped = tile.linear().reshape(view.sizes)
    assert shaped is not None, f"a tile {tile.sizes} cannot take {view.sizes}"
    return shaped


@dataclass
class Network:
    """Tiles that are sorted along their columns; the last one holds the place that each element comes from.

    size: columns that hold data, of 2^steps. spare: tiles that take the results of a step. numbers: 0, 1, .. for half of the
    columns. first_step, step: [rows, 1], the number of a step within its stage, negative for those that do nothing; threshold:
    [rows, 1], what a pair's score must exceed.
    """

    kernel: Kernel
    size: int
    steps: int
    current: list[Access]
    spare: list[Access]
    numbers: Access
    first_step: Access
    step: Access
    threshold: Access

    @property
    def tiles(self) -> list[Access]:
        return self.current[:-1]

    @property
    def places(self) -> Access:
        return self.current[-1]

    def sort(self, comparator: Computation) -> None:
        """Stage k makes sorted runs of 2^k columns; all but the last turn every other run around.

        A stage of k steps may run as one of more steps of which the first do nothing, so that stages share their code.
        """
        width = self._width(comparator)
        last = 0
        for top in range((self.steps - 1) % STAGES_TOGETHER or STAGES_TOGETHER, self.steps, STAGES_TOGETHER):
            self.kernel.memset(self.first_step, last + 1 - top)
            with self.kernel.loop(top - last):
                self.kernel.copy(self.step, self.first_step)
                self.kernel.tensor_scalar(self.first_step, self.first_step, "add", 1)
                self._turn(self.steps - top)
                self._steps(comparator, top, True, width)
                if top % 2 == 0:
                    self._turn(0)
            last = top
        self._steps(comparator, self.steps, False, width)

    def _steps(self, comparator: Computation, count: int, turns: bool, width: int) -> None:
        if count > 1:
            with self.kernel.loop(count // 2):
                self._step(comparator, turns, width)
                self._step(comparator, turns, width)
        if count % 2:
            self._step(comparator, turns, width)

    def _width(self, comparator: Computation) -> int:
        """Pairs of columns at a time, a power of two, that leave room for the comparator and for what decides."""
        room = self.kernel.sbuf_free_bytes - 64 * 32
        each = 4 * body_tiles(comparator) + 16
        return min(1 << self.steps - 1, 1 << max(1, room // each).bit_length() - 1)

    def _exchange_tiles(self) -> None:
        self.current, self.spare = self.spare, self.current

    def _turn(self, bits: int) -> None:
        """Shuffle `bits` times without comparing: the columns as a matrix, transposed."""
        high, low = 1 << bits, 1 << self.steps - bits
        for data, out in zip(self.current, self.spare, strict=True):
            for to, of in zip(_plain(out), _plain(data), strict=True):
                self.kernel.copy(_matrix(to, low, high), _matrix(of, high, low).permute((1, 0)))
        self._exchange_tiles()

    def _step(self, comparator: Computation, turns: bool, width: int) -> None:
        """Column i of each half goes to columns 2i and 2i + 1, the smaller first, or the larger where the run is turned."""
        half = 1 << self.steps - 1
        if turns:
            self.kernel.tensor_scalar(self.threshold, self.step, "less", 0, "multiply", BEYOND_SCORES)
        if half > width:
            with self.kernel.loop(half // width) as piece:
                self._piece(comparator, piece * width, width, turns)
        else:
            with self.kernel.scope():
                self._piece(comparator, 0, half, turns)
        if turns:
            self.kernel.tensor_scalar(self.step, self.step, "add", 1)
        self._exchange_tiles()

    def _piece(self, comparator: Computation, start: Index, count: int, turns: bool) -> None:
        half = 1 << self.steps - 1
        first = [tile.cut(0, start, count) for tile in self.current]
        second = [tile.cut(0, expr(start) + half, count) for tile in self.current]
        swap = self._swaps(comparator, first, second, self.numbers.cut(0, start, count) if turns else None)
        for a, b, out in zip(first, second, self.spare, strict=True):
            for number, (x, y) in enumerate(((b, a), (a, b))):
                to = out.cut(0, expr(start) * 2 + number, count, 2)
                for part, one, other in zip(_plain(to), _plain(x), _plain(y), strict=True):
                    self.kernel.select(part, swap, one, other)

    def _swaps(self, comparator: Computation, first: list[Access], second: list[Access], numbers: Access | None) -> Access:
        """1 where a pair must be exchanged. Each part counts for more than all before it: place, comparator, filling."""
        kernel, sizes = self.kernel, first[0].sizes
        before, after = kernel.sbuf(sizes, PRED), kernel.sbuf(sizes, PRED)
        for out, x, y in ((before, first, second), (after, second, first)):
            run_body(kernel, comparator, [tile for pair in zip(x[:-1], y[:-1], strict=True) for tile in pair], [out])
        score, part, swap = kernel.sbuf(sizes, S8), kernel.sbuf(sizes, S8), before.retype(U8)
        kernel.tensor_tensor(score, after.retype(U8), before.retype(U8), "subtract")
        kernel.tensor_tensor(part, first[-1], second[-1], "greater")
        self._joint(score, score, "multiply", 2.0, "add", part)
        if self.size < 1 << self.steps:
            kernel.tensor_scalar(part, second[-1], "greater_equal", self.size)
            self._joint(part, first[-1], "greater_equal", self.size, "subtract", part)
            self._joint(score, part, "multiply", 8.0, "add", score)
        if numbers is None:
            kernel.tensor_scalar(swap, score, "greater", 0)
            return swap
        turned = kernel.sbuf(sizes, S32)
        kernel.tensor_scalar(turned, numbers, "shift_right_logical", self.step, "bitwise_and", 1)
        self._joint(swap, score, "greater", self.threshold, "not_equal", turned)
        return swap

    def _joint(self, out: Access, data: Access, op0: str, scalar: float | Access, op1: str, b: Access) -> None:
        """out = (data op0 scalar) op1 b."""
        column = scalar if isinstance(scalar, Access) else None
        number = 0.0 if isinstance(scalar, Access) else float(scalar)
        self.kernel.emit(isa.vector.SCALAR_TENSOR_TENSOR, fields={"op0": op0, "op1": op1, "immediate0": number},
                         data=data, b=b, out=out, scalar0=column)


def _plain(tile: Access) -> tuple[Access, ...]:
    """The same bits under a dtype that moves through a select and a copy unchanged; 64-bit elements word by word."""
    parts = words_of(tile) if tile.dtype.bits > 32 else (tile,)
    return tuple(part.retype(CARRIERS[part.dtype.byte_size]) for part in parts)


def _matrix(tile: Access, rows: int, columns: int) -> Access:
    """The columns of a tile, in one stride, as a matrix."""
    ((stride, _),) = tile.dims
    return replace(tile, dims=((stride * columns, rows), (stride, columns)))


# ---- top-k -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """How the k first of a row are found. parts: pieces of `columns` that a row is cut into, one a partition; their k first are
    then sorted together."""

    columns: int
    parts: int


def _plan(size: int, k: int, rows: int, dtype: DType, target: Target) -> _Plan | None:
    """None if rows are too long."""
    most = _columns_max(target, [dtype])
    if size <= most and (size <= WHOLE_ROW or rows > target.partitions // 4):
        return _Plan(size, 1)
    columns = min(_power(max(k, -(-size // target.partitions), -(-size * k // JOINED))), most // 2)
    parts = -(-size // columns)
    fits = k <= columns and parts <= target.partitions and parts * k <= _columns_max(target, [dtype, S32]) // 2
    return _Plan(columns, parts) if fits else None if size > most else _Plan(size, 1)


def _power(number: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << (number - 1).bit_length()


def _topk_unsupported(instruction: Instruction, target: Target) -> str | None:
    shape, k = instruction.operands[0].shape, instruction.attribute("k")
    if _plan(shape.dims[-1], k, math.prod(shape.dims[:-1]), shape.dtype, target) is None:
        return f"the {k} first of {shape.dims[-1]} elements do not fit into SBUF"
    return body_reason(_comparator(shape.dtype, instruction.attribute("largest"), 1), target, "comparator")


@rule("topk", unsupported=_topk_unsupported)
def lower_topk(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Values and indices of the k first elements in total order, the lower index first among equal ones."""
    data, k, largest = operands[0], instruction.attribute("k"), instruction.attribute("largest")
    plan = _plan(data.sizes[-1], k, math.prod(data.sizes[:-1]), data.dtype, kernel.target)
    assert plan is not None
    views = [view.insert(0) for view in (data, *results)]
    for outer in loops(kernel, views, len(views[0].dims) - 2):
        for start, count in kernel.tiles(outer[0].sizes[0], kernel.target.partitions // plan.parts):
            source, values, indices = (view.cut(0, start, count) for view in outer)
            if plan.parts == 1:
                network = load_rows(kernel, [source])
                network.sort(_comparator(data.dtype, largest, 1))
                places = _as_words(kernel, network.places.cut(0, 0, k))
            else:
                network = _first_of_parts(kernel, source, k, largest, plan)
                places = network.tiles[1].cut(0, 0, k)
            kernel.dma(values, network.tiles[0].cut(0, 0, k))
            kernel.dma(indices, places)


def _as_words(kernel: Kernel, places: Access) -> Access:
    words = kernel.sbuf(places.sizes, S32)
    kernel.copy(words, places)
    return words


def _first_of_parts(kernel: Kernel, source: View, k: int, largest: bool, plan: _Plan) -> Network:
    """The k first of each piece of a row, sorted together: elements and their places in the row."""
    rows, size = source.sizes
    dtype = source.dtype
    joined = make_network(kernel, rows, plan.parts * k, [dtype, S32])
    with kernel.scope():
        network = make_network(kernel, rows * plan.parts, plan.columns, [dtype])
        tile = network.tiles[0]
        pieces = _as_rows(tile, View(tile.memory, dtype, source.address, ((0, rows), (0, plan.parts), (0, plan.columns))))
        whole, rest = divmod(size, plan.columns)
        if rest:
            kernel.memset(*_last(tile, largest))
            kernel.dma(pieces.at(1, whole).cut(1, 0, rest), source.cut(1, whole * plan.columns, rest))
        split = source.cut(1, 0, whole * plan.columns).reshape((rows, whole, plan.columns))
        assert split is not None
        kernel.dma(pieces.cut(1, 0, whole), split)
        network.sort(_comparator(dtype, largest, 1))
        for out, found in zip(joined.tiles, (network.tiles[0], _as_words(kernel, network.places.cut(0, 0, k))), strict=True):
            shaped = found.cut(0, 0, k).linear().reshape((rows, plan.parts, k))
            assert shaped is not None
            kernel.dma(out.cut(0, 0, plan.parts * k).reshape(plan.parts, k), shaped)
        starts = kernel.sbuf((rows, plan.parts, k), S32)
        kernel.iota(starts, 0, (plan.columns, 0))
        places = joined.tiles[1].cut(0, 0, plan.parts * k)
        kernel.tensor_tensor(places, places, starts.flat(), "add", Engine.GPSIMD)
    joined.sort(_comparator(dtype, largest, 2))
    return joined


def _last(tile: Access, largest: bool) -> tuple[Access, int]:
    """A tile and the bits, as a number of its dtype, of what comes last in total order."""
    dtype = tile.dtype
    if dtype.is_float:
        word = {1: S8, 2: S16, 4: S32}[dtype.byte_size]
        return tile.retype(word), -1 if largest else 2 ** (word.bits - 1) - 1
    tile = tile.retype(U8) if dtype is PRED else tile
    least = -(2 ** (dtype.bits - 1)) if dtype.is_signed else 0
    return tile, least if largest else 2 ** tile.dtype.bits - 1 + least


@cache
def _comparator(dtype: DType, largest: bool, operands: int) -> Computation:
    """Whether the first operand's element comes first; the other operands do not count."""
    made = Computation("first_of_all" if largest else "last_of_all")
    builder = Builder(made)
    parameters = [builder.parameter(n, Shape(dtype if n < 2 else S32)) for n in range(2 * operands)]
    made.root = builder.compare(parameters[0], parameters[1], "GT" if largest else "LT", "TOTALORDER" if dtype.is_float else "")
    return made
