"""Elements picked on the chip: rows lie along partitions, and GpSimd picks from each what indices of its own name.

A transfer of single elements takes a descriptor each. Where the rows that are picked from fit on the chip and more than a few
elements of each are wanted, they are brought whole; rows that are fewer than partitions come several times, each time for
another part of what is picked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.index_words import clamped_offsets, word_tiles
from nxcc.backends.lowering.tiling import unfolded
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import View

COLUMNS = 1024
"""Elements that a partition picks at a time."""

TRANSFER = 4e-6
"""Seconds that a transfer of 128 single elements takes, with the work on its indices."""

ROOM = 0.6
"""What share of free memory the rows may take."""


def gather_elements(kernel: Kernel, data: View, indices: View, result: View, limits: Sequence[tuple[int, int]], shared: int,
                    window: Sequence[int]) -> bool:
    """Write the gather this way if it can be done and is quicker; whether it was.

    data: [shared.., others..], window: which of the others are wanted whole and make windows, in order. indices: [shared..,
    own.., components]. result: [shared.., own.., window..]. limits: (stride in bytes, greatest start) of each component.
    """
    if data.sizes[:shared] != result.sizes[:shared] or data.dtype.bits > 32:
        return False
    views, loops = (data, indices, result), 0
    while (found := _as_rows(*views, shared - loops, window)) is None and loops < shared:
        views, loops = _first_of(views), loops + 1
    if found is None or not _is_quicker(kernel, *found):
        return False
    units = [(stride // data.dtype.byte_size, high) for stride, high in limits]
    for part in _each(kernel, (data, indices, result), loops):
        rows = _as_rows(*part, shared - loops, window)
        assert rows is not None, "one is as the first"
        _pick_rows(kernel, *rows, units)
    return True


Gathered = tuple[View, View, View]
"""Data, indices and result."""


def _as_rows(data: View, indices: View, result: View, shared: int, window: Sequence[int]) -> Gathered | None:
    """They as [rows, length], [rows, picks, components] and [rows, picks]; None if they do not lie so, as where indices are the
    same for all of a dimension."""
    own = len(indices.dims) - 1 - shared
    wide = result.sizes[shared + own:]
    if tuple(data.sizes[shared + d] for d in window) != tuple(wide):
        return None
    indexed = [d for d in range(shared, len(data.dims)) if d - shared not in window]
    rows, picks = math.prod(result.sizes[:shared]) * math.prod(wide), math.prod(result.sizes[shared:shared + own])
    length = math.prod(data.sizes[d] for d in indexed)
    table = data.permute((*range(shared), *(shared + d for d in window), *indexed)).reshape((rows, length))
    for size in reversed(wide):
        indices = indices.insert(shared, size)
    places = indices.reshape((rows, picks, indices.sizes[-1]))
    out = result.permute((*range(shared), *range(shared + own, len(result.dims)), *range(shared, shared + own)))
    out_rows = out.reshape((rows, picks))
    if table is None or table.dims[1] != (data.dtype.byte_size, length) or places is None or out_rows is None:
        return None
    return table, places, out_rows


def _first_of(views: Gathered) -> Gathered:
    data, indices, result = views
    return data.at(0, 0), indices.at(0, 0), result.at(0, 0)


def _each(kernel: Kernel, views: Gathered, loops: int) -> Iterator[Gathered]:
    """Loop over so many of their first dimensions."""
    if not loops:
        yield views
        return
    data, indices, result = views
    with kernel.loop(data.sizes[0]) as i:
        yield from _each(kernel, (data.at(0, i), indices.at(0, i), result.at(0, i)), loops - 1)


def _pick_rows(kernel: Kernel, table: View, places: View, out: View, units: Sequence[tuple[int, int]]) -> None:
    """out[r, i] = table[r, offset of places[r, i]]."""
    (rows, picks), lanes = out.sizes, kernel.target.partitions
    repeats = max(1, min(lanes // rows, picks))
    for start, count in kernel.tiles(rows, lanes):
        parts = [view.cut(0, start, count) for view in (table, places, out)]
        whole = picks // repeats * repeats
        _pick(kernel, parts[0], parts[1].cut(1, 0, whole), parts[2].cut(1, 0, whole), units, repeats)
        if picks > whole:
            _pick(kernel, parts[0], parts[1].cut(1, whole, picks - whole), parts[2].cut(1, whole, picks - whole), units, 1)


def _is_quicker(kernel: Kernel, table: View, places: View, out: View) -> bool:
    """Whether rows of the table [rows, length] fit, and bringing them takes less than transfers of single elements."""
    target, lanes = kernel.target, kernel.target.partitions
    rows, picks = out.sizes
    if not kernel.copies.rotates or Engine.GPSIMD not in target.engines:
        return False
    bytes_ = table.sizes[1] * table.dtype.byte_size
    tiles = -(-rows // lanes)
    repeats = max(1, min(lanes // rows, picks))
    brought = tiles * min(lanes, rows * repeats) * bytes_ / target.hbm.share_bytes_per_second
    clock = target.engines[Engine.GPSIMD].clock_hz
    picked = tiles * -(-picks // repeats) * target.instruction_costs.gpsimd_gather_cycles / clock
    singly = picks * -(-rows // lanes) if rows >= lanes else -(-picks // lanes) * rows
    held = bytes_ * min(tiles, kernel.copies.inner)
    return held <= ROOM * kernel.sbuf_free_bytes and brought + picked < TRANSFER * singly


def _pick(kernel: Kernel, table: View, indices: View, out: View, units: Sequence[tuple[int, int]], repeats: int) -> None:
    """out[r, i] = table[r, offset of indices[r, i]]; each row lies on `repeats` partitions, which share what is picked."""
    rows, picks, _ = indices.sizes
    lanes, columns = rows * repeats, picks // repeats
    tile = kernel.sbuf((lanes, table.sizes[1]), table.dtype)
    source = table.insert(1, repeats)
    kernel.dma(unfolded(tile, source), source)
    for start, count in kernel.tiles(columns, COLUMNS):
        words = word_tiles(kernel, _part(indices, repeats, start, count))
        offsets = clamped_offsets(kernel, words, (lanes, count), units)
        picked = kernel.sbuf((lanes, count), out.dtype)
        kernel.emit(isa.gpsimd.GATHER_FREE, data=tile, indices=offsets, out=picked)
        part = _part(out, repeats, start, count)
        kernel.dma(part, unfolded(picked, part))


def _part(view: View, repeats: int, start: Index, count: int) -> View:
    """[rows, repeats, count, ..]: of each of `repeats` equal parts of the second dimension so many places."""
    stride, size = view.dims[1]
    columns = size // repeats
    parted = replace(view, dims=(view.dims[0], (stride * columns, repeats), (stride, columns), *view.dims[2:]))
    return parted.cut(2, start, count)
