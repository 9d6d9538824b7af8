"""Schedules of published selective scans and of a depthwise convolution: kernels that Vector bounds.

The NKI tutorial's fused Mamba kernel in its three versions, the same kernel in NKIBench, and the depthwise convolution that a
published search over kernels found (Autocomp, trn-advanced/4_conv1d). A row of B or C reaches all partitions by a product with
ones on PE; where several tiles of channels use it, Scalar copies it to SBUF once, else Vector reads it from PSUM.
"""

from __future__ import annotations

from collections.abc import Callable

from calibration.writing import P, block, matrix, rotated

from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.program import Engine
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32

WIDTH = 512
"""Steps of a tile: what PSUM holds of a broadcast row."""


class _Scan:
    """Operands in HBM and what one state does with a tile of channels."""

    def __init__(self, kernel: Kernel, channels: int, length: int, states: int) -> None:
        self.kernel, self.channels, self.length, self.states = kernel, channels, length, states
        self.delta, self.u, self.out = (matrix(n, channels, length) for n in range(3))
        self.a, self.b, self.c = matrix(3, channels, states), matrix(4, states, length), matrix(5, states, length)
        self.ones = kernel.sbuf((1, P), F32)
        kernel.memset(self.ones, 1.0)

    def spread(self, row: Access, source: View, state: Index, start: Index, out: Access) -> None:
        """out [128, 512] = a row of B or C in all partitions."""
        self.kernel.dma(row, block(source, state, 1, start, WIDTH))
        self.kernel.matmul(out, self.ones, row)

    def step(self, t: dict[str, Access], du: Access, b: Access, c: Access, initial: Access | None) -> None:
        """exp(delta * a), delta * u * b, the scan, its product with c."""
        kernel = self.kernel
        kernel.activation(t["e"], t["d"], "exp", scale=t["a"])
        kernel.tensor_tensor(t["bu"], du, b, "multiply")
        kernel.emit(isa.vector.TENSOR_TENSOR_SCAN, fields={"op0": "multiply", "op1": "add", "initial_value": 0.0},
                    a=t["e"], b=t["bu"], out=t["s"], initial=initial)
        kernel.tensor_tensor(t["bu"], t["s"], c, "multiply")

    def tiles(self, names: tuple[str, ...]) -> dict[str, Access]:
        return {name: self.kernel.sbuf((P, WIDTH), F32) for name in names} | {"a": self.kernel.sbuf((P, 1), F32)}


def states_outside(kernel: Kernel, channels: int, length: int = WIDTH) -> None:
    """Version 1: states outside, channels inside, delta and u loaded and multiplied again for each state."""
    scan = _Scan(kernel, channels, length, 16)
    pieces = length // WIDTH
    total = kernel.sbuf((P, channels // P, length), F32)
    rings = [scan.tiles(("d", "u", "e", "du", "bu", "s")) for _ in range(2)]
    rows = [[kernel.sbuf((1, WIDTH), F32) for _ in range(2)] for _ in range(2)]
    spread = [[kernel.psum((P, WIDTH)) for _ in range(2)] for _ in range(2)]
    shared = [[kernel.sbuf((P, WIDTH), F32) for _ in range(2)] for _ in range(2)]
    with kernel.loop(channels // P) as tile:
        kernel.memset(total.at(0, tile), 0)
    with rotated(kernel, 16) as indices:
        for state, row, wide, held in zip(indices, rows, spread, shared, strict=True):
            with kernel.loop(pieces) as piece:
                for source, r, w, h in zip((scan.b, scan.c), row, wide, held, strict=True):
                    scan.spread(r, source, state, piece * WIDTH, w)
                    kernel.activation(h, w)
                with rotated(kernel, channels // P) as tiles:
                    for tile, t in zip(tiles, rings, strict=True):
                        kernel.dma(t["d"], block(scan.delta, tile * P, P, piece * WIDTH, WIDTH))
                        kernel.dma(t["u"], block(scan.u, tile * P, P, piece * WIDTH, WIDTH))
                        kernel.dma(t["a"], block(scan.a, tile * P, P, state, 1))
                        kernel.tensor_tensor(t["du"], t["d"], t["u"], "multiply")
                        scan.step(t, t["du"], held[0], held[1], None)
                        sums = total.at(0, tile).cut(0, piece * WIDTH, WIDTH)
                        kernel.tensor_tensor(sums, sums, t["bu"], "add")
    with kernel.loop(channels // P) as tile:
        kernel.dma(block(scan.out, tile * P, P, 0, length), total.at(0, tile), engine=Engine.SCALAR)


def channels_outside(kernel: Kernel, channels: int, length: int = WIDTH) -> None:
    """Versions 2 and 3: channels outside, then tiles of 512 steps, states inside; delta * u once a tile, B and C used from
    PSUM.

    The state's last value of a tile of steps is the initial value of the next one.
    """
    scan = _Scan(kernel, channels, length, 16)
    rings = [scan.tiles(("e", "bu", "s")) for _ in range(2)]
    inputs = [scan.tiles(("d", "u", "du", "total")) for _ in range(2)]
    coefficients = [kernel.sbuf((P, 16), F32) for _ in range(2)]
    carry = kernel.sbuf((P, 16), F32)
    rows = [[kernel.sbuf((1, WIDTH), F32) for _ in range(2)] for _ in range(2)]
    spread = [[kernel.psum((P, WIDTH)) for _ in range(2)] for _ in range(2)]
    with rotated(kernel, channels // P) as tiles:
        for tile, held, a in zip(tiles, inputs, coefficients, strict=True):
            kernel.dma(a, block(scan.a, tile * P, P, 0, 16))
            kernel.memset(carry, 0)
            with kernel.loop(length // WIDTH) as piece:
                kernel.dma(held["d"], block(scan.delta, tile * P, P, piece * WIDTH, WIDTH))
                kernel.dma(held["u"], block(scan.u, tile * P, P, piece * WIDTH, WIDTH))
                kernel.tensor_tensor(held["du"], held["d"], held["u"], "multiply")
                kernel.memset(held["total"], 0)
                with rotated(kernel, 16) as indices:
                    for state, t, row, wide in zip(indices, rings, rows, spread, strict=True):
                        for source, r, w in zip((scan.b, scan.c), row, wide, strict=True):
                            scan.spread(r, source, state, piece * WIDTH, w)
                        t = {**t, "d": held["d"], "a": a.cut(0, state, 1)}
                        scan.step(t, held["du"], wide[0], wide[1], carry.cut(0, state, 1) if length > WIDTH else None)
                        if length > WIDTH:
                            kernel.copy(carry.cut(0, state, 1), t["s"].cut(0, WIDTH - 1, 1))
                        kernel.tensor_tensor(held["total"], held["total"], t["bu"], "add")
                kernel.dma(block(scan.out, tile * P, P, piece * WIDTH, WIDTH), held["total"], engine=Engine.SCALAR)


def _named(write: Callable[..., None], name: str, *sizes: int) -> Callable[[Kernel], None]:
    def kernel_of(kernel: Kernel) -> None:
        write(kernel, *sizes)
    kernel_of.__name__, kernel_of.__doc__ = name, write.__doc__
    return kernel_of


scan_256 = _named(states_outside, "scan_256", 256)
scan_4096 = _named(states_outside, "scan_4096", 4096)
scan_4096_reordered = _named(channels_outside, "scan_4096_reordered", 4096)
scan_of_1024 = _named(channels_outside, "scan_of_1024", 4096, 1024)
scan_of_2048 = _named(channels_outside, "scan_of_2048", 4096, 2048)
scan_of_4096 = _named(channels_outside, "scan_of_4096", 4096, 4096)
scan_of_5120 = _named(channels_outside, "scan_of_5120", 4096, 5120)
scan_of_7168 = _named(channels_outside, "scan_of_7168", 4096, 7168)
scan_of_8192 = _named(channels_outside, "scan_of_8192", 4096, 8192)
nkib_mamba = _named(states_outside, "nkib_mamba", 256, 7168)


def depthwise(kernel: Kernel) -> None:
    """Depthwise convolution of width 3 over 8 x 512 x 2048: for 64 columns at once the products with the filter, which lies in
    PSUM, then their sums over the window, four such steps interleaved as independent iterations allow."""
    images, channels, width, window, columns = 8, 512, 2048, 3, 64
    source, target, taps = matrix(0, images * channels, width), matrix(1, images * channels, width), matrix(2, channels, window)
    padded = [kernel.sbuf((P, width + 2), F32) for _ in range(2)]
    results = [kernel.sbuf((P, width), F32) for _ in range(2)]
    parts = [kernel.sbuf((P, columns, window), F32) for _ in range(4)]
    staged, filters = kernel.sbuf((P, window), F32), kernel.psum((P, window))
    with kernel.loop(channels // P) as tile:
        kernel.dma(staged, block(taps, tile * P, P, 0, window))
        kernel.copy(filters, staged)
        with rotated(kernel, images) as indices:
            for n, image, result in zip(indices, padded, results, strict=True):
                kernel.memset(image, 0, Engine.GPSIMD)
                kernel.dma(image.cut(0, 1, width), block(source, n * channels + tile * P, P, 0, width))
                with rotated(kernel, width // columns, 4) as starts:
                    for start, part in zip(starts, parts, strict=True):
                        windows = Access(image.memory, F32, 0, P, image.offset + start * (columns * 4),
                                         ((1, columns), (1, window)))
                        kernel.tensor_tensor(part, windows, filters.insert(0, columns), "multiply")
                    for start, part in zip(starts, parts, strict=True):
                        kernel.tensor_reduce(result.cut(0, start * columns, columns), part, "add")
                kernel.dma(block(target, n * channels + tile * P, P, 0, width), result, engine=Engine.SCALAR)
