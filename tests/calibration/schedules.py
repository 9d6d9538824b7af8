"""Schedules of published kernels as tile programs, so that the clock is tested without our compiler's choices in between.

Each follows the loops that the kernel's authors describe. Buffers rotate twofold where two fit; loads go through one queue of
the Sync engine, stores through one of Scalar's. Addresses are places in HBM; values do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from nxcc.backends.assembly import BASE_REGISTER, assemble, plan_of
from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.instructions import control
from nxcc.backends.isa.layout import is_trigger
from nxcc.backends.isa.program import Affine, Engine, Function, Instruction, Memory, Program
from nxcc.backends.simulator.timing import Clock, Timing
from nxcc.backends.target import load_target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View, contiguous
from nxcc.ir.dtypes import BF16, F32, DType

V2 = load_target("v2")
P = 128
Operand = Callable[[Index], Access]
"""An operand of the k-th product."""


def matrix(number: int, rows: int, columns: int, dtype: DType = F32) -> View:
    """The number-th matrix in HBM."""
    return View(Memory.HBM, dtype, expr(number << 31), contiguous((rows, columns), dtype.byte_size))


def block(source: View, row: Index, rows: int, column: Index, columns: int) -> View:
    return source.cut(0, row, rows).cut(1, column, columns)


@contextmanager
def pairs(kernel: Kernel, count: int) -> Iterator[list[Expr]]:
    """A loop over 0..count-1 written twofold: yields the two indices of one round."""
    assert count % 2 == 0
    with kernel.loop(count // 2) as index:
        yield [index * 2, index * 2 + 1]


def program(kernel: Kernel) -> Program:
    """The kernel called once; its loads in one queue, its stores in another."""
    function = assemble(kernel.program, V2, plan_of(kernel.program, V2, overlapped=True)).function
    for stream in function.streams.values():
        for instruction in stream:
            if is_trigger(instruction.spec):
                instruction.fields["queue"] = 0
    calls = {engine: [Instruction(control.REGISTER_SET, fields={"register": BASE_REGISTER, "value": Affine(0)}),
                      Instruction(control.CALL, fields={"function": 0}), Instruction(control.HALT)]
             for engine in function.streams}
    return Program([function], [Function("main", calls)])


def timed(write: Callable[[Kernel], None]) -> Timing:
    kernel = Kernel(write.__name__, V2)
    write(kernel)
    return Clock(program(kernel), V2).time()


def microseconds(timing: Timing) -> float:
    return V2.nanoseconds(timing.ticks) / 1e3


# ---- the four matrix products of the NKI tutorial: 4096 x 8192 x 8192 in bf16, left operand transposed in memory -----------

M, K, N = 4096, 8192, 8192
LEFT, RIGHT, OUT = matrix(0, K, M, BF16), matrix(1, K, N, BF16), matrix(2, M, N, BF16)


def arrived(kernel: Kernel, out: Access, tile: Access) -> None:
    """Let PE wait once, here, for all transfers into a tile: a product of three of its elements, the first and the last too."""
    whole = tile.flat()
    stride = (whole.free - 1) // 2
    kernel.matmul(replace(out, dims=((1, 3),)), replace(whole, dims=((1, P),)), replace(whole, dims=((stride, 3),)))


def _products(kernel: Kernel, out: Access, count: int, stationary: Operand, moving: Operand) -> None:
    """out = sum of `count` products; stationary and moving give the operands of one."""
    kernel.matmul(out, stationary(0), moving(0))
    with kernel.loop(count - 1) as k:
        kernel.matmul(out, stationary(k + 1), moving(k + 1), accumulate=True)


def matmul_tiled(kernel: Kernel) -> None:
    """Every product loads both of its operands."""
    lefts = [kernel.sbuf((P, P), BF16) for _ in range(2)]
    rights = [kernel.sbuf((P, 512), BF16) for _ in range(2)]
    result = kernel.sbuf((P, 512), BF16)
    out = kernel.psum((P, 512))
    with kernel.loop(M // P) as m, kernel.loop(N // 512) as n:
        kernel.memset(out, 0)
        with pairs(kernel, K // P) as indices:
            for k, left, right in zip(indices, lefts, rights, strict=True):
                kernel.dma(left, block(LEFT, k * P, P, m * P, P))
                kernel.dma(right, block(RIGHT, k * P, P, n * 512, 512))
                kernel.matmul(out, left, right, accumulate=True)
        kernel.copy(result, out)
        kernel.dma(block(OUT, m * P, P, n * 512, 512), result, engine=Engine.SCALAR)


def matmul_hoisted(kernel: Kernel) -> None:
    """Loads leave the innermost loop: the left operand stays for a row of tiles."""
    left = kernel.sbuf((P, K // P, P), BF16)
    rights = [kernel.sbuf((P, K // P, 512), BF16) for _ in range(2)]
    results = [kernel.sbuf((P, 512), BF16) for _ in range(2)]
    outs = [kernel.psum((P, 512)) for _ in range(2)]
    with kernel.loop(M // P) as m:
        for k in range(K // P):
            kernel.dma(left.at(0, k), block(LEFT, k * P, P, m * P, P))
        arrived(kernel, outs[0], left)
        with pairs(kernel, N // 512) as indices:
            for n, right, result, out in zip(indices, rights, results, outs, strict=True):
                for k in range(K // P):
                    kernel.dma(right.at(0, k), block(RIGHT, k * P, P, n * 512, 512))
                arrived(kernel, out, right)
                _products(kernel, out, K // P, lambda k: left.at(0, k), lambda k, right=right: right.at(0, k))
                kernel.copy(result, out)
                kernel.dma(block(OUT, m * P, P, n * 512, 512), result, engine=Engine.SCALAR)


def matmul_blocked(kernel: Kernel) -> None:
    """Blocks of 2 x 2 tiles share what is loaded; one block of each operand fits."""
    left = kernel.sbuf((P, K // P, 2 * P), BF16)
    right = kernel.sbuf((P, K // P, 1024), BF16)
    result = kernel.sbuf((P, 512), BF16)
    outs = [kernel.psum((P, 512)) for _ in range(4)]
    with kernel.loop(M // (2 * P)) as m:
        for k in range(K // P):
            kernel.dma(left.at(0, k), block(LEFT, k * P, P, m * (2 * P), 2 * P))
        arrived(kernel, outs[0], left)
        with kernel.loop(N // 1024) as n:
            for k in range(K // P):
                kernel.dma(right.at(0, k), block(RIGHT, k * P, P, n * 1024, 1024))
            arrived(kernel, outs[0], right)
            for number, out in enumerate(outs):
                row, column = divmod(number, 2)
                _products(kernel, out, K // P, lambda k, row=row: left.at(0, k).cut(0, row * P, P),
                          lambda k, column=column: right.at(0, k).cut(0, column * 512, 512))
                kernel.copy(result, out)
                kernel.dma(block(OUT, m * (2 * P) + row * P, P, n * 1024 + column * 512, 512), result, engine=Engine.SCALAR)


def matmul_full(kernel: Kernel) -> None:
    """Blocks in all three dimensions: 2048 x 1024 x 1024, sums of blocks kept in SBUF."""
    tiles_m, tiles_k, half = 16, 8, 512
    depth = tiles_k * P
    lefts = [kernel.sbuf((P, tiles_k, tiles_m * P), BF16) for _ in range(2)]
    rights = [kernel.sbuf((P, tiles_k, 1024), BF16) for _ in range(2)]
    sums = kernel.sbuf((P, M // P, 1024), BF16)
    outs = [kernel.psum((P, half)) for _ in range(2)]
    with kernel.loop(N // 1024) as n:
        with kernel.loop(M // P) as m:
            kernel.memset(sums.at(0, m), 0)
        with pairs(kernel, K // depth) as blocks:
            for bk, right in zip(blocks, rights, strict=True):
                for k in range(tiles_k):
                    kernel.dma(right.at(0, k), block(RIGHT, bk * depth + k * P, P, n * 1024, 1024))
                arrived(kernel, outs[0], right)
                for bm, left in enumerate(lefts):
                    for k in range(tiles_k):
                        kernel.dma(left.at(0, k), block(LEFT, bk * depth + k * P, P, bm * tiles_m * P, tiles_m * P))
                    arrived(kernel, outs[0], left)
                    with kernel.loop(tiles_m) as m:
                        _block_row(kernel, left, right, outs, sums.at(0, m + bm * tiles_m), m)
        with kernel.loop(M // P) as m:
            kernel.dma(block(OUT, m * P, P, n * 1024, 1024), sums.at(0, m), engine=Engine.SCALAR)


def _block_row(kernel: Kernel, left: Access, right: Access, outs: list[Access], sums: Access, m: Expr) -> None:
    """Products of one row of tiles with a block, added to the sums so far."""
    for column, out in enumerate(outs):
        _products(kernel, out, left.sizes[1], lambda k: left.at(0, k).cut(0, m * P, P),
                  lambda k, column=column: right.at(0, k).cut(0, column * 512, 512))
        part = sums.cut(0, column * 512, 512)
        kernel.tensor_tensor(part, part, out, "add")


# ---- kernels of NKIBench, fp32 ------------------------------------------------------------------------------------------


def silu(kernel: Kernel) -> None:
    """x * sigmoid(x) over 4096 x 7168: rows on partitions, the whole row at once; one activation and one product an element."""
    rows, columns = 4096, 7168
    source, target = matrix(0, rows, columns), matrix(1, rows, columns)
    tiles = [[kernel.sbuf((P, columns // 2), F32) for _ in range(2)] for _ in range(2)]
    with pairs(kernel, rows // P) as indices:
        for r in indices:
            for half, (x, y) in enumerate(tiles):
                kernel.dma(x, block(source, r * P, P, half * columns // 2, columns // 2))
                kernel.activation(y, x, "silu")
                kernel.dma(block(target, r * P, P, half * columns // 2, columns // 2), y, engine=Engine.SCALAR)


ROTATION = (("a", "x0", "cos", "multiply"), ("b", "x1", "sin", "multiply"), ("c", "x0", "sin", "multiply"),
            ("d", "x1", "cos", "multiply"), ("a", "a", "b", "subtract"), ("c", "c", "d", "add"))


def rope(kernel: Kernel) -> None:
    """Rotary embedding over 128 x 262144: both halves of 64 partitions, six products and sums of all columns."""
    columns, width = 262144, 2048
    source, target = matrix(0, P, columns), matrix(1, P, columns)
    cosines, sines = matrix(2, 64, columns), matrix(3, 64, columns)
    names = ("x0", "x1", "cos", "sin", "a", "b", "c", "d")
    rings = [{name: kernel.sbuf((64, width), F32) for name in names} for _ in range(2)]
    with pairs(kernel, columns // width) as indices:
        for index, t in zip(indices, rings, strict=True):
            for name, view, row in (("x0", source, 0), ("x1", source, 64), ("cos", cosines, 0), ("sin", sines, 0)):
                kernel.dma(t[name], block(view, row, 64, index * width, width))
            for out, a, b, op in ROTATION:
                kernel.tensor_tensor(t[out], t[a], t[b], op)
            kernel.dma(block(target, 0, 64, index * width, width), t["a"], engine=Engine.SCALAR)
            kernel.dma(block(target, 64, 64, index * width, width), t["c"], engine=Engine.SCALAR)


def bmm(kernel: Kernel) -> None:
    """16 products of 4096 x 64 and 64 x 4096: half the array, eviction on Scalar, bound by the stores."""
    batch, rows, inner, columns = 16, 4096, 64, 4096
    left, right, out = matrix(0, batch * inner, rows), matrix(1, batch * inner, columns), matrix(2, batch * rows, columns)
    operands = [(kernel.sbuf((inner, rows), F32), kernel.sbuf((inner, columns), F32)) for _ in range(2)]
    results = [kernel.sbuf((P, columns), F32) for _ in range(2)]
    sums = [kernel.psum((P, 512)) for _ in range(4)]
    with pairs(kernel, batch) as batches:
        for n, (a, b) in zip(batches, operands, strict=True):
            kernel.dma(a, block(left, n * inner, inner, 0, rows))
            kernel.dma(b, block(right, n * inner, inner, 0, columns))
            with pairs(kernel, rows // P) as indices:
                for m, result in zip(indices, results, strict=True):
                    for c in range(columns // 512):
                        part = sums[c % 4]
                        kernel.matmul(part, a.cut(0, m * P, P), b.cut(0, c * 512, 512))
                        kernel.activation(result.cut(0, c * 512, 512), part)
                    kernel.dma(block(out, n * rows + m * P, P, 0, columns), result, engine=Engine.SCALAR)


def transpose_matmul(kernel: Kernel) -> None:
    """4096 x 2048 x 10944 in f32: a block of 1024 rows of the left operand stays, the right one streams by four times."""
    rows, inner, columns, tiles = 4096, 2048, 10944, 8
    left, right, out = matrix(0, inner, rows), matrix(1, inner, columns), matrix(2, rows, columns)
    lefts = kernel.sbuf((P, inner // P, tiles * P), F32)
    rights = [kernel.sbuf((P, inner // P, 512), F32) for _ in range(2)]
    results = [kernel.sbuf((P, 512), F32) for _ in range(2)]
    sums = [kernel.psum((P, 512)) for _ in range(4)]

    def column(mb: Expr, n: Index, width: int, held: Access) -> None:
        for k in range(inner // P):
            kernel.dma(held.at(0, k).cut(0, 0, width), block(right, k * P, P, n * 512, width))
        arrived(kernel, sums[0], held)
        for m in range(tiles):
            part, result = replace(sums[m % 4], dims=((1, width),)), replace(results[m % 2], dims=((1, width),))
            _products(kernel, part, inner // P, lambda k, m=m: lefts.at(0, k).cut(0, m * P, P),
                      lambda k: held.at(0, k).cut(0, 0, width))
            kernel.activation(result, part)
            kernel.dma(block(out, mb * (tiles * P) + m * P, P, n * 512, width), result, engine=Engine.SCALAR)

    with kernel.loop(rows // (tiles * P)) as mb:
        for k in range(inner // P):
            kernel.dma(lefts.at(0, k), block(left, k * P, P, mb * (tiles * P), tiles * P))
        arrived(kernel, sums[0], lefts)
        with pairs(kernel, columns // 512 - 1) as indices:
            for n, held in zip(indices, rights, strict=True):
                column(mb, n, 512, held)
        column(mb, columns // 512 - 1, 512, rights[0])
        column(mb, columns // 512, columns % 512, rights[1])


# ---- selective scan of the NKI tutorial, first version: states outside, channels inside, inputs loaded again ----------------


def _selective_scan(kernel: Kernel, channels: int, length: int = 512, states: int = 16) -> None:
    delta, u, out = matrix(0, channels, length), matrix(1, channels, length), matrix(2, channels, length)
    a, b, c = matrix(3, channels, states), matrix(4, states, length), matrix(5, states, length)
    total = kernel.sbuf((P, channels // P, length), F32)
    rings = [{name: kernel.sbuf((P, length), F32) for name in ("d", "u", "e", "du", "s")} | {"a": kernel.sbuf((P, 1), F32)}
             for _ in range(2)]
    shared = [(kernel.sbuf((P, length), F32), kernel.sbuf((P, length), F32)) for _ in range(2)]
    with kernel.loop(channels // P) as tile:
        kernel.memset(total.at(0, tile), 0)
    with pairs(kernel, states) as indices:
        for state, (b_tile, c_tile) in zip(indices, shared, strict=True):
            kernel.dma(b_tile, block(b, state, 1, 0, length).at(0, 0).insert(0, P))
            kernel.dma(c_tile, block(c, state, 1, 0, length).at(0, 0).insert(0, P))
            with pairs(kernel, channels // P) as tiles:
                for tile, t in zip(tiles, rings, strict=True):
                    kernel.dma(t["d"], block(delta, tile * P, P, 0, length))
                    kernel.dma(t["u"], block(u, tile * P, P, 0, length))
                    kernel.dma(t["a"], block(a, tile * P, P, state, 1))
                    kernel.activation(t["e"], t["d"], "exp", scale=t["a"])
                    kernel.tensor_tensor(t["du"], t["d"], t["u"], "multiply")
                    kernel.tensor_tensor(t["du"], t["du"], b_tile, "multiply")
                    kernel.emit(isa.vector.TENSOR_TENSOR_SCAN, fields={"op0": "multiply", "op1": "add", "initial_value": 0.0},
                                a=t["e"], b=t["du"], out=t["s"])
                    kernel.tensor_tensor(t["s"], t["s"], c_tile, "multiply")
                    kernel.tensor_tensor(total.at(0, tile), total.at(0, tile), t["s"], "add")
    with kernel.loop(channels // P) as tile:
        kernel.dma(block(out, tile * P, P, 0, length), total.at(0, tile), engine=Engine.SCALAR)


def scan_256(kernel: Kernel) -> None:
    """256 channels, 512 steps, 16 states."""
    _selective_scan(kernel, 256)


def scan_4096(kernel: Kernel) -> None:
    """4096 channels, 512 steps, 16 states."""
    _selective_scan(kernel, 4096)
