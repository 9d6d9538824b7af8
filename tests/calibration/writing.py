"""What the schedules of published kernels are written with: matrices in HBM, rotating loops, a program, its time.

A schedule follows the loops that the kernel's authors describe. Addresses are places in HBM; values do not matter. `queues`:
how many queues of an engine its transfers are spread over, place by place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from nxcc.backends.assembly import BASE_REGISTER, assemble, plan_of
from nxcc.backends.isa.instructions import control
from nxcc.backends.isa.layout import is_trigger
from nxcc.backends.isa.program import Affine, Function, Instruction, Memory, Program
from nxcc.backends.simulator.outcome import Timing
from nxcc.backends.simulator.timing import Clock
from nxcc.backends.target import Target, load_target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View, contiguous
from nxcc.ir.dtypes import F32, DType

V2 = load_target("v2")
P = 128
Operand = Callable[[Index], Access]
"""An operand of the k-th product."""


def matrix(number: int, rows: int, columns: int, dtype: DType = F32) -> View:
    """The number-th matrix in HBM."""
    return View(Memory.HBM, dtype, expr(number << 31), contiguous((rows, columns), dtype.byte_size))


def block(source: View, row: Index, rows: int, column: Index, columns: int) -> View:
    return source.cut(0, row, rows).cut(1, column, columns)


def folded(source: View, row: Index, tiles: int, column: Index, columns: int) -> View:
    """`tiles` blocks of 128 rows beside each other: [128, tiles, columns]."""
    rows = source.cut(0, row, tiles * P).cut(1, column, columns).reshape((tiles, P, columns))
    assert rows is not None
    return rows.permute((1, 0, 2))


@contextmanager
def rotated(kernel: Kernel, count: int, copies: int = 2) -> Iterator[list[Expr]]:
    """A loop over 0..count-1 written `copies`-fold: yields the indices of one round."""
    assert count % copies == 0
    with kernel.loop(count // copies) as index:
        yield [index * copies + copy for copy in range(copies)]


def arrived(kernel: Kernel, out: Access, tile: Access) -> None:
    """Let PE wait once, here, for all transfers into a tile [128, pieces, columns]: a product of the pieces' first columns."""
    moving = tile.cut(1, 0, 1).flat()
    kernel.matmul(replace(out, dims=((1, moving.free),)), replace(tile.flat(), dims=((1, P),)), moving)


def products(kernel: Kernel, out: Access, count: int, stationary: Operand, moving: Operand) -> None:
    """out = sum of `count` products; stationary and moving give the operands of one."""
    kernel.matmul(out, stationary(0), moving(0))
    if count > 1:
        with kernel.loop(count - 1) as k:
            kernel.matmul(out, stationary(k + 1), moving(k + 1), accumulate=True)


def program(kernel: Kernel, target: Target = V2, queues: int = 1) -> Program:
    """The kernel called once."""
    function = assemble(kernel.program, target, plan_of(kernel.program, target, overlapped=True)).function
    for stream in function.streams.values():
        triggers = [instruction for instruction in stream if is_trigger(instruction.spec)]
        for number, instruction in enumerate(triggers):
            instruction.fields["queue"] = number % queues
    calls = {engine: [Instruction(control.REGISTER_SET, fields={"register": BASE_REGISTER, "value": Affine(0)}),
                      Instruction(control.CALL, fields={"function": 0}), Instruction(control.HALT)]
             for engine in function.streams}
    return Program([function], [Function("main", calls)])


def timed(write: Callable[[Kernel], None], queues: int = 1, target: Target = V2) -> Timing:
    kernel = Kernel(write.__name__, target)
    write(kernel)
    return Clock(program(kernel, target, queues), target).time()


def microseconds(timing: Timing) -> float:
    return V2.nanoseconds(timing.ticks) / 1e3
