"""Prints a Module as HLO text, in the forms that XLA prints: the long one (default) and the short one of its dumps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nxcc.ir.hlo.attributes import Attribute
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.text.attributes import Style, braced, write_attribute
from nxcc.ir.hlo.text.completion import ASYNC_NOTES, async_start, default_comparison
from nxcc.ir.hlo.text.cursor import escape, escape_bytes, is_braced, to_text
from nxcc.ir.hlo.text.header import StackTables, frame_place, write_frontend, write_header
from nxcc.ir.hlo.text.literals import write_literal
from nxcc.ir.hlo.text.metadata import NOTHING, write_location
from nxcc.ir.hlo.text.order import computation_order, instruction_order
from nxcc.ir.hlo.text.sharding import write_sharding
from nxcc.ir.location import NOWHERE, Location
from nxcc.ir.shapes import Shape, shape_text

_ALWAYS_PRINTED = {
    "dimensions": frozenset(("broadcast", "map")), "replica_groups": None, "source_target_pairs": None,
    "lhs_contracting_dims": None, "rhs_contracting_dims": None}
"""Attributes that XLA prints even when empty: for these operators, or (None) for all that have them."""
_PLAIN = ("sharding", "frontend_attributes", "backend_config", "statistics", "origin", "control_predecessors")
"""What a parameter in the body of an async start in short form does not have."""
_AFTER_CALLS = frozenset(("is_composite",))


_OWN_ASYNC = frozenset(("parameter", "all-gather", "all-reduce", "collective-permute", "copy", "send", "recv"))
"""Operators whose `-start` is an operator of its own."""


def write_text(module: Module, *, short: bool = False, large_constants: bool = True, metadata: bool = True) -> str:
    """The module as text.

    short: without `%`, signatures, metadata, control predecessors and index comments, as XLA dumps modules.
    large_constants: write all values of constants with more than ten elements; without them the text cannot be compiled.
    metadata: keep source locations (the short form never has them).
    """
    style = Style(percent=not short, signatures=not short, comments=not short, metadata=metadata and not short,
                  control_predecessors=not short, large_constants=large_constants)
    return _Printer(module, style).text()


class _Printer:
    """Prints one module; shapes are remembered, as a module repeats the same few."""

    def __init__(self, module: Module, style: Style) -> None:
        self.module = module
        self.style = style
        self.prefix = "%" if style.percent else ""
        self.hidden = _hidden_bodies(module)
        self.tables = StackTables(module.stack_frames)
        self.shapes: dict[tuple[int, bool], str] = {}
        self.frames: dict[int, tuple[dict[str, str | int], int]] = {}

    def text(self) -> str:
        computations = list(self._computations())
        parts = [write_header(self.module, self.style), "\n\n"]
        if self.style.metadata:
            parts.append(self.tables.text())
        for text in computations:
            parts.append(text)
        return "".join(parts)

    def _computations(self) -> Iterator[str]:
        for computation in computation_order(self.module):
            if computation in self.hidden:
                continue
            yield from self._computation(computation)

    def _computation(self, computation: Computation) -> Iterator[str]:
        yield "ENTRY " if computation is self.module.entry else ""
        yield self.prefix + computation.name
        if self.style.signatures:
            yield " (" + ", ".join(f"{p.name}: {self.shape(p.shape, False)}" for p in computation.parameters) + ") -> "
            yield self.shape(computation.root.shape, False)
        yield " {\n"
        keeps_order = self.module.is_scheduled and not computation.is_fusion
        order = list(computation.instructions) if keeps_order else instruction_order(computation)
        for instruction in order:
            yield "  ROOT " if instruction is computation.root else "  "
            yield self._instruction(instruction)
            yield "\n"
        yield "}"
        if computation.execution_thread and computation.execution_thread != "main":
            yield f', execution_thread="{escape(computation.execution_thread)}"'
        yield "\n\n"

    def shape(self, shape: Shape, with_layout: bool = True) -> str:
        key = (id(shape), with_layout)
        text = self.shapes.get(key)
        if text is None:
            text = self.shapes[key] = shape_text(shape, with_layout, self.style.comments)
        return text

    def _instruction(self, instruction: Instruction) -> str:
        opcode, work = instruction.opcode, instruction
        if opcode.startswith("async-"):
            work = _wrapped(instruction, self.hidden)
            opcode = opcode if work is instruction else work.opcode + opcode.removeprefix("async")
        parts = [f"{self.prefix}{instruction.name} = {self.shape(instruction.shape)} {opcode}({self._operands(instruction)})"]
        parts += self._declared(instruction)
        if work is not instruction and instruction.opcode == "async-start":
            parts += self._declared(work)
            parts += self._called(work)
        elif work is instruction:
            parts += self._called(instruction)
        parts += [write_attribute(a, instruction.attributes[a.key]) for a in instruction.operator.attributes
                  if a.key in _AFTER_CALLS and a.key in instruction.attributes]
        parts += self._common(instruction)
        return ", ".join(parts)

    def _operands(self, instruction: Instruction) -> str:
        if instruction.opcode == "parameter":
            return str(instruction.attributes["parameter_number"])
        if instruction.opcode == "constant":
            return write_literal(instruction.attributes["literal"], self.style.large_constants)
        names = [self.prefix + o.name for o in instruction.operands]
        if self.style.comments:
            names[5::5] = [f"/*index={i}*/{names[i]}" for i in range(5, len(names), 5)]
        return ", ".join(names)

    def _declared(self, instruction: Instruction) -> list[str]:
        """The operator's own attributes that differ from their default or that XLA always prints."""
        parts = []
        for attribute in instruction.operator.attributes:
            key = attribute.key
            if key in _AFTER_CALLS or key == "parameter_number" or key == "literal" and instruction.opcode == "constant":
                continue
            value = instruction.attributes.get(key, attribute.default)
            if value is None:
                continue
            if value == attribute.default and not (attribute.always_printed or _is_always_printed(attribute, instruction)):
                continue
            if key == "type" and value == default_comparison(instruction.operands[0].shape):
                continue
            special = _SPECIAL.get((instruction.opcode, key))
            parts.append(special(instruction, value) if special else write_attribute(attribute, value))
        return parts

    def _called(self, instruction: Instruction) -> list[str]:
        names = [self.prefix + c.name for c in instruction.called]
        if not names:
            return []
        special = _CALLED.get(instruction.opcode)
        if special:
            return special(instruction, names)
        return [f"{key}={name}" for key, name in zip(instruction.operator.called, names, strict=True)]

    def _common(self, instruction: Instruction) -> list[str]:
        parts = []
        if instruction.sharding is not None:
            parts.append("sharding=" + write_sharding(instruction.sharding, self.style.comments, self.style.metadata))
        if instruction.frontend_attributes:
            parts.append("frontend_attributes=" + write_frontend(instruction.frontend_attributes))
        replication = instruction.attributes.get("parameter_replication")
        if replication:
            parts.append("parameter_replication={" + ",".join("true" if r else "false" for r in replication) + "}")
        if instruction.control_predecessors and self.style.control_predecessors:
            names = ", ".join(self.prefix + p.name for p in instruction.control_predecessors)
            parts.append(f"control-predecessors={{{names}}}")
        if instruction.statistics:
            parts.append("statistics=" + instruction.statistics)
        if instruction.origin:
            parts.append("origin=" + instruction.origin)
        if self.style.metadata and instruction.location != NOWHERE:
            text = write_location(instruction.location, self._renumbered(instruction.location))
            if text:
                parts.append(f"metadata={{{text}}}")
        if instruction.backend_config:
            parts.append("backend_config=" + backend_config_text(instruction.backend_config))
        return parts

    def _renumbered(self, location: Location) -> Mapping[str, str | int]:
        """The new number of the location's frame, and nothing for what its frame says already."""
        frame = location.stack_frame_id
        if not frame:
            return NOTHING
        known = self.frames.get(frame)
        if known is None:
            known = self.frames[frame] = (frame_place(self.module.stack_frames, frame), self.tables.frame(frame))
        place, number = known
        said = all([getattr(location, key) == value for key, value in place.items()])
        return {**dict.fromkeys(place if said else (), 0), "stack_frame_id": number}


def backend_config_text(data: bytes) -> str:
    """Braces as they are when the bytes are printable and lex as one value, else an escaped string."""
    text = to_text(data)
    return text if is_braced(text) else f'"{escape_bytes(data)}"'


def _is_always_printed(attribute: Attribute, instruction: Instruction) -> bool:
    """Whether a default is printed: always for some, and where it was given for those whose absence is something else."""
    key = attribute.key
    if key == "channel_id" or attribute.required:
        return key in instruction.attributes
    if key not in _ALWAYS_PRINTED:
        return False
    only = _ALWAYS_PRINTED[key]
    return only is None or instruction.opcode in only


def _slice_sizes(permute: Instruction, sizes: tuple[int, ...]) -> str:
    """The sizes of a collective-permute in place, one list for each slice it moves."""
    rank = next((leaf.rank for leaf in permute.operands[0].shape.leaves()), 0) or 1
    slices = (braced(sizes[i:i + rank]) for i in range(0, len(sizes), rank))
    return "slice_sizes={" + ",".join(slices) + "}"


def _is_plain_body(start: Instruction) -> bool:
    """Whether `x-start` says all of an async-start: its body is parameters and x, which reads them in order.

    A reader of the short form gives metadata, backend config, frontend attributes, sharding and statistics to both.
    """
    computation = start.called[0]
    root = computation.root
    parameters = computation.parameters
    if root.opcode in _OWN_ASYNC or root.operands != tuple(parameters) or len(computation.instructions) != len(parameters) + 1:
        return False
    if start.attributes.keys() & root.operator.defaults.keys() or any(getattr(p, n) for p in parameters for n in _PLAIN):
        return False
    inside = [shape_text(i.shape) for i in (*parameters, root)]
    if inside != [*(shape_text(o.shape) for o in start.operands), shape_text(start.shape.elements[1])]:
        return False
    if any(p.location != NOWHERE for p in parameters):
        return False
    return all(getattr(root, note) == _said(start, note) for note in ASYNC_NOTES)


def _said(start: Instruction, note: str) -> Any:
    """What a reader takes as a note of the wrapped instruction: the last that start, update or done says."""
    value = getattr(start, note)
    following: Instruction | None = start
    while following is not None:
        following = next((u for u in following.users if u.opcode in ("async-update", "async-done")), None)
        later = getattr(following, note, None)
        if later and later != NOWHERE:
            value = later
    return value


def _wrapped(instruction: Instruction, hidden: set[Computation]) -> Instruction:
    """The instruction that an async one stands for, or the async one itself where the short form cannot say it."""
    start = async_start(instruction)
    if start is None or start.called[0] not in hidden:
        return instruction
    return start.called[0].root


def _hidden_bodies(module: Module) -> set[Computation]:
    """Computations whose one caller is printed in the short async form."""
    starts = [i for i in module.instructions() if i.opcode == "async-start"]
    if not starts:
        return set()
    callers = Counter(c for i in module.instructions() for c in i.called)
    return {s.called[0] for s in starts if callers[s.called[0]] == 1 and _is_plain_body(s)}


def _branches(instruction: Instruction, names: list[str]) -> list[str]:
    if instruction.operands[0].shape.dtype.name == "pred" and len(names) == 2:
        return [f"true_computation={names[0]}", f"false_computation={names[1]}"]
    return ["branch_computations={" + ", ".join(names) + "}"]


_CALLED: dict[str, Callable[[Instruction, list[str]], list[str]]] = {
    "while": lambda _, names: [f"condition={names[1]}", f"body={names[0]}"],
    "conditional": _branches,
    "custom-call": lambda _, names: ["called_computations={" + ", ".join(names) + "}"]}
"""Where text order or keys differ from the protobuf's."""
_SPECIAL: dict[tuple[str, str], Callable[[Instruction, tuple[int, ...]], str]] = {
    ("collective-permute", "slice_sizes"): _slice_sizes, ("collective-permute-start", "slice_sizes"): _slice_sizes}
"""Attributes whose text needs the operands."""
