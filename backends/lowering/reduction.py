"""Reductions of any number of arrays by any combiner: kept dimensions are rows, reduced ones columns.

Where the dimension that lies together in memory is kept, its elements are columns too (`keep` many, next to each other), so
that transfers stay long; reduced elements are groups of columns then. One operator of the engines folds a tile at once; any
other combiner folds groups in pairs, so that a tile of n groups takes log2(n) steps; one that is more than an operator folds
neighbours, since which of two it takes may depend on their order: the first NaN. Where few rows are kept, the reduced elements
are first spread over idle partitions. A combiner that is not associative takes one element after another, as XLA does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.bodies import body_reason, body_tiles, run_body, words_in
from nxcc.backends.lowering.elementwise import tile_width
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.tiling import join, load, memory_order, row_tiles, store
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32, PRED, S32, U8, DType
from nxcc.ir.hlo.associativity import takes_any_grouping
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.wide_bodies import widened, widened_dtype

COMBINERS = {"add": "add", "multiply": "multiply", "maximum": "maximum", "minimum": "minimum", "and": "bitwise_and",
             "or": "bitwise_or", "xor": "bitwise_xor"}
"""HLO operator of a combiner -> reduction operator of the engines."""

PRED_COMBINERS = {"add": "bitwise_or", "maximum": "bitwise_or", "multiply": "bitwise_and", "minimum": "bitwise_and"}

SPREAD_MIN = 256
"""Elements a row from which spreading the reduced ones over idle partitions pays for the second step."""

RUN_BYTES = 64
"""Bytes in memory from which a run of kept elements stays together."""

KEEP_MAX = 1024
"""Kept columns of a tile at most."""

PIECES = 8
"""Pieces that what a partition folds comes in, so that transfers and engines work at the same time."""

PIECE_LEAST = 2048
"""Elements of a partition in a piece, at least: fewer are mostly latency."""

SHARE_COLUMNS = 64
"""Columns of the runs in which partial results travel between partitions, at least."""


def combiner(computation: Computation) -> str | None:
    """The engines' operator for a combiner of two parameters, or None if it is anything else."""
    root = computation.root
    if len(computation.parameters) != 2 or root.opcode not in COMBINERS:
        return None
    if {o.opcode for o in root.operands} != {"parameter"} or root.operands[0] is root.operands[1]:
        return None
    if root.shape.dtype is PRED:
        return PRED_COMBINERS.get(root.opcode, COMBINERS[root.opcode])
    return COMBINERS[root.opcode]


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    return body_reason(instruction.called[0], target, "combiner")


def engine_for(dtype: DType) -> Engine:
    """GpSimd computes 32-bit integers natively; everything else is exact, or float, on Vector."""
    return Engine.GPSIMD if dtype.is_integer and dtype.bits == 32 else Engine.VECTOR


def _is_native(target: Target, op: str, dtype: DType) -> bool:
    """Whether one instruction of the target's engines folds elements of this dtype by an operator, exactly as HLO does."""
    return dtype.bits <= 32 and engine_for(accumulator(dtype, op)) in target.engines


def accumulator(dtype: DType, op: str) -> DType:
    """The dtype of partial results: narrow floats in f32, narrow integers that may wrap in 32 bits, pred as its byte."""
    if dtype.is_float:
        return F32
    if dtype is PRED:
        return U8
    return S32 if op in ("add", "multiply") and dtype.bits < 32 else dtype


def low_bits(tile: Access, dtype: DType) -> Access:
    """Integers of 32 bits as narrower ones: their low bytes, which lie first."""
    ratio = tile.dtype.byte_size // dtype.byte_size
    return replace(tile, dtype=dtype, dims=tuple((stride * ratio, size) for stride, size in tile.dims))


def emit_row_reduce(kernel: Kernel, instruction: Instruction, data: Access, out: Access) -> None:
    """out[r] = init combined with data[r, :]; one array, a combiner of one operator, a constant initial value."""
    op = combiner(instruction.called[0])
    assert op is not None
    initial = instruction.operands[1].attributes["literal"].splat_value
    plain = _Plain(kernel, op, instruction.shape.dtype)
    wide = plain.accumulators[0]
    source = (data.retype(U8) if data.dtype is PRED else data).flat()
    if wide.is_integer and source.dtype.bits < wide.bits:
        cast = kernel.sbuf((source.partitions, source.free), wide)
        kernel.copy(cast, source)
        source = cast
    (sums,) = plain.fold([source])
    kernel.tensor_scalar(sums, sums, op, float(initial), engine=engine_for(wide))
    kernel.copy(out.retype(U8) if out.dtype is PRED else out, plain.result(sums))


class _Plain:
    """One array folded by one operator of the engines.

    loads: dtypes of the tiles that data is brought into. accumulators: dtypes of partial results, [rows, 1] each.
    """

    def __init__(self, kernel: Kernel, op: str, dtype: DType, given: DType | None = None) -> None:
        """dtype: of the result; given: of the data, where it is another float."""
        self.kernel = kernel
        self.op = op
        self.dtype = dtype
        wide = accumulator(dtype, op)
        self.accumulators = (wide,)
        self.loads = (wide if wide.is_integer else given or dtype,)
        self.width = tile_width(kernel, 4) * 4

    def fold(self, tiles: Sequence[Access], keep: int = 1) -> list[Access]:
        """[rows, n * keep] -> [rows, keep]."""
        wide = self.accumulators[0]
        if keep > 1 and tiles[0].dtype is wide and len(tiles[0].flat().dims) == 1:
            return [self._halved(tiles[0].flat(), keep)]
        out = self.kernel.sbuf((tiles[0].partitions, keep), wide)
        data = tiles[0].flat() if keep == 1 else tiles[0].reshape(tiles[0].free // keep, keep).permute((1, 0))
        self.kernel.tensor_reduce(out, data, self.op, len(data.dims) if keep == 1 else 1, engine=engine_for(wide))
        return [out]

    def _halved(self, tile: Access, keep: int) -> Access:
        """[rows, n * keep] folded in place, half upon half: runs of memory, where a reduction would read far strides."""
        count = tile.free // keep
        while count > 1:
            half = count // 2
            first, second = tile.cut(0, 0, half * keep), tile.cut(0, (count - half) * keep, half * keep)
            self.kernel.tensor_tensor(first, first, second, self.op, engine_for(self.accumulators[0]))
            count -= half
        return tile.cut(0, 0, keep)

    def merge(self, sums: Sequence[Access], parts: Sequence[Access]) -> None:
        """sums = sums op parts."""
        self.kernel.tensor_tensor(sums[0], sums[0], parts[0], self.op, engine_for(self.accumulators[0]))

    def result(self, sums: Access, _number: int = 0) -> Access:
        """Partial results as elements of the array's dtype."""
        wide = self.accumulators[0]
        dtype = U8 if self.dtype is PRED else self.dtype
        if wide is dtype:
            return sums
        if wide.is_integer:
            return low_bits(sums, dtype)
        cast = self.kernel.sbuf(sums.sizes, dtype)
        self.kernel.copy(cast, sums)
        return cast


class _General:
    """Any number of arrays folded by a computation of scalars; see `_Plain`. Floats narrower than f32 are f32 until the end."""

    def __init__(self, kernel: Kernel, computation: Computation, dtypes: Sequence[DType], results: Sequence[DType]) -> None:
        self.kernel = kernel
        self.results = tuple(results)
        wide = widened(computation)
        if wide is not None:
            computation, dtypes, results = wide, [*map(widened_dtype, dtypes)], [*map(widened_dtype, results)]
        self.computation = computation
        self.loads = tuple(dtypes)
        self.accumulators = tuple(results)
        self.is_ordered = combiner(computation) is None
        self.width = tile_width(kernel, (4 if self.is_ordered else 3) * sum(map(words_in, dtypes)) + body_tiles(computation))

    def fold(self, tiles: Sequence[Access], keep: int = 1) -> list[Access]:
        """[rows, n * keep] -> [rows, keep]: groups are combined two by two until one is left; an odd one waits for a round.

        Single columns pair with their neighbours, groups with those of the other half unless the order matters.
        """
        current = [tile.flat() for tile in tiles]
        while current[0].free > keep:
            columns = current[0].free
            pairs = columns // keep // 2 * keep
            halves = [self.kernel.sbuf((tile.partitions, columns - pairs), tile.dtype) for tile in current]
            rest, neighbours = columns - 2 * pairs, keep == 1 or self.is_ordered
            with self.kernel.scope():
                run_body(self.kernel, self.computation, self._pairs(current, keep, pairs),
                         [half.cut(0, 0, pairs) for half in halves])
            if rest:
                for half, tile in zip(halves, current, strict=True):
                    self.kernel.copy(half.cut(0, pairs, rest), tile.cut(0, columns - rest if neighbours else pairs, rest))
            current = halves
        return current

    def _pairs(self, tiles: Sequence[Access], keep: int, pairs: int) -> list[Access]:
        """The first of each pair of groups, then the second, of all tiles; with one free dimension."""
        if keep == 1:
            return [tile.cut(0, first, pairs, 2) for first in range(2) for tile in tiles]
        if not self.is_ordered:
            return [tile.cut(0, first, pairs) for first in (0, tiles[0].free - pairs) for tile in tiles]
        return [self._apart(tile.cut(0, 0, 2 * pairs).reshape(pairs // keep, 2, keep).at(1, side), pairs)
                for side in range(2) for tile in tiles]

    def _apart(self, groups: Access, columns: int) -> Access:
        """Groups that lie apart, side by side."""
        beside = self.kernel.sbuf((groups.partitions, columns), groups.dtype)
        self.kernel.copy(beside.reshape(*groups.sizes[1:]), groups)
        return beside

    def merge(self, sums: Sequence[Access], parts: Sequence[Access]) -> None:
        with self.kernel.scope():
            fresh = [self.kernel.sbuf(tile.sizes, tile.dtype) for tile in sums]
            run_body(self.kernel, self.computation, [*sums, *parts], fresh)
            for to, of in zip(sums, fresh, strict=True):
                self.kernel.copy(to, of)

    def result(self, sums: Access, number: int) -> Access:
        """Partial results of one array as its elements."""
        dtype = self.results[number]
        if sums.dtype is dtype:
            return sums
        cast = self.kernel.sbuf(sums.sizes, dtype)
        self.kernel.copy(cast, sums)
        return cast


Folding = _Plain | _General


@rule("reduce", unsupported=_unsupported)
def lower_reduce(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Tiles of kept rows; each starts from the initial values and takes in what its columns fold to."""
    computation = instruction.called[0]
    op = combiner(computation) if len(results) == 1 else None
    if op is not None and not _is_native(kernel.target, op, results[0].dtype):
        op = None
    if op is not None and results[0].dtype is PRED:
        operands, results = [view.retype(U8) for view in operands], [view.retype(U8) for view in results]
    count = len(results)
    data, initials = operands[:count], operands[count:]
    folding: Folding = _General(kernel, computation, [view.dtype for view in data], [view.dtype for view in results]) \
        if op is None \
        else _Plain(kernel, op, results[0].dtype, data[0].dtype)
    in_turn = op is None and not takes_any_grouping(computation)
    data, results, reduced = _with_kept_joined(data, results, instruction.attribute("dimensions"))
    order = tuple(range(len(data[0].dims))) if in_turn else memory_order(data[0])
    dims = [d for d in order if d in reduced]
    kept = [d for d in range(len(order)) if d not in dims]
    if not dims:  # each element alone, with the initial value
        dims, data = [len(order)], [view.insert(len(order)) for view in data]
    together = next((d for d in kept if _lies_together(data[0], d)), None)
    if together is None:
        rows, outs = [view.permute((*kept, *dims)) for view in data], list(results)
        rows, outs = [view.insert(len(view.dims)) for view in rows], [view.insert(len(view.dims)) for view in outs]
    else:
        others = [d for d in kept if d != together]
        rows = [view.permute((*others, *dims, together)) for view in data]
        outs = [view.permute([*(kept.index(d) for d in others), kept.index(together)]) for view in results]
        run = 0 if in_turn else _run_of_rows(kernel, data[0], together, others, min(KEEP_MAX, folding.width))
        if run:
            rows, outs = ([_runs_as_rows(view, len(others), run) for view in views] for views in (rows, outs))
    if len(rows[0].dims) == len(dims) + 1:
        rows, outs = [view.insert(0) for view in rows], [view.insert(0) for view in outs]
    for _ in dims:
        outs = [view.insert(len(view.dims) - 1) for view in outs]
    last = len(rows[0].dims) - 1
    reduce_tile = _reduce_in_turn if in_turn else _reduce_tile
    for start, keep in kernel.tiles(rows[0].sizes[last], min(KEEP_MAX, folding.width)):
        cuts = [view.cut(last, start, keep) for view in (*rows, *outs)]
        for cut in row_tiles(kernel, cuts, len(dims) + 1):
            places = [replace(view, dims=(*view.dims[:-1 - len(dims)], view.dims[-1])) for view in cut[count:]]
            reduce_tile(kernel, folding, cut[:count], initials, places)


def _run_of_rows(kernel: Kernel, data: View, together: int, others: Sequence[int], most: int) -> int:
    """How long the runs are into which a kept dimension that lies together is cut, so that they, one a partition, fill all of
    these; 0 if it is too short. `most`: elements of a run."""
    size, lanes = data.sizes[together], kernel.target.partitions
    rows = math.prod(data.sizes[d] for d in others)
    if not kernel.copies.rotates or rows >= lanes:
        return 0
    least = kernel.target.dma.descriptor_bytes_min // data.dtype.byte_size
    return max((n for n in range(least, most + 1) if size % n == 0 and size // n * rows >= lanes), default=0)


def _runs_as_rows(view: View, place: int, run: int) -> View:
    """The last dimension in runs, which are rows at this place."""
    *dims, (stride, size) = view.dims
    return replace(view, dims=(*dims[:place], (stride * run, size // run), *dims[place:], (stride, run)))


def _with_kept_joined(data: Sequence[View], results: Sequence[View],
                      reduced: Sequence[int]) -> tuple[list[View], list[View], list[int]]:
    """Views in which neighbouring kept dimensions are one wherever all of them lie so, and the reduced dimensions then."""
    ins: list[list[tuple[int, int]]] = [[] for _ in data]
    outs: list[list[tuple[int, int]]] = [[] for _ in results]
    found: list[int] = []
    place, was_kept = 0, False
    for d in range(len(data[0].dims)):
        is_kept = d not in reduced
        columns = [(dims, view.dims[d]) for dims, view in zip(ins, data, strict=True)]
        if is_kept:
            columns += [(dims, view.dims[place]) for dims, view in zip(outs, results, strict=True)]
            place += 1
        if is_kept and was_kept and all(dims[-1][0] == stride * size for dims, (stride, size) in columns):
            for dims, (stride, size) in columns:
                dims[-1] = stride, dims[-1][1] * size
        else:
            for dims, column in columns:
                dims.append(column)
            if not is_kept:
                found.append(len(ins[0]) - 1)
        was_kept = is_kept
    return ([replace(view, dims=tuple(dims)) for view, dims in zip(data, ins, strict=True)],
            [replace(view, dims=tuple(dims)) for view, dims in zip(results, outs, strict=True)], found)


def _lies_together(view: View, dim: int) -> bool:
    """Whether neighbours along a dimension are neighbours in memory, in runs that are worth a descriptor."""
    stride, size = view.dims[dim]
    return stride == view.dtype.byte_size and size * stride >= RUN_BYTES


def _reduce_tile(kernel: Kernel, folding: Folding, views: Sequence[View], initials: Sequence[View],
                 places: Sequence[View]) -> None:
    """Reduce views [rows.., reduced.., keep] into places [rows.., keep], rows within the partitions."""
    leading = len(places[0].dims) - 1
    rows, keep = math.prod(places[0].sizes[:-1]), places[0].sizes[-1]
    reduced = views[0].sizes[leading:-1]
    lanes = kernel.target.partitions // rows
    count = math.prod(reduced)
    dim = leading + _spread_dim(reduced, lanes)
    shares = _shares(keep, lanes)
    parts = min(lanes, views[0].sizes[dim], folding.width * shares // keep) if count * keep >= SPREAD_MIN else 1
    if parts < 2:
        shares = 1
    sums = [_start(kernel, initial, rows * shares, keep // shares, dtype)
            for initial, dtype in zip(initials, folding.accumulators, strict=True)]
    if parts > 1:
        _take_in_spread(kernel, folding, views, leading, dim, parts, shares, sums)
    elif count:
        with kernel.scope():
            folding.merge(sums, _folded(kernel, folding, views, leading))
    for number, (place, tile) in enumerate(zip(places, sums, strict=True)):
        stride = place.dims[-1][0]
        split = replace(place, dims=(*place.dims[:-1], (stride * (keep // shares), shares), (stride, keep // shares)))
        store(kernel, split, folding.result(tile, number))


def _reduce_in_turn(kernel: Kernel, folding: Folding, views: Sequence[View], initials: Sequence[View],
                    places: Sequence[View]) -> None:
    """As _reduce_tile, one reduced element after another."""
    leading = len(places[0].dims) - 1
    rows, keep = math.prod(places[0].sizes[:-1]), places[0].sizes[-1]
    sums = [_start(kernel, initial, rows, keep, dtype) for initial, dtype in zip(initials, folding.accumulators, strict=True)]
    _take_in_turn(kernel, folding, views, leading, sums)
    for number, (place, tile) in enumerate(zip(places, sums, strict=True)):
        store(kernel, place, folding.result(tile, number))


def _take_in_turn(kernel: Kernel, folding: Folding, views: Sequence[View], leading: int, sums: Sequence[Access]) -> None:
    """sums take in all reduced elements of views [rows.., reduced.., keep]."""
    if len(views[0].dims) == leading + 1:
        folding.merge(sums, [load(kernel, view, dtype, leading) for view, dtype in zip(views, folding.loads, strict=True)])
        return
    for place, _ in kernel.tiles(views[0].sizes[leading], 1):
        _take_in_turn(kernel, folding, [view.cut(leading, place, 1).at(leading, 0) for view in views], leading, sums)


def _shares(keep: int, lanes: int) -> int:
    """Into how many equal runs, one a partition, the kept columns are cut when partial results are put together."""
    return max(n for n in range(1, lanes + 1) if n == 1 or keep % n == 0 and keep // n >= SHARE_COLUMNS)


def _start(kernel: Kernel, initial: View, rows: int, columns: int, dtype: DType) -> Access:
    """The initial value everywhere, [rows, columns]; it travels once a row and is repeated on the chip."""
    first = load(kernel, View(initial.memory, initial.dtype, initial.address, ((0, rows), (0, 1))), dtype)
    if columns == 1:
        return first
    tile = kernel.sbuf((rows, columns), dtype)
    kernel.copy(tile, replace(first, dims=((0, columns),)))
    return tile


def _take_in_spread(kernel: Kernel, folding: Folding, views: Sequence[View], leading: int, dim: int, parts: int, shares: int,
                    sums: Sequence[Access]) -> None:
    """sums [rows * shares, columns] take in views whose dimension `dim` is spread over `parts` partitions a row."""
    share, rest = divmod(views[0].sizes[dim], parts)
    for start, size, used in ((0, parts * share, parts), (parts * share, rest, rest)):
        if size:
            with kernel.scope():
                spread = [_spread(view.cut(dim, start, size), leading, dim, used) for view in views]
                turned = [_turn(kernel, tile, used, shares) for tile in _folded(kernel, folding, spread, leading + 1)]
                folding.merge(sums, folding.fold(turned, sums[0].free))


def _spread_dim(sizes: Sequence[int], lanes: int) -> int:
    """The reduced dimension to spread: the slowest that fills the idle partitions, else the largest."""
    for d, size in enumerate(sizes):
        if size >= lanes:
            return d
    return max(range(len(sizes)), key=lambda d: sizes[d])


def _spread(view: View, leading: int, dim: int, parts: int) -> View:
    """Dimension `dim` cut into `parts`, which become the last of the rows."""
    stride, size = view.dims[dim]
    share = size // parts
    rest = (*view.dims[leading:dim], (stride, share), *view.dims[dim + 1:])
    return replace(view, dims=(*view.dims[:leading], (stride * share, parts), *rest))


def _turn(kernel: Kernel, tile: Access, parts: int, shares: int) -> Access:
    """[rows * parts, keep] as [rows * shares, parts * columns]: partial results of a row come together on its partitions."""
    rows, columns = tile.partitions // parts, tile.free // shares
    turned = kernel.sbuf((rows * shares, parts * columns), tile.dtype)
    source = tile.linear().reshape((rows, parts, shares, columns))
    destination = turned.linear().reshape((rows, shares, parts, columns))
    assert source is not None and destination is not None
    kernel.dma(destination.permute((0, 2, 1, 3)), source)
    return turned


def _folded(kernel: Kernel, folding: Folding, views: Sequence[View], leading: int) -> list[Access]:
    """All reduced elements of views [rows.., reduced.., keep] folded, [rows, keep]; there is at least one."""
    joined = [replace(view, dims=(*view.dims[:leading], *reduced.dims, view.dims[-1])) for view, reduced in
              zip(views, join([replace(view, dims=view.dims[leading:-1]) for view in views]), strict=True)]
    rows = math.prod(views[0].sizes[:leading])
    sums = [kernel.sbuf((rows, views[0].sizes[-1]), dtype) for dtype in folding.accumulators]
    _fold_pieces(kernel, folding, joined, leading, sums, True)
    return sums


def _fold_pieces(kernel: Kernel, folding: Folding, views: Sequence[View], leading: int, sums: Sequence[Access],
                 first: bool) -> None:
    """Fold all reduced elements into sums, in pieces that fit; the first piece of all overwrites sums."""
    free = views[0].sizes[leading:]
    inner = math.prod(free[1:])
    width = folding.width
    if kernel.copies.rotates and math.prod(free) > 2 * PIECE_LEAST:  # so many that one is loaded while another is folded
        width = min(width, max(PIECE_LEAST, math.prod(free) // PIECES))
    if math.prod(free) <= width:
        _fold_piece(kernel, folding, views, leading, sums, first)
        return

    def fold(start: Index, size: int, opening: bool) -> None:
        cut = [view.cut(leading, start, size) for view in views]
        if inner > width:
            _fold_pieces(kernel, folding, [view.at(leading, 0) for view in cut], leading, sums, opening)
        else:
            _fold_piece(kernel, folding, cut, leading, sums, opening)

    opened_pieces(kernel, free[0], max(1, width // inner), fold, first)


def opened_pieces(kernel: Kernel, total: int, step: int, body: Callable[[Index, int, bool], None], first: bool = True) -> None:
    """body(start, size, opening) over 0..total in pieces of `step`; the first piece is opening, if `first`."""
    opening = min(step, total) if first else 0
    if opening:
        with kernel.scope():
            body(0, opening, True)
    for start, size in kernel.tiles(total - opening, step):
        body(start + opening, size, False)


def _fold_piece(kernel: Kernel, folding: Folding, views: Sequence[View], leading: int, sums: Sequence[Access],
                first: bool) -> None:
    """The tiles of one operator's folding are those of a loop's copies, so that the next piece is loaded during this one."""
    with nullcontext() if isinstance(folding, _Plain) else kernel.scope():
        tiles = [load(kernel, view, dtype, leading) for view, dtype in zip(views, folding.loads, strict=True)]
        parts = folding.fold(tiles, sums[0].free)
        if first:
            for to, of in zip(sums, parts, strict=True):
                kernel.copy(to, of)
        else:
            folding.merge(sums, parts)
