"""Scatter: windows of updates combined into places that indices name, one after another where they may meet.

Offsets are computed on GpSimd for many windows at a time; a window that does not lie wholly inside gets the offset at which a
DMA writes nothing. Windows that may touch the same elements go one by one: read, combine, write, in the order of the indices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa import instructions as isa
from nxcc.backends.lowering.bodies import body_reason, body_tiles, run_body
from nxcc.backends.lowering.elementwise import tile_width
from nxcc.backends.lowering.index_words import Places, window_offsets
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.scatter_sums import scatter_sums, sums_windows
from nxcc.backends.lowering.tiling import flat_tiles, join, load, loops, tile_like, unfolded
from nxcc.backends.lowering.turning import move
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Computation, Instruction

OFFSETS = 512
"""Windows whose offsets are computed together: a row of words that stays small."""


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    if instruction.operands[0].shape.element_count >= 2**31:
        return "an operand of 2^31 elements or more cannot be indexed"
    if _replaces(instruction.called[0]):
        return None
    return body_reason(instruction.called[0], target, "combiner")


def _replaces(computation: Computation) -> bool:
    """Whether the combiner returns the updates as they are."""
    root = computation.root
    leaves = root.operands if root.opcode == "tuple" else (root,)
    count = len(computation.parameters) // 2
    return all(leaf.opcode == "parameter" and int(leaf.attributes["parameter_number"]) == count + number
               for number, leaf in enumerate(leaves))


def _adds(computation: Computation) -> bool:
    """Whether the combiner is one sum of floats, which a DMA can do on its way."""
    root = computation.root
    return root.opcode == "add" and root.shape.dtype.is_float and len(computation.parameters) == 2 and \
        set(root.operands) == set(computation.parameters)


@dataclass(frozen=True)
class _Windows:
    """What is scattered. targets: the window at start 0 in each result, [window..]; updates: [batch.., window..].

    limit: one more than the greatest offset of a window that lies inside. body: None if updates replace what is there.
    adds: it is one sum of floats.
    distinct: no two windows meet.
    """

    targets: tuple[View, ...]
    updates: tuple[View, ...]
    limit: int
    body: Computation | None
    adds: bool
    distinct: bool

    @property
    def in_transfer(self) -> bool:
        """Whether the DMA that writes does all the work."""
        return self.body is None or self.adds


@rule("scatter", unsupported=_unsupported, in_place=0)
def lower_scatter(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Copy the operands, unless the result lies in their place; then write the windows."""
    count = len(results)
    data, indices, updates = operands[:count], operands[count], operands[count + 1:]
    for result, operand in zip(results, data, strict=True):
        if result.address != operand.address:
            move(kernel, result, operand)
    if not updates[0].elements:
        return
    attribute = instruction.attribute
    vector_dim, window_dims = attribute("index_vector_dim"), attribute("update_window_dims")
    if vector_dim == len(indices.dims):
        indices = indices.insert(vector_dim)
    index_batch = [d for d in range(len(indices.dims)) if d != vector_dim]
    update_batch = [d for d in range(len(updates[0].dims)) if d not in window_dims]
    indices = indices.permute((*index_batch, vector_dim))
    updates = [view.permute((*update_batch, *window_dims)) for view in updates]
    shared = [index_batch.index(d) for d in attribute("scatter_indices_batching_dims")]
    dropped = (*attribute("inserted_window_dims"), *attribute("input_batching_dims"))
    kept = [d for d in range(len(results[0].dims)) if d not in dropped]
    window = updates[0].sizes[len(update_batch):]
    sizes = dict(zip(kept, window, strict=True))
    dims = results[0].dims
    unit = results[0].dtype.byte_size
    limits = [(dims[d][0] // unit, dims[d][1] - sizes.get(d, 1)) for d in attribute("scatter_dims_to_operand_dims")]
    batched = [(dims[d][0] // unit, dims[d][1]) for d in attribute("input_batching_dims")]
    targets = [replace(view, dims=tuple((view.dims[d][0], size) for d, size in sizes.items())) for view in results]
    body = instruction.called[0]
    order = (*shared, *(d for d in range(len(update_batch)) if d not in shared))
    indices = indices.permute((*order, len(order)))
    updates = [view.permute((*order, *range(len(order), len(view.dims)))) for view in updates]
    limit = 1 + sum(stride * high for stride, high in limits)
    windows = _Windows(tuple(targets), tuple(updates), limit, None if _replaces(body) else body, _adds(body),
                       bool(instruction.attributes.get("unique_indices")))
    apart = all(sizes.get(d, 1) == 1 for d in attribute("scatter_dims_to_operand_dims"))
    for index, moved in _batches(kernel, indices, windows, batched):
        if moved.adds and apart and not moved.distinct and sums_windows(kernel, moved.targets[0], moved.updates[0]):
            scatter_sums(kernel, moved.targets[0], moved.updates[0], index, limits, moved.limit)
        else:
            _scatter(kernel, moved, index, limits)


def _batches(kernel: Kernel, indices: View, windows: _Windows, batched: Sequence[tuple[int, int]]) -> \
        Iterator[tuple[View, _Windows]]:
    """Loop over the batch until one dimension is left: [n, components] indices, and updates of [n, window..].

    The first dimensions, as many as `batched` has, also select a part of the operand: its (stride, size) is given. Parts beyond
    the operand are left out. The others join, or are looped over in their order.
    """
    if batched:
        (stride, size), *rest = batched
        count = min(size, indices.sizes[0])
        with kernel.loop(count) as i:
            targets = tuple(replace(view, address=view.address + i * (stride * view.dtype.byte_size))
                            for view in windows.targets)
            updates = tuple(view.at(0, i) for view in windows.updates)
            yield from _batches(kernel, indices.at(0, i), replace(windows, targets=targets, updates=updates), rest)
        return
    batch = len(indices.dims) - 1
    if batch == 0:
        yield indices.insert(0), replace(windows, updates=tuple(view.insert(0) for view in windows.updates))
        return
    count = math.prod(indices.sizes[:batch])
    joined = [indices.reshape((count, indices.sizes[batch]))]
    joined += [view.reshape((count, *view.sizes[batch:])) for view in windows.updates]
    if all(view is not None for view in joined):
        index, *views = (view for view in joined if view is not None)
        yield index, replace(windows, updates=tuple(views))
        return
    with kernel.loop(indices.sizes[0]) as i:
        yield from _batches(kernel, indices.at(0, i), replace(windows, updates=tuple(v.at(0, i) for v in windows.updates)), ())


def _scatter(kernel: Kernel, windows: _Windows, indices: View, limits: Sequence[tuple[int, int]]) -> None:
    """Write n windows whose indices are [n, components]; limits: (stride in elements, greatest start) of each component."""
    for start, count in kernel.tiles(indices.sizes[0], OFFSETS):
        places = window_offsets(kernel, indices.cut(0, start, count), limits, windows.limit)
        updates = [view.cut(0, start, count) for view in windows.updates]
        if windows.distinct and _goes_at_once(kernel, windows):
            for first, size in kernel.tiles(count, kernel.target.partitions):
                _write(kernel, windows, [view.cut(0, first, size) for view in updates], _at(places, first, size))
            continue
        with kernel.loop(count) as i:
            here = _at(places, i, 1)
            for views in _window_pieces(kernel, windows, [view.at(0, i) for view in updates]):
                targets, pieces = views[:len(windows.targets)], views[len(windows.targets):]
                _write(kernel, replace(windows, targets=tuple(targets)), [view.insert(0) for view in pieces], here)


def _at(places: Places, start: Index, count: int) -> Places:
    return places[0].cut(0, start, count), places[1].cut(0, start, count)


def _width(kernel: Kernel, windows: _Windows) -> int:
    """Columns of a tile that leave room for the combiner's work."""
    return tile_width(kernel, 3 * len(windows.targets) + body_tiles(windows.body)) if windows.body else 1 << 30


def _goes_at_once(kernel: Kernel, windows: _Windows) -> bool:
    """Whether a row of a tile holds a window, and a DMA's dimensions suffice for rows of windows."""
    sizes = windows.targets[0].sizes
    return math.prod(sizes) <= _width(kernel, windows) and len(join([*windows.targets, *(
        view.at(0, 0) for view in windows.updates)])[0].dims) < kernel.target.dma.loops_max


def _window_pieces(kernel: Kernel, windows: _Windows, updates: Sequence[View]) -> Iterator[list[View]]:
    """One window of targets and updates in pieces that a transfer can name and a tile can hold."""
    joined = join([*windows.targets, *updates])
    for views in loops(kernel, joined, max(0, len(joined[0].dims) + 1 - kernel.target.dma.loops_max)):
        if windows.in_transfer:
            yield views
        else:
            yield from flat_tiles(kernel, views, _width(kernel, windows))


def _write(kernel: Kernel, windows: _Windows, updates: Sequence[View], places: Places) -> None:
    """Combine n windows of updates, [n, window..], into the targets at their places."""
    reads, writes = places
    if windows.in_transfer:
        for target, update in zip(windows.targets, updates, strict=True):
            _send(kernel, target, update, writes, windows.limit, "add" if windows.adds else "none")
        return
    assert windows.body is not None
    with kernel.scope():
        current = [tile_like(kernel, view) for view in updates]
        for tile, target, update in zip(current, windows.targets, updates, strict=True):
            _fetch(kernel, unfolded(tile, update), target, reads, windows.limit)
        new = [load(kernel, view) for view in updates]
        outs = [tile_like(kernel, view) for view in updates]
        run_body(kernel, windows.body, [*current, *new], outs)
        for out, target, update in zip(outs, windows.targets, updates, strict=True):
            _send(kernel, target, unfolded(out, update), writes, windows.limit, "none")


def _send(kernel: Kernel, target: View, source: View, writes: Access, limit: int, accumulate: str) -> None:
    """target[writes[n] elements further, window..] (+)= source[n, window..]."""
    to, of = _indexed(target, source)
    kernel.emit(isa.dma.DMA_SCATTER, source=of, indices=writes, destination=to, fields={
        "sizes": of.sizes, "index_stride": target.dtype.byte_size, "limit": limit, "accumulate": accumulate})


def _fetch(kernel: Kernel, destination: View, target: View, reads: Access, limit: int) -> None:
    """destination[n, window..] = target[reads[n] elements further, window..]."""
    of, to = _indexed(target, destination)
    kernel.emit(isa.dma.DMA_GATHER, source=of, indices=reads, destination=to, fields={
        "sizes": to.sizes, "index_stride": target.dtype.byte_size, "limit": limit})


def _indexed(target: View, rows: View) -> tuple[View, View]:
    """The indexed side and the plain side of a transfer of n windows, with as few dimensions as both allow."""
    window, row = join([target, rows.at(0, 0)])
    count = rows.dims[0]
    return replace(window, dims=((0, count[1]), *window.dims)), replace(row, dims=(count, *row.dims))
