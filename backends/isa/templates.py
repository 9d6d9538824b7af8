"""DMA templates: the objects of an engine JSON member's `dma` array, written and read.

The documented keys (CLI and NEFF reference 7.3) describe the transfer; under "nxcc" lies what we decode from. The reader
demands that both agree, so that no one can read a transfer that is not the one that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nxcc.backends.isa import layout as L
from nxcc.backends.isa.program import (
    ENGINE_MEMBERS,
    Affine,
    DmaPattern,
    Engine,
    FieldKind,
    FieldSpec,
    Instruction,
    InstructionSpec,
    Memory,
    Program,
)
from nxcc.ir.dtypes import BF16, BY_NAME, F8E3M4, F8E4M3, F8E5M2, F16, F32, PRED, S8, S16, S32, S64, U8, U16, U32, U64, DType

NEFF_NAMES: dict[DType, str] = {
    F32: "float32", BF16: "bfloat16", F16: "float16", F8E3M4: "float8e3", F8E4M3: "float8e4", F8E5M2: "float8e5", PRED: "uint8",
    U8: "uint8", U16: "uint16", U32: "uint32", U64: "uint64", S8: "int8", S16: "int16", S32: "int32", S64: "int64",
}
"""Names of documented key from_dtype; others are written as the unsigned integer of their width."""

VARIABLES = {Memory.HBM: "hbm", Memory.SBUF: "sbuf"}
"""Each is one arena, a variable of def.json; a DMA reaches no other memory."""


def queue_name(member: str, queue: int) -> str:
    """The queue set that a trigger of the engine with these files uses."""
    return f"q{member}{queue}"


def queue_sets(program: Program, queues: int, members: Mapping[Engine, str] = ENGINE_MEMBERS) -> dict[str, dict[str, Any]]:
    """The "dma_queue" member of def.json: each queue set that a trigger names, over `queues` hardware queues.

    Those numbered from `queues` on are pinned: they fill SBUF when the program is loaded.
    """
    used = {(engine, instruction.fields.get("queue", 0)) for _, engine, stream in program.streams() for instruction in stream
            if L.is_trigger(instruction.spec)}
    return {queue_name(members[engine], queue): {"type": "data", "num_queues": queues, "owner": members[engine].lower()}
            | ({"pinned": True} if queue >= queues else {})
            for engine, queue in sorted(used, key=lambda pair: (members[pair[0]], pair[1]))}


def template_member(instruction: Instruction, number: int, engine_member: str) -> dict[str, Any]:
    """The object of the `dma` array for a trigger; ValueError if strides or immediates are malformed."""
    sizes = instruction.fields["sizes"]
    operands = {}
    for declared in instruction.spec.operands:
        operand = instruction.operands.get(declared.name)
        if declared.dma and isinstance(operand, DmaPattern):
            if len(operand.strides) != len(sizes):
                raise ValueError(f"{declared.name}: {len(operand.strides)} strides for {len(sizes)} sizes")
            operands[declared.name] = {"memory": operand.memory.value, "dtype": operand.dtype.name,
                                       "address": operand.address.constant, "strides": list(operand.strides)}
    fields = {f.name: _WRITERS[f.kind](f, instruction.fields[f.name]) for f in L.template_fields(instruction.spec)
              if f.name in instruction.fields}
    return documented(instruction, number, engine_member) | {"nxcc": {"operands": operands, "fields": fields}}


def documented(instruction: Instruction, number: int, engine_member: str) -> dict[str, Any]:
    """The documented keys of a trigger's object, which follow from the instruction."""
    member: dict[str, Any] = {"id": number, "queue": queue_name(engine_member, instruction.fields.get("queue", 0)),
                              "desc": [_description(instruction)]}
    if instruction.signals and instruction.signals[0].index.is_constant:
        member["semaphore"] = instruction.signals[0].index.constant
    return member


def _description(instruction: Instruction) -> dict[str, Any]:
    source, destination = instruction.operands["source"], instruction.operands["destination"]
    assert isinstance(source, DmaPattern) and isinstance(destination, DmaPattern)
    sizes = instruction.fields["sizes"]
    op = "add" if instruction.fields.get("accumulate") == "add" else "copy" if source.dtype is destination.dtype else "cast"
    row: dict[str, Any] = {"op": op}
    for end, side in (("from", source), ("to", destination)):
        steps, counts = _walk(side, sizes)
        row |= {end: VARIABLES[side.memory], f"{end}_off": side.address.constant, f"{end}_steps": steps, f"{end}_sizes": counts,
                f"{end}_dtype": NEFF_NAMES.get(side.dtype) or f"uint{side.dtype.byte_size * 8}"}
    return row


def _walk(side: DmaPattern, sizes: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Steps and sizes as documented: fastest dimension first, the first one in bytes."""
    run = side.dtype.byte_size
    dims = list(zip(side.strides, sizes, strict=True))
    while dims and dims[-1][0] == run:
        run *= dims.pop()[1]
    return [1, *(stride for stride, _ in reversed(dims))], [run, *(size for _, size in reversed(dims))]


def read_template(spec: InstructionSpec, member: dict[str, Any]) -> tuple[dict[str, tuple[Memory, DType, int, tuple[int, ...]]],
                                                                          dict[str, Any]]:
    """DMA operands (memory, dtype, constant address, strides) and immediates of a template; ValueError if it is malformed."""
    ours = _typed(member, "nxcc", dict)
    rows, values = _typed(ours, "operands", dict), _typed(ours, "fields", dict)
    names = [o.name for o in spec.operands if o.dma]
    if set(rows) != set(names):
        raise ValueError(f"operands {sorted(rows)}, but {spec.name} has {names}")
    operands = {name: _operand(rows[name]) for name in names}
    declared = {f.name: f for f in L.template_fields(spec)}
    missing = [f.name for f in declared.values() if f.default is None and f.name not in values]
    if missing or not set(values) <= set(declared):
        raise ValueError(f"immediates {sorted(values)}, but {spec.name} has {sorted(declared)}")
    fields = {f.name: _READERS[f.kind](f, values[f.name]) for f in declared.values() if f.name in values}
    return operands, fields


def _typed(row: Any, key: str, kind: type) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key}: missing or no {kind.__name__}")
    return value


_MEMORIES = {memory.value: memory for memory in VARIABLES}


def _operand(row: Any) -> tuple[Memory, DType, int, tuple[int, ...]]:
    memory, dtype = _MEMORIES.get(_typed(row, "memory", str)), BY_NAME.get(_typed(row, "dtype", str))
    if memory is None or dtype is None or not dtype.is_array:
        raise ValueError(f"memory {row['memory']!r} or dtype {row['dtype']!r} does not exist")
    return memory, dtype, _whole(row.get("address")), _whole_list(_typed(row, "strides", list))


def pattern(row: tuple[Memory, DType, int, tuple[int, ...]], terms: tuple[tuple[int, int], ...]) -> DmaPattern:
    """The DMA operand with its register terms from the binary."""
    memory, dtype, address, strides = row
    return DmaPattern(memory, dtype, Affine(address, terms), strides)


_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def _whole(value: Any) -> int:
    if type(value) is not int or not _LEAST <= value <= _MOST:
        raise ValueError(f"{value!r} is no 64-bit integer")
    return value


def _whole_list(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > L.INTS_MAX:
        raise ValueError(f"{value!r} is no list of at most {L.INTS_MAX} integers")
    return tuple([_whole(number) for number in value])


def _flag(declared: FieldSpec, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{declared.name}: {value!r} is no flag")
    return value


def _choice(declared: FieldSpec, value: Any) -> str:
    if not isinstance(value, str) or value not in declared.choices:
        raise ValueError(f"{declared.name}: {value!r} is none of {', '.join(declared.choices)}")
    return value


_READERS: dict[FieldKind, Callable[[FieldSpec, Any], Any]] = {
    FieldKind.FLAG: _flag, FieldKind.ENUM: _choice, FieldKind.INT: lambda declared, value: _whole(value),
    FieldKind.INTS: lambda declared, value: _whole_list(value),
}
_WRITERS = _READERS | {FieldKind.INTS: lambda declared, value: list(_whole_list(value))}
