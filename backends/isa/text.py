"""Disassembly: one line an instruction, blocks indented. For people; nothing reads it back.

```
main, DVE
     0  loop r1 < 8
     1    tensor_copy data=psum[0:128 @0]f32{512} out=sbuf[0:128 @64+r1*1024]bf16{512}  wait s[3]>=1+r1  signal s[4]+=1
     2  end
```
`{4x128, 16}` are free dimensions outermost first, `size x stride` in elements, the stride left out where it is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nxcc.backends.isa.program import (
    AccessPattern,
    DmaPattern,
    Engine,
    FieldKind,
    Instruction,
    Operand,
    Program,
    Stream,
)

DebugName = Callable[[int], str]
OPENERS = ("loop", "while", "if")
INDENT = "  "


def instruction_text(instruction: Instruction, debug_name: DebugName | None = None) -> str:
    """One instruction on one line; with `debug_name`, the name behind its debug index as a comment."""
    parts = [_HEADS.get(instruction.spec.name, _head)(instruction)]
    parts += [f"{declared.name}={operand_text(instruction.operands[declared.name], _sizes(instruction))}"
              for declared in instruction.spec.operands if declared.name in instruction.operands]
    text = " ".join(parts)
    if instruction.waits:
        text += "  wait " + ", ".join(f"s[{wait.index}]>={wait.value}" for wait in instruction.waits)
    if instruction.signals:
        text += "  signal " + ", ".join(f"s[{signal.index}]+={signal.amount}" for signal in instruction.signals)
    if debug_name is not None and instruction.debug >= 0:
        text += f"  ; {debug_name(instruction.debug)}"
    return text


def stream_lines(stream: Stream, debug_name: DebugName | None = None) -> Iterator[str]:
    """A stream, numbered, with its blocks indented."""
    depth = 0
    for index, instruction in enumerate(stream):
        name = instruction.spec.name
        depth -= name in ("end", "else")
        yield f"{index:6d}  {INDENT * max(depth, 0)}{instruction_text(instruction, debug_name)}"
        depth += name in OPENERS or name == "else"


def program_lines(program: Program, engines: tuple[Engine, ...] = tuple(Engine),
                  debug_name: DebugName | None = None) -> Iterator[str]:
    """A whole program: each function and entry, engine by engine."""
    yield (f"program: {len(program.functions)} functions, {len(program.entries)} entries, {program.sbuf_bytes} bytes a "
           f"partition of sbuf, {program.hbm_bytes} bytes of hbm, {program.semaphores} semaphores")
    for kind, functions in (("function", program.functions), ("entry", program.entries)):
        for number, function in enumerate(functions):
            for engine in engines:
                if engine in function.streams:
                    yield ""
                    yield f"{kind} {number} {function.name}, {engine.value}"
                    yield from stream_lines(function.streams[engine], debug_name)


def program_text(program: Program, engines: tuple[Engine, ...] = tuple(Engine), debug_name: DebugName | None = None) -> str:
    """The listing of `program_lines` as one string."""
    return "\n".join(program_lines(program, engines, debug_name)) + "\n"


def operand_text(operand: Operand, sizes: tuple[int, ...] = ()) -> str:
    """An operand; `sizes` are those of the transfer, for a side of a DMA."""
    if isinstance(operand, AccessPattern):
        last = operand.partition + operand.partitions
        return f"{operand.memory.value}[{operand.partition}:{last} @{operand.offset}]{operand.dtype}{_dims(operand.dims)}"
    assert isinstance(operand, DmaPattern)
    walk = ", ".join(f"{size}x{stride}B" for size, stride in zip(sizes, operand.strides, strict=False))
    return f"{operand.memory.value}[@{operand.address}]{operand.dtype}{{{walk}}}"


def _dims(dims: tuple[tuple[int, int], ...]) -> str:
    return "{" + ", ".join(str(size) if stride == 1 else f"{size}x{stride}" for stride, size in dims) + "}"


def _sizes(instruction: Instruction) -> tuple[int, ...]:
    sizes: tuple[int, ...] = instruction.fields.get("sizes", ())
    return sizes


def _head(instruction: Instruction) -> str:
    given = instruction.fields
    shown = [f"{field.name}={_value(field.kind, given[field.name])}" for field in instruction.spec.fields
             if field.name in given and field.name != "sizes"]
    return " ".join([instruction.spec.name, *shown])


def _value(kind: FieldKind, value: Any) -> str:
    if kind is FieldKind.REGISTER:
        return f"r{value}"
    if kind is FieldKind.INTS:
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if kind is FieldKind.FLOAT else str(value)


_HEADS: dict[str, Callable[[Instruction], str]] = {
    "loop": lambda i: f"loop r{i.fields['register']} < {i.fields['count']}",
    "if": lambda i: f"if r{i.fields['register']}",
    "break_unless": lambda i: f"break_unless r{i.fields['register']}",
    "register_set": lambda i: f"r{i.fields['register']} = {i.fields['value']}",
    "register_alu": lambda i: f"r{i.fields['register']} = {i.fields['op']}({i.fields['a']}, {i.fields['b']})",
    "call": lambda i: f"call {i.fields['function']}",
}
"""Control instructions that read better as statements."""
