"""Keys of equal structure: regions with one key have the same code, called with other addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nxcc.backends.tile.program import ARGUMENT_UNIT, View
from nxcc.ir.hlo.marks import OURS
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.literals import Literal

SMALL_CONSTANT_BYTES = 4096
"""Constants up to this size are compared by content, so that equal ones share memory and code; larger ones by identity."""

Bodies = dict[Computation, Any]
"""What decides the code of computations, where it is known."""


def structure_of(instruction: Instruction, bodies: Bodies | None = None) -> Any:
    """What decides a region's code besides its operand views: operator, attributes, shape, called computations.

    bodies: added to; equal layers share the computations of their regions.
    """
    attributes: tuple[Any, ...] = ()
    if instruction.attributes:
        attributes = tuple(sorted([(key, _attribute_key(value)) for key, value in instruction.attributes.items()]))
    if instruction.frontend_attributes:
        attributes += tuple(sorted((k, v) for k, v in instruction.frontend_attributes.items() if k.startswith(OURS)))
    shape = instruction.shape
    kind = (shape.dtype.name, shape.dims, shape.dynamic) if shape.is_array else str(shape)
    return instruction.opcode, attributes, kind, tuple([_body_key(c, bodies) for c in instruction.called])


def _body_key(computation: Computation, bodies: Bodies | None) -> Any:
    if bodies is not None and computation in bodies:
        return bodies[computation]
    numbers: dict[Instruction, int] = {}
    rows = []
    for instruction in computation.post_order():
        numbers[instruction] = len(numbers)
        rows.append((structure_of(instruction, bodies), tuple([numbers[o] for o in instruction.operands])))
    key = _Known((tuple(rows), numbers[computation.root]))
    if bodies is not None:
        bodies[computation] = key
    return key


class _Known(tuple[Any, ...]):
    """A key that is hashed once."""

    def __hash__(self) -> int:
        found = self.__dict__.get("hash")
        if found is None:
            found = self.__dict__["hash"] = super().__hash__()
        return found


def _attribute_key(value: Any) -> Any:
    if isinstance(value, Literal):
        return (str(value.shape), value.array.tobytes() if value.shape.byte_size <= SMALL_CONSTANT_BYTES else id(value))
    return repr(value)


def signature(view: View) -> Any:
    return (view.dtype.name, view.dims, view.address.constant % ARGUMENT_UNIT)


def overlaps(addresses: Sequence[int]) -> tuple[int, ...]:
    """Which operands start at the same place: code for a result computed in place differs from code for a fresh one."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(address, index) for index, address in enumerate(addresses))
