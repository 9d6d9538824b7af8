"""Random bits: Threefry-2x32 and Philox-4x32 on counters that GpSimd makes, bit for bit as XLA has them.

Formulas after Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A block is what one encryption gives: two
words or four. How blocks lie in the result: HLO semantics notes, section 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.emission import emit_term, emit_terms
from nxcc.backends.lowering.registry import rule
from nxcc.backends.lowering.terms import Span, Term, bits, input_term, native, part
from nxcc.backends.lowering.tiling import flat_tiles, fold, load, store
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index
from nxcc.backends.tile.program import Access, View, contiguous, merge_dims
from nxcc.ir.dtypes import U8, U16, U32, DType
from nxcc.ir.hlo.module import Instruction

PARITY = 0x1BD11BDA
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
BUMPS = (0x9E3779B9, 0xBB67AE85)

COLUMNS_MAX = 512
"""Blocks of a row at most: some ten tiles of temporaries and up to four words of results lie beside each other."""

Cipher = Callable[[Sequence[Term], Term], list[Term]]
"""cipher(state, block): the words that the block of this number gives; state: its u32 words as columns, key first."""


def _sum(words: Sequence[Term], addend: Term) -> list[Term]:
    """A number of several u32 words plus one word, wrapping; the low word first."""
    result = []
    carry = addend
    for word in words:
        total = native("add", carry, word)
        carry = native("less", total, word)
        result.append(total)
    return result


def threefry(state: Sequence[Term], block: Term) -> list[Term]:
    """State: two key words, two counter words. 20 rounds."""
    first, second = state[:2]
    keys = (first, second, bits("bitwise_xor", bits("bitwise_xor", first, second), PARITY))
    low, high = _sum(state[2:4], block)
    x0, x1 = native("add", low, keys[0]), native("add", high, keys[1])
    for group in range(5):
        for places in ROTATIONS[group % 2]:
            x0 = native("add", x0, x1)
            rotated = bits("bitwise_or", bits("shift_left", x1, places), bits("shift_right_logical", x1, 32 - places))
            x1 = bits("bitwise_xor", rotated, x0)
        x0 = native("add", x0, keys[(group + 1) % 3])
        x1 = native("add", x1, native("add", keys[(group + 2) % 3], group + 1))
    return [x0, x1]


def philox(state: Sequence[Term], block: Term) -> list[Term]:
    """State: two key words, then two or four counter words; the counter's missing half is the key. 10 rounds."""
    k0, k1 = state[:2]
    counter = [*state[2:], *state[:2]] if len(state) == 4 else list(state[2:])
    c0, c1, c2, c3 = _sum(counter, block)
    for _ in range(10):
        high0, low0 = _product(c0, MULTIPLIERS[0])
        high1, low1 = _product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = _mixed(high1, c1, k0), low1, _mixed(high0, c3, k1), low0
        k0, k1 = native("add", k0, BUMPS[0]), native("add", k1, BUMPS[1])
    return [c0, c1, c2, c3]


def _mixed(a: Term, b: Term, key: Term) -> Term:
    return bits("bitwise_xor", bits("bitwise_xor", a, b), key)


def _product(a: Term, factor: int) -> tuple[Term, Term]:
    """High and low word of a * factor, from 16-bit halves."""
    factor_low, factor_high = factor & 0xFFFF, factor >> 16
    a_low, a_high = bits("bitwise_and", a, 0xFFFF), bits("shift_right_logical", a, 16)
    carry = bits("shift_right_logical", native("multiply", a_low, factor_low), 16)
    middle = native("add", native("multiply", a_high, factor_low), carry)
    other = native("add", native("multiply", a_low, factor_high), bits("bitwise_and", middle, 0xFFFF))
    high = native("add", native("multiply", a_high, factor_high), bits("shift_right_logical", middle, 16))
    return native("add", high, bits("shift_right_logical", other, 16)), native("multiply", a, factor)


def _unsupported(instruction: Instruction, target: Target) -> str | None:
    return None if Engine.GPSIMD in target.engines else f"{target.name} has no engine with 32-bit integers"


@rule("rng-bit-generator", unsupported=_unsupported)
def lower_bit_generator(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Bits in blocks, then the state with its counter grown by the blocks used."""
    state = _state_words(operands[0])
    out = results[-1]
    if 0 in out.sizes:
        blocks = 0
    elif instruction.attribute("algorithm") == "rng_three_fry":
        blocks = _threefry_result(kernel, state, out)
    else:
        blocks = _in_line(kernel, state, philox, 4, _words_in_line(out))
    if len(results) == 2:
        _advance(kernel, state, _state_words(results[0]), blocks)


def _state_words(state: View) -> list[View]:
    """The u32 words of the state, low ones first, each as a view of one element."""
    per_element = state.dtype.byte_size // 4
    stride, count = state.dims[0]
    places = [k * stride + 4 * w for k in range(count) for w in range(per_element)]
    return [View(state.memory, U32, state.address + place, ((0, 1),)) for place in places]


def _columns(kernel: Kernel, words: Sequence[View], rows: int) -> list[Access]:
    """Each word repeated in all rows."""
    return [load(kernel, replace(word, dims=((0, rows), (0, 1)))) for word in words]


def _words_in_line(out: View) -> View:
    """The result as one line of the units that a word fills: elements, or halves of 64-bit ones."""
    if out.dtype.byte_size == 8:
        return View(out.memory, U32, out.address, contiguous((out.elements * 2,), 4))
    return View(out.memory, out.dtype, out.address, contiguous((out.elements,), out.dtype.byte_size))


def _encrypt(kernel: Kernel, state: Sequence[View], cipher: Cipher, block: Access, outs: Sequence[Access]) -> None:
    """outs = the first words of the blocks whose numbers lie in a tile."""
    columns = _columns(kernel, state, block.partitions)
    span = Span.COLUMN if block.free > 1 else Span.TILE
    terms = [input_term(position, U32, span) for position in range(len(columns))]
    words = cipher(terms, input_term(len(columns), U32, Span.TILE))
    roots = [part(word, _unsigned(out.dtype)) for word, out in zip(words, outs, strict=False)]
    emit_terms(kernel, roots, [*columns, block], [out.retype(_unsigned(out.dtype)) for out in outs])


def _unsigned(dtype: DType) -> DType:
    return {1: U8, 2: U16, 4: U32}[dtype.byte_size]


def _in_line(kernel: Kernel, state: Sequence[View], cipher: Cipher, width: int, line: View) -> int:
    """Fill a line of words block by block, `width` words each; the last block may be used in part. Returns the blocks."""
    total = line.sizes[0]
    full, rest = divmod(total, width)
    columns = max(1, min(COLUMNS_MAX, -(-full // kernel.target.partitions)))
    for start, size in kernel.tiles(full, kernel.target.partitions * columns):
        rows, left = divmod(size, columns)
        if rows:
            _line_piece(kernel, state, cipher, width, line, (start, rows, columns))
        if left:
            _line_piece(kernel, state, cipher, width, line, (start + rows * columns, 1, left))
    if rest:
        with kernel.scope():
            _line_piece(kernel, state, cipher, rest, line, (full, 1, 1), width)
    return -(-total // width)


def _line_piece(kernel: Kernel, state: Sequence[View], cipher: Cipher, used: int, line: View, piece: tuple[Index, int, int],
                width: int | None = None) -> None:
    """rows x columns blocks from `start`, of which the first `used` words are stored."""
    start, rows, columns = piece
    with kernel.scope():
        words = kernel.sbuf((rows, columns, used), line.dtype)
        _encrypt(kernel, state, cipher, _block_numbers(kernel, start, rows, columns, columns, 1),
                 [words.at(1, place) for place in range(used)])
        cut = line.cut(0, start * (width or used), rows * columns * used)
        shaped = cut.reshape((rows, columns, used))
        assert shaped is not None
        kernel.dma(shaped, words)


def _block_numbers(kernel: Kernel, base: Index, rows: int, columns: int, row_step: int, column_step: int) -> Access:
    tile = kernel.sbuf((rows, columns), U32)
    kernel.iota(tile, base, (column_step,), row_step)
    return tile


# Threefry: the two words of a block are neighbours along one dimension

def _threefry_result(kernel: Kernel, state: Sequence[View], out: View) -> int:
    """64-bit elements take a block each; else one dimension is halved, rounded up, and blocks count through what is left."""
    sizes = out.sizes or (1,)
    even = [d for d, size in enumerate(sizes) if size % 2 == 0]
    dim = even[0] if even else max(range(len(sizes)), key=lambda d: (sizes[d], -d))
    inner = math.prod(sizes[dim + 1:])
    if out.dtype.byte_size == 8 or (inner == 1 and even):
        return _in_line(kernel, state, threefry, 2, _words_in_line(out))
    outer, size, byte_size = math.prod(sizes[:dim]), sizes[dim], out.dtype.byte_size
    half = -(-size // 2)
    block = View(out.memory, out.dtype, out.address, contiguous((outer, size, inner), byte_size))
    numbers = View(out.memory, U8, Expr(0), contiguous((outer, half, inner), 1))
    if even:
        _pieces(kernel, state, [block.cut(1, word, half, 2) for word in range(2)], numbers, (0, 1))
        return outer * half * inner
    with kernel.loop(outer) as index:
        line, row = block.at(0, index), numbers.at(0, index)
        for word, count in ((0, half), (1, size // 2)):
            if count:
                _pieces(kernel, state, [line.cut(0, word, count, 2)], row.cut(0, 0, count), (word,))
    return outer * half * inner


def _pieces(kernel: Kernel, state: Sequence[View], parts: Sequence[View], numbers: View, words: Sequence[int]) -> None:
    """Store the chosen words of each block; numbers: a view whose addresses are the blocks' numbers."""
    for *outs, count in flat_tiles(kernel, [*parts, numbers], COLUMNS_MAX):
        with kernel.scope():
            rows, columns = fold(count)
            step = [stride for stride, _ in _merged(count, rows)]
            block = _block_numbers(kernel, count.address, rows, columns, step[0], step[1])
            tiles = [kernel.sbuf((rows, columns), out.dtype) for out in outs]
            _encrypt(kernel, state, lambda terms, number: [threefry(terms, number)[word] for word in words], block, tiles)
            for out, tile in zip(outs, tiles, strict=True):
                store(kernel, out, tile)


def _merged(view: View, rows: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(stride, size) of a piece's rows and of its columns, each of which joins into one walk."""
    leading, product = 0, 1
    while product < rows:
        product *= view.sizes[leading]
        leading += 1
    sides = [merge_dims(side) or ((0, 1),) for side in (view.dims[:leading], view.dims[leading:])]
    assert all(len(side) == 1 for side in sides)
    return sides[0][0], sides[1][0]


def _advance(kernel: Kernel, state: Sequence[View], results: Sequence[View], blocks: int) -> None:
    """The key as it is; the counter, all words after the key, plus the blocks."""
    with kernel.scope():
        columns = _columns(kernel, state, 1)
        terms = [input_term(position, U32, Span.TILE) for position in range(len(columns))]
        sums = _sum(terms[2:], input_term(0, U32, Span.NUMBER, blocks))
        for column, result in zip(columns[:2], results[:2], strict=True):
            store(kernel, result, column)
        for word, result in zip(sums, results[2:], strict=True):
            out = kernel.sbuf((1, 1), U32)
            emit_term(kernel, word, columns, out)
            store(kernel, result, out)
