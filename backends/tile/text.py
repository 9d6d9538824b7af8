"""A tile program as text, before order and addresses of streams are derived: one line a statement, loops indented.

```
loop i0 < 4
  Activation activation function=exp scale=1 data=sbuf[0:128 @0]f32{512} out=sbuf[0:128 @2048]f32{512}
```
Linear memory is `hbm[@address]dtype{size x stride in bytes}`, an on-chip block `memory[partitions @offset]dtype{size x stride
in elements}`, the stride left out where it is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nxcc.backends.tile.program import Access, Loop, Op, Operand, ScalarLoad, ScalarOp, Statement, TileProgram, View

INDENT = "  "


def program_lines(program: TileProgram) -> Iterator[str]:
    """The listing of a program."""
    yield from _lines(program.body, 0)


def _lines(statements: list[Statement], depth: int) -> Iterator[str]:
    for statement in statements:
        yield INDENT * depth + statement_text(statement)
        if isinstance(statement, Loop):
            yield from _lines(statement.body, depth + 1)


def statement_text(statement: Statement) -> str:
    """One statement; of a loop its head."""
    if isinstance(statement, Loop):
        return f"{'slots' if statement.slots else 'loop'} {statement.symbol.name} < {statement.count}"
    if isinstance(statement, ScalarLoad):
        return f"{statement.symbol.name} = {operand_text(statement.source)}"
    if isinstance(statement, ScalarOp):
        return f"{statement.symbol.name} = {statement.op}({statement.a}, {statement.b})"
    return _op_text(statement)


def _op_text(op: Op) -> str:
    fields = [f"{field.name}={_value(op.fields[field.name])}" for field in op.spec.fields
              if field.name in op.fields and op.fields[field.name] != field.default]
    operands = [f"{declared.name}={operand_text(op.operands[declared.name])}" for declared in op.spec.operands
                if declared.name in op.operands]
    condition = [f"where {op.where}"] if op.where is not None else []
    condition += [f"awaits {operand_text(op.awaits)}"] if op.awaits is not None else []
    return " ".join([op.engine.value, op.spec.name, *fields, *operands, *condition])


def operand_text(operand: Operand) -> str:
    if isinstance(operand, View):
        walk = ", ".join(f"{size}x{stride}B" for stride, size in operand.dims)
        return f"{operand.memory.value}[@{operand.address}]{operand.dtype}{{{walk}}}"
    assert isinstance(operand, Access)
    dims = ", ".join(str(size) if stride == 1 else f"{size}x{stride}" for stride, size in operand.dims)
    last = operand.partition + operand.partitions
    return f"{operand.memory.value}[{operand.partition}:{last} @{operand.offset}]{operand.dtype}{{{dims}}}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ",".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
