"""Schedules of the profiled kernels of NKIBench (f32, AccelOpt repository, NKIBench/kernels), as their sources loop.

The profiles say what the compiler made of them: loads hoisted or repeated (bytes read), which engine copied (active times).
"""

from __future__ import annotations

from calibration.writing import P, arrived, block, folded, matrix, products, rotated

from nxcc.backends.isa.program import Engine
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32

# ---- elementwise --------------------------------------------------------------------------------------------------------


def silu(kernel: Kernel) -> None:
    """x * sigmoid(x) over 4096 x 7168: rows on partitions, half a row at once, one activation an element."""
    rows, columns = 4096, 7168
    source, target = matrix(0, rows, columns), matrix(1, rows, columns)
    tiles = [[kernel.sbuf((P, columns // 2), F32) for _ in range(2)] for _ in range(4)]
    with rotated(kernel, rows // P) as indices:
        for number, r in enumerate(indices):
            for half in range(2):
                x, y = tiles[2 * number + half]
                kernel.dma(x, block(source, r * P, P, half * columns // 2, columns // 2))
                kernel.activation(y, x, "silu")
                kernel.dma(block(target, r * P, P, half * columns // 2, columns // 2), y, engine=Engine.SCALAR)


ROTATION = (("a", "x0", "cos", "multiply"), ("b", "x1", "sin", "multiply"), ("c", "x0", "sin", "multiply"),
            ("d", "x1", "cos", "multiply"), ("a", "a", "b", "subtract"), ("c", "c", "d", "add"))


def rope(kernel: Kernel) -> None:
    """Rotary embedding over 128 x 262144: both halves on 64 partitions, six products and sums of all columns."""
    columns, width = 262144, 2048
    source, target = matrix(0, P, columns), matrix(1, P, columns)
    cosines, sines = matrix(2, 64, columns), matrix(3, 64, columns)
    names = ("x0", "x1", "cos", "sin", "a", "b", "c", "d")
    rings = [{name: kernel.sbuf((64, width), F32) for name in names} for _ in range(2)]
    with rotated(kernel, columns // width) as indices:
        for index, t in zip(indices, rings, strict=True):
            for name, view, row in (("x0", source, 0), ("x1", source, 64), ("cos", cosines, 0), ("sin", sines, 0)):
                kernel.dma(t[name], block(view, row, 64, index * width, width))
            for out, a, b, op in ROTATION:
                kernel.tensor_tensor(t[out], t[a], t[b], op)
            kernel.dma(block(target, 0, 64, index * width, width), t["a"], engine=Engine.SCALAR)
            kernel.dma(block(target, 64, 64, index * width, width), t["c"], engine=Engine.SCALAR)


def adamw(kernel: Kernel) -> None:
    """A step of AdamW over 10944 x 2048 (86 tiles of rows here): six operations of two tensors on Vector, the scalings, square
    root and reciprocal on Scalar, in pieces of 512 columns."""
    rows, columns, width = 86 * P, 2048, 1024
    theta, g, m, v, out = (matrix(n, rows, columns) for n in range(5))
    loaded = [{name: kernel.sbuf((P, width), F32) for name in ("theta", "m", "v", "g", "o")} for _ in range(2)]
    scratch = [{name: kernel.sbuf((P, 512), F32) for name in ("p", "q", "r", "s", "t")} for _ in range(2)]
    with kernel.loop(rows // P) as row, rotated(kernel, columns // width) as starts:
        for start, held in zip(starts, loaded, strict=True):
            for name, source in (("theta", theta), ("m", m), ("v", v), ("g", g)):
                kernel.dma(held[name], block(source, row * P, P, start * width, width))
            pieces = [({name: held[name].cut(0, piece * 512, 512) for name in held}, scratch[piece]) for piece in range(2)]
            for x, t in pieces:
                kernel.activation(t["p"], x["g"], scale=0.1)
                kernel.activation(t["q"], x["m"], scale=0.9)
                kernel.activation(t["r"], x["g"], scale=0.001)
                kernel.activation(t["s"], x["v"], scale=0.999)
            for x, t in pieces:
                kernel.tensor_tensor(t["r"], t["r"], x["g"], "multiply")
                kernel.tensor_tensor(t["s"], t["s"], t["r"], "add")
            for _, t in pieces:
                kernel.activation(t["s"], t["s"], "sqrt", scale=1000.0)
            for x, t in pieces:
                kernel.tensor_tensor(t["q"], t["q"], t["p"], "add")
                kernel.activation(t["t"], x["theta"], scale=1e-5)
                kernel.tensor_tensor(t["p"], x["theta"], t["t"], "subtract")
            for _, t in pieces:
                kernel.activation(t["s"], t["s"], "reciprocal")
            for x, t in pieces:
                kernel.activation(t["q"], t["q"], scale=0.01)
                kernel.tensor_tensor(t["q"], t["q"], t["s"], "multiply")
                kernel.tensor_tensor(x["o"], t["p"], t["q"], "subtract")
            kernel.dma(block(out, row * P, P, start * width, width), held["o"], engine=Engine.SCALAR)


# ---- products -----------------------------------------------------------------------------------------------------------


def turned_rows(kernel: Kernel, out: Access, rows: Access, banks: list[Access]) -> None:
    """out [128, squares, 128] = squares of rows [128, squares * 128] turned by PE, four in a bank, copied by Scalar."""
    for group in range(0, out.sizes[1], 4):
        bank = banks[group // 4 % len(banks)]
        for square in range(4):
            kernel.pe_transpose(bank.at(0, square), rows.cut(0, (group + square) * P, P))
        kernel.activation(out.cut(0, group, 4), bank)


def bmm(kernel: Kernel) -> None:
    """16 products of 4096 x 64 and 64 x 4096: half the array, eviction on Scalar, bound by the stores."""
    batch, rows, inner, columns = 16, 4096, 64, 4096
    left, right, out = matrix(0, batch * inner, rows), matrix(1, batch * inner, columns), matrix(2, batch * rows, columns)
    operands = [(kernel.sbuf((inner, rows), F32), kernel.sbuf((inner, columns), F32)) for _ in range(2)]
    results = [kernel.sbuf((P, columns), F32) for _ in range(4)]
    sums = [kernel.psum((P, 512)) for _ in range(8)]
    with rotated(kernel, batch) as batches:
        for n, (a, b) in zip(batches, operands, strict=True):
            kernel.dma(a, block(left, n * inner, inner, 0, rows))
            kernel.dma(b, block(right, n * inner, inner, 0, columns))
            with rotated(kernel, rows // P, 4) as indices:
                for m, result in zip(indices, results, strict=True):
                    for c in range(columns // 512):
                        kernel.matmul(sums[c], a.cut(0, m * P, P), b.cut(0, c * 512, 512))
                        kernel.activation(result.cut(0, c * 512, 512), sums[c])
                    kernel.dma(block(out, n * rows + m * P, P, 0, columns), result, engine=Engine.SCALAR)


def matmul(kernel: Kernel) -> None:
    """4096 x 5120 by 5120 x 12288: for each 128 x 1024 results the right operand is read again, which bounds it."""
    rows, inner, columns, width = 4096, 5120, 12288, 1024
    left, right, out = matrix(0, rows, inner), matrix(1, inner, columns), matrix(2, rows, columns)
    ring = [kernel.sbuf((P, width), F32) for _ in range(8)]
    raw = [kernel.sbuf((P, inner), F32) for _ in range(2)]
    turned = [kernel.sbuf((P, inner // P, P), F32) for _ in range(2)]
    results = [kernel.sbuf((P, width), F32) for _ in range(2)]
    banks = [kernel.psum((P, 4, P), F32) for _ in range(2)]
    sums = [[kernel.psum((P, 512)) for _ in range(2)] for _ in range(2)]
    with kernel.loop(columns // width) as n, rotated(kernel, rows // P) as indices:
        for m, x, x_turned, result, parts in zip(indices, raw, turned, results, sums, strict=True):
            kernel.dma(x, block(left, m * P, P, 0, inner))
            turned_rows(kernel, x_turned, x, banks)
            for part in parts:
                kernel.memset(part, 0)
            with rotated(kernel, inner // P, 8) as depths:
                for k, w in zip(depths, ring, strict=True):
                    kernel.dma(w, block(right, k * P, P, n * width, width))
                    for half, part in enumerate(parts):
                        kernel.matmul(part, x_turned.at(0, k), w.cut(0, half * 512, 512), accumulate=True)
            for half, part in enumerate(parts):
                kernel.activation(result.cut(0, half * 512, 512), part)
            kernel.dma(block(out, m * P, P, n * width, width), result, engine=Engine.SCALAR)


def _row_products(kernel: Kernel, held: View, inner: int, columns: int) -> tuple[Access, list[Access], list[Access]]:
    """Weights [128, inner / 128, columns] that stay, banks for turning and for sums."""
    weights = kernel.sbuf((P, inner // P, columns), F32)
    kernel.dma(weights, folded(held, 0, inner // P, 0, columns))
    return weights, [kernel.psum((P, 4, P), F32) for _ in range(2)], [kernel.psum((P, 512)) for _ in range(4)]


def _normalised(kernel: Kernel, out: Access, x: Access, squares: Access, sum: Access) -> None:
    """out = x / sqrt(mean of x * x)."""
    kernel.activation(squares, x, "square", sum=sum)
    kernel.activation(sum, sum, "rsqrt", scale=1 / x.free)
    kernel.activation(out, x, scale=sum)


def rmsnorm_matmul(kernel: Kernel, added: bool = False) -> None:
    """4096 rows of 1024, normalised, times 1024 x 2048 that stays; added: a second operand and a gain a column first."""
    rows, inner, columns = 4096, 1024, 2048
    x, w, out, z = matrix(0, rows, inner), matrix(1, inner, columns), matrix(2, rows, columns), matrix(3, rows, inner)
    weights, banks, sums = _row_products(kernel, w, inner, columns)
    gain = kernel.sbuf((P, inner), F32)
    kernel.dma(gain, block(z, 0, 1, 0, inner).at(0, 0).insert(0, P))
    tiles = [{"x": kernel.sbuf((P, inner), F32), "z": kernel.sbuf((P, inner), F32), "s": kernel.sbuf((P, 1), F32),
              "t": kernel.sbuf((P, inner // P, P), F32), "o": kernel.sbuf((P, columns), F32)} for _ in range(4)]
    squares = [kernel.sbuf((P, inner), F32) for _ in range(2)]

    def prepare(index: Index, number: int) -> None:
        t = tiles[number]
        kernel.dma(t["x"], block(x, index * P, P, 0, inner))
        if added:
            kernel.dma(t["z"], block(z, index * P, P, 0, inner))
            kernel.tensor_tensor(t["x"], t["x"], t["z"], "add")
        _normalised(kernel, t["z"], t["x"], squares[number % 2], t["s"])
        if added:
            kernel.tensor_tensor(t["z"], t["z"], gain, "multiply")

    def multiply(index: Index, number: int) -> None:
        t = tiles[number]
        turned_rows(kernel, t["t"], t["z"], banks)
        for n in range(columns // 512):
            for k in range(inner // P):
                kernel.matmul(sums[n], t["t"].at(0, k), weights.at(0, k).cut(0, n * 512, 512), accumulate=k > 0)
            kernel.activation(t["o"].cut(0, n * 512, 512), sums[n])
        kernel.dma(block(out, index * P, P, 0, columns), t["o"], engine=Engine.SCALAR)

    prepare(Expr(0), 0)
    with kernel.loop(rows // P // 4) as four:
        for number in range(4):
            prepare(four * 4 + number + 1, (number + 1) % 4)
            multiply(four * 4 + number, number)


def add_rmsnorm_matmul(kernel: Kernel) -> None:
    """As rmsnorm_matmul, of a sum of two operands and with a gain."""
    rmsnorm_matmul(kernel, added=True)


def matmul_add_rmsnorm(kernel: Kernel) -> None:
    """4096 x 2048 by 2048 x 2048, a second operand added and the rows normalised: the rows turned again for each 512 columns.

    The weights stay (16.8 MB of the 24 MiB, as the bytes read say).
    """
    rows, inner, columns = 4096, 2048, 2048
    x, w, z, out = matrix(0, rows, inner), matrix(1, inner, columns), matrix(2, rows, columns), matrix(3, rows, columns)
    weights, banks, sums = _row_products(kernel, w, inner, columns)
    tile = {name: kernel.sbuf((P, inner), F32) for name in ("x", "y", "q")} | {"s": kernel.sbuf((P, 1), F32)}
    turned = kernel.sbuf((P, inner // P, P), F32)
    with kernel.loop(rows // P) as m:
        kernel.dma(tile["x"], block(x, m * P, P, 0, inner))
        for n in range(columns // 512):
            turned_rows(kernel, turned, tile["x"], banks)
            for k in range(inner // P):
                kernel.matmul(sums[n], turned.at(0, k), weights.at(0, k).cut(0, n * 512, 512), accumulate=k > 0)
            kernel.activation(tile["y"].cut(0, n * 512, 512), sums[n])
        kernel.dma(tile["q"], block(z, m * P, P, 0, columns))
        kernel.tensor_tensor(tile["y"], tile["y"], tile["q"], "add")
        _normalised(kernel, tile["y"], tile["y"], tile["q"], tile["s"])
        kernel.tensor_tensor(tile["y"], tile["y"], tile["y"], "multiply")
        kernel.dma(block(out, m * P, P, 0, columns), tile["y"], engine=Engine.SCALAR)


def turned_in_memory(kernel: Kernel, rows: View, columns: View, banks: list[Access]) -> None:
    """columns = rows, turned by the tensor engine 128 rows at once, on their way through the chip."""
    count, width = rows.sizes
    with kernel.scope():
        raw, turned = ([kernel.sbuf((P, width), F32) for _ in range(2)] for _ in range(2))
        with rotated(kernel, count // P) as indices:
            for m, rows_of, columns_of in zip(indices, raw, turned, strict=True):
                kernel.dma(rows_of, block(rows, m * P, P, 0, width))
                squares = columns_of.reshape(width // P, P)
                turned_rows(kernel, squares, rows_of, banks)
                kernel.dma(folded(columns, 0, width // P, m * P, P), squares, engine=Engine.SCALAR)


def swiglu(kernel: Kernel) -> None:
    """(silu(x . gate) * (x . up)) . down over 4096 x 1024 x 3072: three products with the weights stationary, 1024 columns of
    them at once; the rows are turned once and go through HBM, and so does the gated product's first half."""
    rows, inner, hidden, width = 4096, 1024, 3072, 1024
    x, out = matrix(0, rows, inner), matrix(1, rows, inner)
    gate, up, down = matrix(2, inner, hidden), matrix(3, inner, hidden), matrix(4, hidden, inner)
    x_turned, gated, product = matrix(5, inner, rows), matrix(6, hidden, rows), matrix(7, hidden, rows)
    banks, sums = [kernel.psum((P, 4, P), F32) for _ in range(2)], [kernel.psum((P, 512)) for _ in range(4)]
    turned_in_memory(kernel, x, x_turned, banks)

    def stage(weights: View, source: View, depth: int, target: View, function: str, other: View | None) -> None:
        """target [columns of weights, rows] = function(weights^T . source) * other, `width` columns and 512 rows at once."""
        held = kernel.sbuf((P, depth // P, width), F32)
        moving = [kernel.sbuf((P, depth // P, 512), F32) for _ in range(2)]
        results = [kernel.sbuf((P, 512), F32) for _ in range(4)]
        others = [kernel.sbuf((P, 512), F32) for _ in range(4)]
        with kernel.loop(weights.sizes[1] // width) as n:
            kernel.dma(held, folded(weights, 0, depth // P, n * width, width))
            arrived(kernel, sums[0], held)
            with rotated(kernel, rows // 512) as indices:
                for m, tile in zip(indices, moving, strict=True):
                    kernel.dma(tile, folded(source, 0, depth // P, m * 512, 512))
                    arrived(kernel, sums[0], tile)
                    for c in range(width // P):
                        place, result = (n * width + c * P, P, m * 512, 512), results[c % 4]
                        if other is not None:
                            kernel.dma(others[c % 4], block(other, *place))
                        products(kernel, sums[c % 4], depth // P, lambda k, c=c: held.at(0, k).cut(0, c * P, P),
                                 lambda k, tile=tile: tile.at(0, k))
                        if other is not None:
                            kernel.tensor_tensor(result, others[c % 4], sums[c % 4], "multiply")
                        else:
                            kernel.activation(result, sums[c % 4], function)
                        kernel.dma(block(target, *place), result, engine=Engine.SCALAR)

    with kernel.scope():
        stage(gate, x_turned, inner, gated, "silu", None)
    with kernel.scope():
        stage(up, x_turned, inner, product, "copy", gated)
    held = kernel.sbuf((P, hidden // P, inner), F32)
    kernel.dma(held, folded(down, 0, hidden // P, 0, inner))
    arrived(kernel, sums[0], held)
    tiles = [(kernel.sbuf((P, hidden // P, P), F32), kernel.sbuf((P, inner), F32)) for _ in range(2)]
    with rotated(kernel, rows // P) as indices:
        for m, (tile, result) in zip(indices, tiles, strict=True):
            kernel.dma(tile, folded(product, 0, hidden // P, m * P, P))
            arrived(kernel, sums[0], tile)
            for n in range(inner // 512):
                products(kernel, sums[n], hidden // P, lambda k, tile=tile: tile.at(0, k),
                         lambda k, n=n: held.at(0, k).cut(0, n * 512, 512))
                kernel.activation(result.cut(0, n * 512, 512), sums[n])
            kernel.dma(block(out, m * P, P, 0, inner), result, engine=Engine.SCALAR)


def lora(kernel: Kernel) -> None:
    """x . w + (x . a) . b over 4096 x 5120 x 12288, rank 128: weights stationary, rows turned once and kept in HBM, and so are
    the product of low rank and the sums of each quarter of the depth; results turned back square by square."""
    rows, inner, columns, width, quarter = 4096, 5120, 12288, 1024, 10
    x, w, out = matrix(0, rows, inner), matrix(1, inner, columns), matrix(2, rows, columns)
    a, b, x_turned = matrix(3, inner, P), matrix(4, P, columns), matrix(5, inner, rows)
    low, partial = matrix(6, columns, rows), matrix(7, columns, rows)
    banks, sums = [kernel.psum((P, 4, P), F32) for _ in range(2)], [kernel.psum((P, 512)) for _ in range(4)]
    turned_in_memory(kernel, x, x_turned, banks)
    with kernel.scope():
        _low_rank(kernel, (a, b, x_turned, low), sums)
    held = kernel.sbuf((P, quarter, width), F32)
    moving = [kernel.sbuf((P, quarter, 512), F32) for _ in range(2)]
    others = [kernel.sbuf((P, 512), F32) for _ in range(4)]
    results = [kernel.sbuf((P, 512), F32) for _ in range(4)]
    backs = [kernel.sbuf((P, 4, P), F32) for _ in range(2)]

    def quarter_of(n: Expr, number: int) -> None:
        kernel.dma(held, folded(w, number * quarter * P, quarter, n * width, width))
        arrived(kernel, sums[0], held)
        with rotated(kernel, rows // 512) as indices:
            for m, tile in zip(indices, moving, strict=True):
                kernel.dma(tile, folded(x_turned, number * quarter * P, quarter, m * 512, 512))
                arrived(kernel, sums[0], tile)
                for c in range(width // P):
                    place, result = (n * width + c * P, P, m * 512, 512), results[c % 4]
                    kernel.dma(others[c % 4], block(partial if number else low, *place))
                    products(kernel, sums[c % 4], quarter, lambda k, c=c: held.at(0, k).cut(0, c * P, P),
                             lambda k, tile=tile: tile.at(0, k))
                    kernel.tensor_tensor(result, others[c % 4], sums[c % 4], "add")
                    if number < inner // P // quarter - 1:
                        kernel.dma(block(partial, *place), result, engine=Engine.SCALAR)
                        continue
                    back = backs[c % 2]
                    turned_rows(kernel, back, result, banks)
                    kernel.dma(folded(out, m * 512, 4, n * width + c * P, P), back, engine=Engine.SCALAR)

    with kernel.loop(columns // width) as n:
        for number in range(inner // P // quarter):
            quarter_of(n, number)


def _low_rank(kernel: Kernel, operands: tuple[View, View, View, View], sums: list[Access]) -> None:
    """low [columns, rows] = b^T . (a^T . x), 512 rows at a time."""
    a, b, x_turned, low = operands
    (inner, rows), columns = x_turned.sizes, b.sizes[1]
    narrow, wide = kernel.sbuf((P, inner // P, P), F32), kernel.sbuf((P, columns), F32)
    kernel.dma(narrow, folded(a, 0, inner // P, 0, P))
    kernel.dma(wide, b)
    arrived(kernel, sums[0], narrow)
    tiles = [(kernel.sbuf((P, 10, 512), F32), kernel.sbuf((P, 512), F32)) for _ in range(2)]
    results = [kernel.sbuf((P, 512), F32) for _ in range(4)]
    with kernel.loop(rows // 512) as m:
        product = tiles[0][1]
        for part in range(inner // P // 10):
            moving = tiles[part % 2][0]
            kernel.dma(moving, folded(x_turned, part * 10 * P, 10, m * 512, 512))
            for k in range(10):
                kernel.matmul(sums[0], narrow.at(0, part * 10 + k), moving.at(0, k), accumulate=part + k > 0)
        kernel.activation(product, sums[0])
        with rotated(kernel, columns // P, 4) as indices:
            for number, c in enumerate(indices):
                kernel.matmul(sums[number], wide.cut(0, c * P, P), product)
                kernel.activation(results[number], sums[number])
                kernel.dma(block(low, c * P, P, m * 512, 512), results[number], engine=Engine.SCALAR)
