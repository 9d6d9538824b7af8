"""Conditions that the shape rules of several families share; each raises ShapeError with the reason in words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from nxcc.ir.dtypes import DType
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.shapes import UNBOUNDED, Shape

if TYPE_CHECKING:
    from nxcc.ir.hlo.module import Computation, Instruction


def compatible(left: Shape, right: Shape) -> bool:
    """Equal but for layouts and for which dimensions are dynamic; an unbounded dimension fits any size."""
    if left is right or left == right:
        return True
    if left.dtype is not right.dtype or len(left.dims) != len(right.dims) or len(left.elements) != len(right.elements):
        return False
    return (all(a == b or UNBOUNDED in (a, b) for a, b in zip(left.dims, right.dims, strict=True))
            and all(map(compatible, left.elements, right.elements)))


def same_numbers(left: DType, right: DType) -> bool:
    """Equal, or both float: combiners may accumulate in another precision than the data has."""
    return left is right or (left.is_float and right.is_float) or (left.is_complex and right.is_complex)


def need(condition: bool, reason: str) -> None:
    if not condition:
        raise ShapeError(reason)


def need_array(shape: Shape, what: str = "operand") -> None:
    if not shape.is_array:
        raise ShapeError(f"{what} must be an array, it is {shape}")


def need_arrays(shapes: Iterable[Shape]) -> None:
    for number, shape in enumerate(shapes):
        if not shape.is_array:
            raise ShapeError(f"operand {number} must be an array, it is {shape}")


def need_scalar(shape: Shape, dtype: DType, what: str) -> None:
    if shape.dims or shape.dtype is not dtype:
        raise ShapeError(f"{what} must be {dtype}[], it is {shape}")


def need_integer(shape: Shape, what: str) -> None:
    if not shape.dtype.is_integer:
        raise ShapeError(f"{what} must be of an integer type, it is {shape}")


def need_compatible(actual: Shape, wanted: Shape, what: str) -> None:
    if not compatible(actual, wanted):
        raise ShapeError(f"{what} must be {wanted}, it is {actual}")


def need_same_dims(shapes: Sequence[Shape], what: str = "operands") -> None:
    for shape in shapes[1:]:
        if shape.dims != shapes[0].dims:
            raise ShapeError(f"{what} must have the same dimensions, they are {shapes[0]} and {shape}")


def need_dimensions(dimensions: Sequence[int], rank: int, what: str = "dimensions") -> None:
    """Each in [0, rank), none twice."""
    for d in dimensions:
        if not 0 <= d < rank:
            raise ShapeError(f"{what}={{{_listed(dimensions)}}} must lie in [0, {rank})")
    if len(set(dimensions)) != len(dimensions):
        raise ShapeError(f"{what}={{{_listed(dimensions)}}} names a dimension twice")


def need_dimension(dimensions: Sequence[int], rank: int, what: str = "dimensions") -> int:
    """The one dimension of a list of one."""
    if len(dimensions) != 1:
        raise ShapeError(f"{what}={{{_listed(dimensions)}}} must name exactly one dimension")
    need_dimensions(dimensions, rank, what)
    return dimensions[0]


def need_sorted(dimensions: Sequence[int], what: str) -> None:
    if list(dimensions) != sorted(dimensions):
        raise ShapeError(f"{what}={{{_listed(dimensions)}}} must be in ascending order")


def need_word(word: str, words: Collection[str], what: str) -> None:
    if word not in words:
        raise ShapeError(f"{what}={word} must be one of {', '.join(words)}")


def need_producer(*opcodes: str) -> Callable[[Instruction], None]:
    """A check: operand 0 comes from one of these operators, as the second half of an asynchronous pair must."""
    def check(instruction: Instruction) -> None:
        producer = instruction.operands[0].opcode
        if producer not in opcodes:
            raise ShapeError(f"operand 0 must come from {' or '.join(opcodes)}, it comes from {producer}")
    return check


def need_parameters(computation: Computation, wanted: Sequence[Shape]) -> None:
    """The computation takes these shapes, in this order."""
    parameters = computation.parameters
    if len(parameters) != len(wanted):
        raise ShapeError(f"computation {computation.name} takes {len(parameters)} parameters, {len(wanted)} are given")
    for number, (parameter, shape) in enumerate(zip(parameters, wanted, strict=True)):
        if not compatible(parameter.shape, shape):
            raise ShapeError(f"parameter {number} of computation {computation.name} is {parameter.shape}, "
                             f"it is given {shape}")


def need_called(called: Sequence[Computation], count: int) -> None:
    if len(called) != count:
        raise ShapeError(f"{count} computations must be called, not {len(called)}")


def need_combiner(computation: Computation, data: Sequence[Shape], inits: Sequence[Shape]) -> list[Shape]:
    """A scalar combiner (accumulators..., values...) -> accumulators; returns the accumulators' shapes.

    data: shapes whose element types the values have; inits: the scalars that the accumulators start with.
    """
    root = computation.root.shape
    results = list(root.elements) if root.is_tuple else [root]
    if len(results) != len(data):
        raise ShapeError(f"computation {computation.name} must return {len(data)} scalars, it returns {root}")
    parameters = [p.shape for p in computation.parameters]
    if len(parameters) != 2 * len(data):
        raise ShapeError(f"computation {computation.name} must take {2 * len(data)} parameters, not {len(parameters)}")
    for number, shape in enumerate([*results, *parameters]):
        wanted = data[number % len(data)].dtype
        if shape.dims or not shape.is_array or not same_numbers(shape.dtype, wanted):
            raise ShapeError(f"computation {computation.name} must combine scalars of {wanted}, it has {shape}")
    for result, init in zip(results, inits, strict=True):
        if init.dims or not init.is_array or not same_numbers(init.dtype, result.dtype):
            raise ShapeError(f"initial value must be {result}, it is {init}")
    return results


def _listed(dimensions: Sequence[int]) -> str:
    return ",".join(map(str, dimensions))


def agreeing_dims(name: str, shapes: Sequence[Shape]) -> Shape:
    """The first shape, dynamic where any is; ShapeError unless all are arrays of the same dimensions.

    An unbounded dimension agrees with any size.
    """
    first = shapes[0]
    for shape in shapes:
        if not shape.is_array:
            raise ShapeError(f"{name} takes arrays, not {shape}")
        if not compatible(shape.with_dtype(first.dtype), first):
            raise ShapeError(f"{name} takes operands of equal dimensions, not {first} and {shape}")
    dynamic = tuple(sorted(set().union(*(shape.dynamic for shape in shapes))))
    return Shape(first.dtype, first.dims, dynamic=dynamic)


def agreeing_dtype(name: str, shapes: Sequence[Shape]) -> DType:
    """The common element type; floats may differ in precision, then it is the widest."""
    kinds = {shape.dtype for shape in shapes}
    if len(kinds) > 1 and not all(row.is_float for row in kinds):
        raise ShapeError(f"{name} takes operands of one element type, not {' and '.join(str(s.dtype) for s in shapes)}")
    return max((shape.dtype for shape in shapes), key=lambda row: row.bits)
