"""Whether operands of products are turned bit by bit, or by a product with the identity (--relayout).

A transpose on the tensor engine is such a product: a NaN or an infinity in its operand makes NaN of what lies beside it, so
that other rows of the result are NaN too (hardware model, section 4: NaN/Inf and PE transposes). Turning bits has no such
fault and costs several times as much, which nothing hides in a large model; in a small module it costs microseconds. So
without --relayout a module whose products read little in all is turned exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reports.trips import multiplicities
from nxcc.ir.hlo.module import Instruction
from nxcc.passes.dtypes.autocast import PRODUCTS
from nxcc.passes.partitioning.partition import Plan
from nxcc.passes.sums_as_products import is_sum

EXACT, FAST = "exact", "fast"
LITTLE = 1 << 16
"""Elements that the products of a module read in all, so that they are turned exactly: four squares of 128 x 128, which take
one microsecond longer each."""
TURNS = 16
"""How often a loop runs whose count is not known."""


def turns_bits(options: CompileOptions, plan: Plan) -> bool:
    """Whether no transpose is a product, so that what is not finite stays in its row."""
    limit = exact_up_to(options)
    return limit == inf or sum(times * read for _, times, read in _products(plan)) <= limit


def exact_up_to(options: CompileOptions) -> float:
    """How many elements products may read in all and still be exact with what is not finite."""
    return {EXACT: inf, FAST: 0}.get(options.relayout, LITTLE)


def spreading(options: CompileOptions, plan: Plan) -> int:
    """How many products may spread a NaN or an infinity of an operand to other rows of their result."""
    if options.optlevel == "0" or turns_bits(options, plan):
        return 0
    return sum(1 for _ in _products(plan))


def _products(plan: Plan) -> Iterator[tuple[Instruction, int, int]]:
    """Float products of the device that may turn an operand, how often each runs, and how many elements it reads."""
    for node in plan.nodes:
        if not node.on_device:
            continue
        for computation, times in multiplicities(node.module.entry, unknown=TURNS).items():
            for instruction in computation.instructions:
                is_product = instruction.opcode in PRODUCTS and not is_sum(instruction)
                if is_product and instruction.operands[0].shape.dtype.is_float:
                    yield instruction, times, sum(operand.shape.element_count for operand in instruction.operands[:2])
