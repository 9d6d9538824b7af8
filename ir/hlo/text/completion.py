"""What XLA's parser adds to an instruction as written: results of transfers, defaults, layouts, notes of async bodies."""

from __future__ import annotations

import re
from collections.abc import Callable

from nxcc.ir.dtypes import U32
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.location import NOWHERE
from nxcc.ir.shapes import TOKEN_SHAPE, Layout, Shape, row_major, tuple_of

ASYNC_NOTES = ("location", "backend_config", "frontend_attributes", "sharding", "statistics", "origin")
"""What an async start, update or done shares with the instruction that it wraps."""
_U32 = Shape(U32, layout=row_major(0))


def _complete_send(made: Instruction) -> None:
    """A send yields its data, a context and a token, whatever was written."""
    made.shape = tuple_of(made.operands[0].shape, _U32, TOKEN_SHAPE)


def _complete_recv(made: Instruction) -> None:
    data = made.shape.elements[0] if made.shape.is_tuple and made.shape.elements else made.shape
    made.shape = tuple_of(data, _U32, TOKEN_SHAPE)


def _complete_outfeed(made: Instruction) -> None:
    made.attributes.setdefault("outfeed_shape", made.operands[0].shape)
    made.shape = TOKEN_SHAPE


def _complete_scan(made: Instruction) -> None:
    made.attributes.setdefault("is_associative", "false")


def _complete_send_done(made: Instruction) -> None:
    made.shape = TOKEN_SHAPE


def _complete_recv_done(made: Instruction) -> None:
    received = made.operands[0].shape
    if received.is_tuple and len(received.elements) == 3:
        made.shape = tuple_of(received.elements[0], TOKEN_SHAPE)


def _complete_map(made: Instruction) -> None:
    made.attributes.setdefault("dimensions", tuple(range(made.shape.rank)))


def async_start(instruction: Instruction) -> Instruction | None:
    """The start that an async update or done continues, or the start itself; None if the chain is broken."""
    while instruction.opcode in ("async-update", "async-done") and instruction.operands:
        instruction = instruction.operands[0]
    return instruction if instruction.opcode == "async-start" else None


def _share_notes(instruction: Instruction) -> None:
    """What was written at an async instruction holds for the one that it wraps as well, the last one winning."""
    start = async_start(instruction)
    if start is None:
        return
    root = start.called[0].root
    for note in ASYNC_NOTES:
        value = getattr(instruction, note)
        if value and value != NOWHERE:
            setattr(root, note, value)


def complete_async(start: Instruction) -> None:
    """Notes and execution thread of the start hold for all that it runs."""
    _share_notes(start)
    if start.attributes.get("async_execution_thread") == "main":
        del start.attributes["async_execution_thread"]
    thread = start.attributes.get("async_execution_thread", "")
    pending = list(start.called) if thread else []
    while pending:
        computation = pending.pop()
        computation.execution_thread = thread
        pending += [c for i in computation.instructions if i.opcode != "async-start" for c in i.called]


COMPLETED: dict[str, Callable[[Instruction], None]] = {
    "send": _complete_send, "recv": _complete_recv, "outfeed": _complete_outfeed, "scan": _complete_scan,
    "async-start": complete_async, "async-update": _share_notes, "async-done": _share_notes,
    "send-done": _complete_send_done, "recv-done": _complete_recv_done, "map": _complete_map}
"""What XLA's parser adds to or changes in what was written, by operator."""


def default_comparison(shape: Shape) -> str:
    """The comparison type that is not printed for operands of this shape."""
    if shape.dtype.is_float or shape.dtype.is_complex:
        return "FLOAT"
    return "SIGNED" if shape.dtype.is_signed else "UNSIGNED"


def with_layout(shape: Shape, made: Instruction) -> Shape:
    """An inferred shape with the layout that XLA infers: a transpose moves it, elementwise operators keep it."""
    if shape.is_tuple:
        if made.opcode == "tuple":
            return tuple_of(*(o.shape for o in made.operands))
        return Shape(shape.dtype, elements=tuple(with_layout(e, made) for e in shape.elements))
    if not shape.is_array:
        return shape
    layout = shape.layout or _operand_layout(shape, made) or row_major(shape.rank)
    return Shape(shape.dtype, shape.dims, (), shape.dynamic, layout)


def _operand_layout(shape: Shape, made: Instruction) -> Layout | None:
    first = made.operands[0].shape if made.operands else shape
    if first.layout is None or first.layout.extension:
        return None
    if made.opcode == "transpose":
        moved_to = {source: target for target, source in enumerate(made.attributes["dimensions"])}
        return Layout(tuple(moved_to[d] for d in first.layout.minor_to_major))
    if made.operator.elementwise and first.dims == shape.dims:
        return first.layout
    return None


_ELEMENT_BITS = re.compile(r"E\([0-9]+\)")


def without_element_bits(shape: Shape) -> Shape:
    """Constants do not keep the packing of their elements, as in XLA."""
    if shape.is_tuple:
        return tuple_of(*map(without_element_bits, shape.elements))
    if shape.layout is None or "E" not in shape.layout.extension:
        return shape
    layout = Layout(shape.layout.minor_to_major, _ELEMENT_BITS.sub("", shape.layout.extension))
    return Shape(shape.dtype, shape.dims, (), shape.dynamic, layout)
