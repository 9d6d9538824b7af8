"""What reads an image as a whole: convolutions as shifted products, windows and sums over places.

A convolution takes one pass of the tensor engine for each window cell and block of input channels, over pieces of its result
that fill a PSUM bank. The cell that no output misses opens the sums; one that lies outside the image for some outputs adds to
the others. Windows are reduced along one dimension after the other, outputs at a border over the cells that they have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.images.geometry import Cell, Image, Phase, Strip, strips
from nxcc.backends.lowering.images.taps import Taps
from nxcc.backends.lowering.images.weights import Weights
from nxcc.backends.lowering.products.matmul import open_sums
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access
from nxcc.ir.facts import dataclass

UNROLLED_PASSES = 24
"""Passes of one piece that are written one after the other; more are a loop over blocks of channels."""


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of a head's result: its block of channels, images (first, number), rows and columns (first, number, step)."""

    block: Index
    images: tuple[Index, int]
    rows: tuple[Index, int, int]
    columns: tuple[Index, int, int]


@dataclass(frozen=True, slots=True)
class Product:
    """A convolution of images [in SBUF, beside each other along channels] to `blocks` blocks of `lanes` output channels.

    With taps, each channel of the result is made of the same one of the only image.

    count: images in a group. unrolled: blocks are written one after the other, so that their places are numbers. doubled: the
    image and the weights lie on as many partitions behind as well, the image a row further, the weights of the next row.
    """

    images: Sequence[Image]
    weights: Weights | Taps
    lanes: int
    blocks: int
    count: int
    columns_of_kernel: int
    unrolled: bool = False
    doubled: bool = False


Axis = tuple[Phase, Strip]
"""What is made of one phase of a spatial axis."""


def product_pieces(kernel: Kernel, product: Product, rows: Sequence[Axis], columns: Sequence[Axis],
                   banks: Iterator[Access]) -> Iterator[tuple[Place | Index, Access]]:
    """Pieces of a convolution's result and their sums, and the block of channels after all of its pieces.

    rows, columns: what is made of each phase. banks: places for sums, in PSUM those of products; those in SBUF are Vector's.
    """
    bank = next(banks)
    for row_phase, row_strip in rows:
        for column_phase, column_strip in columns:
            images, height, width = _piece(kernel.target.tensor.moving_max, product.count, row_strip.count, column_strip.count)
            single = (images, height, width) == (product.count, row_strip.count, column_strip.count)
            single = single or isinstance(product.weights, Taps)
            for block in range(product.blocks) if product.unrolled else _blocks(kernel, product.blocks, single):
                matrices = product.weights.matrices(kernel, block) if isinstance(product.weights, Taps) else None
                for n in kernel.tiles(product.count, images):
                    for r in strips(kernel, (row_phase,), row_strip, height):
                        for c in strips(kernel, (column_phase,), column_strip, width):
                            bank = next(banks).rows(0, product.lanes)
                            sums = bank.cut(0, 0, n[1] * r.count * c.count).reshape(n[1], r.count, c.count)
                            if isinstance(product.weights, Taps):
                                _apart(kernel, product, matrices, sums, block, n, (row_phase, r), (column_phase, c))
                            else:
                                _multiply(kernel, product, product.weights, sums, block, n, (row_phase, r), (column_phase, c))
                            yield Place(block, n, _walk(row_phase, r), _walk(column_phase, c)), sums.flat()
                yield block, bank


def _piece(most: int, images: int, height: int, width: int) -> tuple[int, int, int]:
    """Images, rows and columns of at most so many places; of several rows or images all columns, of several images all rows."""
    if width > most:
        return 1, 1, most
    if height * width > most:
        return 1, most // width, width
    return min(images, most // (height * width)), height, width


def _blocks(kernel: Kernel, blocks: int, single: bool) -> Iterator[Index]:
    """Blocks of output channels, in a loop: with copies if there is nothing else to take turns."""
    if single or blocks == 1:
        for block, _ in kernel.tiles(blocks, 1):
            yield block
    else:
        with kernel.loop(blocks) as index:
            yield index


def _walk(phase: Phase, strip: Strip) -> tuple[Index, int, int]:
    return strip.at * phase.step + phase.first, strip.count, phase.step


@dataclass(frozen=True, slots=True)
class _Pass:
    """One window cell of some rows and columns of a piece (first, number); both: with the cell in the next window row."""

    row: Cell
    rows: tuple[int, int]
    column: Cell
    columns: tuple[int, int]
    both: bool = False


def _passes(doubled: bool, rows: Axis, columns: Axis) -> list[_Pass]:
    """The passes over a piece, those first that cover all of it."""
    (row_phase, r), (column_phase, c) = rows, columns
    found = []
    for column in column_phase.cells:
        across = column_phase.outputs(column, c.first, c.count)
        for row, down, both in _row_cells(doubled, row_phase, r):
            if across[1] and down[1]:
                found.append(_Pass(row, down, column, across, both))
    return sorted(found, key=lambda one: (one.rows, one.columns) != ((r.first, r.count), (c.first, c.count)))


def _row_cells(doubled: bool, phase: Phase, strip: Strip) -> Iterator[tuple[Cell, tuple[int, int], bool]]:
    """Window rows with the outputs that they add to. doubled: two rows together where an output has both."""
    cells = list(phase.cells)
    while cells:
        cell = cells.pop(0)
        first, count = phase.outputs(cell, strip.first, strip.count)
        if not doubled or not cells:
            yield cell, (first, count), False
            continue
        other = cells.pop(0)
        start, number = phase.outputs(other, strip.first, strip.count)
        low, high = max(first, start), min(first + count, start + number)
        if high <= low:
            yield cell, (first, count), False
            yield other, (start, number), False
            continue
        yield cell, (low, high - low), True
        for one, begin, end in ((cell, first, first + count), (other, start, start + number)):
            yield one, (begin, low - begin), False
            yield one, (high, end - high), False


def _multiply(kernel: Kernel, product: Product, given: Weights, sums: Access, block: Index, images: tuple[Index, int],
              rows: Axis, columns: Axis) -> None:
    """sums [lanes; images, rows, columns] of one block of output channels."""
    (row_phase, r), (column_phase, c) = rows, columns
    passes = _passes(product.doubled, rows, columns)
    is_open = not passes or (passes[0].rows, passes[0].columns) != ((r.first, r.count), (c.first, c.count))
    if is_open:
        open_sums(kernel, sums.flat(), given.parts[0].dtype)

    def run(part: int, b: Index, first: bool) -> None:
        image, weights = product.images[part], given.parts[part].at(0, b)
        for number, one in enumerate(passes):
            cell = one.row.number * product.columns_of_kernel + one.column.number
            (top, height), (left, width) = one.rows, one.columns
            moving = image.place(b, images, _read(row_phase, r, one.row, top, height),
                                 _read(column_phase, c, one.column, left, width))
            stationary = weights.at(0, cell).cut(0, block, product.lanes, product.blocks)
            if product.doubled and not one.both:
                half = moving.partitions // 2
                moving, stationary = moving.rows(0, half), stationary.rows(0, half)
            out = sums.cut(1, top - r.first, height).cut(2, left - c.first, width)
            kernel.matmul(out.flat(), stationary.flat(), moving.flat(), accumulate=not first or number > 0)

    for part, image in enumerate(product.images):
        if image.blocks * len(passes) <= UNROLLED_PASSES:
            for b in range(image.blocks):
                run(part, b, not is_open)
                is_open = True
            continue
        run(part, 0, not is_open)
        is_open = True
        with kernel.loop(image.blocks - 1) as index:
            run(part, index + 1, False)


def _apart(kernel: Kernel, product: Product, matrices: Access | None, sums: Access, block: Index, images: tuple[Index, int],
           rows: Axis, columns: Axis) -> None:
    """sums [lanes; images, rows, columns] of one block of channels, each of the same channel of the image.

    In PSUM by the tensor engine, with matrices whose diagonals are the taps; in SBUF by Vector, the first tap by Scalar.
    """
    taps = product.weights
    assert isinstance(taps, Taps)
    (row_phase, r), (column_phase, c) = rows, columns
    passes = _passes(False, rows, columns)
    on_vector = sums.memory is Memory.SBUF
    is_open = not passes or (passes[0].rows, passes[0].columns) != ((r.first, r.count), (c.first, c.count))
    if is_open and on_vector:
        kernel.memset(sums.flat(), 0.0)
    elif is_open:
        assert matrices is not None
        open_sums(kernel, sums.flat(), matrices.dtype)
    (image,) = product.images
    for number, one in enumerate(passes):
        cell = one.row.number * product.columns_of_kernel + one.column.number
        (top, height), (left, width) = one.rows, one.columns
        read = image.place(block, images, _read(row_phase, r, one.row, top, height),
                           _read(column_phase, c, one.column, left, width)).flat()
        out = sums.cut(1, top - r.first, height).cut(2, left - c.first, width).flat()
        opens = number == 0 and not is_open
        if not on_vector:
            assert matrices is not None
            kernel.matmul(out, matrices.at(0, cell), read, accumulate=not opens)
            continue
        factor = taps.factors.at(0, block).cut(0, cell, 1)
        if opens:
            kernel.activation(out, read, scale=factor)
        else:
            kernel.emit(isa.vector.SCALAR_TENSOR_TENSOR, fields={"op0": "multiply", "op1": "add"}, data=read, scalar0=factor,
                        b=out, out=out)


def _read(phase: Phase, strip: Strip, cell: Cell, start: int, count: int) -> tuple[Index, int, int]:
    """The input elements that `count` outputs of a strip from `start` (as its first numbers them) read through a cell."""
    return (strip.at + (start - strip.first)) * phase.stride + cell.shift, count, phase.stride


# ---- windows and sums ------------------------------------------------------------------------------------------------


def reduce_window(kernel: Kernel, op: str, data: Access, out: Access, scratch: Access, rows: tuple[Phase, Strip],
                  columns: tuple[Phase, Strip], first_row: int) -> None:
    """out [lanes; images, rows, columns] = op over windows of data; first_row: the number of data's first row.

    scratch: [lanes; images, rows of data, columns of out].
    """
    _along(kernel, op, data, scratch, 2, columns[0], columns[1], 0)
    _along(kernel, op, scratch, out, 1, rows[0], rows[1], first_row)


def _along(kernel: Kernel, op: str, data: Access, out: Access, dim: int, phase: Phase, strip: Strip, origin: int) -> None:
    """Reduce free dimension `dim` by windows, outputs that have the same cells together."""
    start, end = strip.first, strip.first + strip.count
    while start < end:
        cells = [cell for cell in phase.cells if phase.covers(cell, start, 1)]
        count = 1
        while start + count < end and cells == [cell for cell in phase.cells if phase.covers(cell, start + count, 1)]:
            count += 1
        assert cells, "a window has at least one element"
        step = cells[1].shift - cells[0].shift if len(cells) > 1 else 1
        low = start * phase.stride + cells[0].shift - origin
        read = data.cut(dim, low, count, phase.stride)
        place = out.cut(dim, start - strip.first, count)
        if len(cells) == 1:
            kernel.copy(place.flat(), read.flat())
        else:
            near = data.dims[dim][0]
            walk = Access(read.memory, read.dtype, read.partition, read.partitions, read.offset,
                          (*_merged(read), (near * step, len(cells))))
            kernel.tensor_reduce(place.flat(), walk, op, 1)
        start += count


def _merged(access: Access) -> tuple[tuple[int, int], ...]:
    return access.flat().dims


def total(kernel: Kernel, op: str, data: Access, out: Access) -> None:
    """out [lanes; images] = op over all places of data [lanes; images, rows, columns]."""
    images = data.dims[0][1]
    places = data.reshape(images, data.free // images)
    kernel.tensor_reduce(out.reshape(images), places, op, 1, engine=Engine.VECTOR)
