"""What an instruction demands of its operands, registers aside: memories, dtypes, shapes, limits.

Rules are registered by instruction name and yield one sentence a breach; the general ones hold for every operand.
Sources: hardware model 1.3 (partitions, patterns), 1.4 to 1.8 and 2 (per instruction); the limits are the target's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nxcc.backends.isa.instructions.vector import ARITHMETIC_OPS, BIT_OPS, GPSIMD_OPS, UNARY_OPS
from nxcc.backends.isa.layout import WAITS_MAX, is_trigger
from nxcc.backends.isa.program import AccessPattern, DmaPattern, Engine, Instruction, Memory, OperandSpec
from nxcc.backends.target import Target
from nxcc.ir.dtypes import F32

Rule = Callable[[Instruction, Engine, Target], Iterator[str]]
CONTROL_FLOW = ("loop", "while", "break_unless", "if", "else", "end", "call")
REGISTER_INSTRUCTIONS = ("register_set", "register_alu", "register_load", "register_store")


def breaches(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    """Everything about the instruction that is wrong whatever its registers hold."""
    spec = instruction.spec
    if engine not in spec.engines or engine not in target.engines:
        yield f"{engine.value} does not run it"
        return
    yield from _availability(instruction, target)
    for declared in spec.operands:
        operand = instruction.operands.get(declared.name)
        if operand is None:
            if not declared.optional:
                yield f"{declared.name} is missing"
                return
        elif declared.dma != isinstance(operand, DmaPattern):
            yield f"{declared.name} is the wrong kind of operand"
            return
        elif isinstance(operand, AccessPattern):
            yield from _pattern(declared, operand, engine, target)
        else:
            yield from _linear(declared, operand, target)
    for rule in RULES.get(spec.name, ()):
        yield from rule(instruction, engine, target)
    if is_trigger(spec):
        yield from _transfer(instruction, target)


def field(instruction: Instruction, name: str) -> Any:
    """An immediate, or its declared default."""
    if name in instruction.fields:
        return instruction.fields[name]
    return next(f.default for f in instruction.spec.fields if f.name == name)


def _availability(instruction: Instruction, target: Target) -> Iterator[str]:
    name = instruction.spec.name
    if name in CONTROL_FLOW and not target.features.control_flow:
        yield f"{target.name} has no control flow"
    if name in REGISTER_INSTRUCTIONS and not target.features.registers:
        yield f"{target.name} has no registers"
    for declared in instruction.spec.fields:
        if declared.default is None and declared.name not in instruction.fields:
            yield f"{declared.name} is missing"
    if len(instruction.waits) > WAITS_MAX or len(instruction.signals) > WAITS_MAX:
        yield f"more than {WAITS_MAX} waits or signals"


def _pattern(declared: OperandSpec, p: AccessPattern, engine: Engine, target: Target) -> Iterator[str]:
    name, facts, limits = declared.name, target.engines[engine], target.pattern
    allowed = facts.reads if declared.access == "r" else facts.writes
    if p.memory not in declared.memories or p.memory not in allowed:
        yield f"{name}: {engine.value} cannot access {p.memory.value}"
    legal = (*facts.dtypes, *target.tensor.accumulators) if engine is Engine.PE and declared.access != "r" else facts.dtypes
    if p.dtype not in legal or (declared.dtypes and p.dtype not in declared.dtypes):
        yield f"{name}: dtype {p.dtype} is not legal here"
    if p.partition not in target.start_partitions(p.partitions):
        yield f"{name}: {p.partitions} partitions may not start at {p.partition}"
    if len(p.dims) > limits.dims_max:
        yield f"{name}: {len(p.dims)} free dimensions, at most {limits.dims_max}"
    if any(not 1 <= size <= limits.size_max for _, size in p.dims):
        yield f"{name}: sizes {p.sizes} are not within 1..{limits.size_max}"
    if any(not limits.stride_min <= stride <= limits.stride_max for stride, _ in p.dims):
        yield f"{name}: strides do not fit {limits.stride_min}..{limits.stride_max} elements"
    most = target.psum.operand_elements_max if p.memory is Memory.PSUM else target.sbuf.operand_elements_max
    if p.free_elements > most:
        yield f"{name}: {p.free_elements} elements a partition, at most {most}"


def _linear(declared: OperandSpec, p: DmaPattern, target: Target) -> Iterator[str]:
    if p.memory not in declared.memories:
        yield f"{declared.name}: a transfer cannot reach {p.memory.value}"
    if p.dtype not in target.dma.dtypes or (declared.dtypes and p.dtype not in declared.dtypes):
        yield f"{declared.name}: dtype {p.dtype} is not legal here"


def _transfer(instruction: Instruction, target: Target) -> Iterator[str]:
    sizes = field(instruction, "sizes")
    if not 1 <= len(sizes) <= target.dma.dims_max or any(size < 1 for size in sizes):
        yield f"sizes {sizes}: one to {target.dma.dims_max} of at least 1"
    sides = [o for o in instruction.operands.values() if isinstance(o, DmaPattern)]
    if any(len(side.strides) != len(sizes) for side in sides):
        yield f"strides are not as many as the {len(sizes)} sizes"
    queues = target.dma.queues + target.dma.pinned_queues
    if not 0 <= field(instruction, "queue") < queues:
        yield f"queue {field(instruction, 'queue')} of {queues}"
    if not target.features.dma_cast and len({side.dtype for side in sides}) > 1:
        yield f"{target.name} cannot cast in a transfer"
    if instruction.fields.get("accumulate") == "add" and not target.features.dma_accumulate:
        yield f"{target.name} cannot accumulate in a transfer"


def _patterns(instruction: Instruction, names: tuple[str, ...]) -> list[tuple[str, AccessPattern]]:
    found = [(name, instruction.operands.get(name)) for name in names]
    return [(name, operand) for name, operand in found if isinstance(operand, AccessPattern)]


def _elementwise(*names: str) -> Rule:
    """The operands have one shape: partitions and free elements."""
    def rule(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
        present = _patterns(instruction, names)
        shapes = {(operand.partitions, operand.free_elements) for _, operand in present}
        if len(shapes) > 1:
            listed = ", ".join(f"{name} [{o.partitions}, {o.free_elements}]" for name, o in present)
            yield f"operands differ in shape: {listed}"
    return rule


def _same_partitions(*names: str) -> Rule:
    def rule(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
        present = _patterns(instruction, names)
        if len({operand.partitions for _, operand in present}) > 1:
            yield "operands differ in partitions: " + ", ".join(f"{name} {o.partitions}" for name, o in present)
    return rule


def _per_partition(like: str, *names: str) -> Rule:
    """The operands, where present, hold one element in each partition of `like`."""
    def rule(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
        base = instruction.operands[like]
        assert isinstance(base, AccessPattern)
        for name, operand in _patterns(instruction, names):
            if operand.partitions != base.partitions or operand.free_elements != 1:
                yield f"{name}: [{operand.partitions}, {operand.free_elements}] instead of [{base.partitions}, 1]"
    return rule


def _free(name: str, least: int, most: int) -> Rule:
    def rule(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
        for _, operand in _patterns(instruction, (name,)):
            if not least <= operand.free_elements <= most:
                yield f"{name}: {operand.free_elements} elements a partition, not within {least}..{most}"
    return rule


def _one_dtype(*names: str) -> Rule:
    def rule(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
        dtypes = {operand.dtype.name for name, operand in instruction.operands.items() if name in names}
        if len(dtypes) > 1:
            yield f"{' and '.join(names)} must have one dtype, not {' and '.join(sorted(dtypes))}"
    return rule


def _not_both_in_psum(a: str, b: str) -> Rule:
    def rule(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
        present = _patterns(instruction, (a, b))
        if len(present) == 2 and all(operand.memory is Memory.PSUM for _, operand in present):
            yield f"{a} and {b} are both in psum"
    return rule


def _operators(*fields: str) -> Rule:
    """Operators are all of one kind; bit operators need integers; some are GpSimd's, some tensor_scalar's."""
    def rule(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
        used = [field(instruction, name) for name in fields]
        for op in used:
            if op in GPSIMD_OPS and engine is not Engine.GPSIMD:
                yield f"{op} runs on GpSimd only"
            if op in UNARY_OPS and "op" in fields:
                yield f"{op} has one operand"
        bits = [op for op in used if op in BIT_OPS]
        if bits and any(op in (*ARITHMETIC_OPS, *UNARY_OPS) for op in used):
            yield f"bit and arithmetic operators do not mix: {', '.join(used)}"
        if bits and any(operand.dtype.is_float for operand in instruction.operands.values()):
            yield f"{bits[0]} needs integers"
    return rule


def _matmul(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    (_, stationary), (_, moving), (_, out) = _patterns(instruction, ("stationary", "moving", "out"))
    k, m, n = stationary.partitions, stationary.free_elements, moving.free_elements
    if moving.partitions != k or out.partitions != m or out.free_elements != n:
        yield (f"stationary [{k}, {m}] and moving [{moving.partitions}, {n}] do not give "
               f"out [{out.partitions}, {out.free_elements}]")
    facts = target.tensor
    if k > facts.rows or m > facts.stationary_max or n > facts.moving_max:
        yield f"k {k}, m {m}, n {n} exceed {facts.rows}, {facts.stationary_max}, {facts.moving_max}"
    floats = {stationary.dtype is F32, moving.dtype is F32}
    if len(floats) > 1 or (field(instruction, "tf32") and floats != {True}):
        yield f"{stationary.dtype} and {moving.dtype} do not pair" if len(floats) > 1 else "tf32 needs f32 operands"
    if field(instruction, "tf32") and "tf32" not in facts.passes:
        yield f"{target.name} has no tf32"


def _pe_transpose(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    (_, data), (_, out) = _patterns(instruction, ("data", "out"))
    most = target.tensor.transpose_max
    if (out.partitions, out.free_elements) != (data.free_elements, data.partitions) or data.free_elements > most:
        yield (f"data [{data.partitions}, {data.free_elements}] and out [{out.partitions}, {out.free_elements}] are no "
               f"transposes of at most {most} x {most}")


def _tensor_reduce(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    (_, data), (_, out) = _patterns(instruction, ("data", "out"))
    axes = field(instruction, "axes")
    if not 1 <= axes <= len(data.dims):
        yield f"axes {axes} of {len(data.dims)} free dimensions"
        return
    kept = 1
    for size in data.sizes[:len(data.dims) - axes]:
        kept *= size
    if out.free_elements != kept or out.partitions != data.partitions:
        yield f"out [{out.partitions}, {out.free_elements}] instead of [{data.partitions}, {kept}]"


def _steps_of(name: str) -> Rule:
    def rule(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
        for _, operand in _patterns(instruction, (name,)):
            if len(field(instruction, "steps")) != len(operand.dims):
                yield f"{len(field(instruction, 'steps'))} steps for {len(operand.dims)} free dimensions of {name}"
    return rule


def _partition_reduce(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    (_, data), (_, out) = _patterns(instruction, ("data", "out"))
    if out.partitions != 1 or out.free_elements != data.free_elements:
        yield f"out [{out.partitions}, {out.free_elements}] instead of [1, {data.free_elements}]"


def _activation(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    if field(instruction, "function") == "reciprocal" and "bias" in instruction.operands:
        yield "reciprocal takes no bias"


def _triples(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    for _, data in _patterns(instruction, ("data",)):
        if data.free_elements % 3:
            yield f"data: {data.free_elements} elements a partition are no triples"


def _vector_transpose(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    (_, data), (_, out) = _patterns(instruction, ("data", "out"))
    if data.partitions * data.free_elements != out.partitions * out.free_elements:
        yield (f"data [{data.partitions}, {data.free_elements}] and out [{out.partitions}, {out.free_elements}] differ in "
               f"elements")


def _dma_transpose(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    if not target.features.dma_transpose:
        yield f"{target.name} cannot transpose in a transfer"
    if {operand.dtype.byte_size for operand in instruction.operands.values()} != {2}:
        yield "only elements of 2 bytes are transposed"


def _row_count(instruction: Instruction, engine: Engine, target: Target) -> Iterator[str]:
    for _, indices in _patterns(instruction, ("indices",)):
        rows = field(instruction, "sizes")[:1]
        if rows != (indices.partitions * indices.free_elements,) or 1 not in (indices.partitions, indices.free_elements):
            yield f"indices [{indices.partitions}, {indices.free_elements}] for {rows} rows"
    if field(instruction, "limit") < 1:
        yield "limit is not positive"


RULES: dict[str, tuple[Rule, ...]] = {
    "matmul": (_matmul,),
    "pe_transpose": (_pe_transpose, _one_dtype("data", "out")),
    "activation": (_elementwise("data", "out"), _per_partition("data", "scale_tensor", "bias", "sum"), _activation),
    "tensor_tensor": (_elementwise("a", "b", "out"), _not_both_in_psum("a", "b"), _operators("op")),
    "tensor_scalar": (_elementwise("data", "out"), _per_partition("data", "scalar0", "scalar1"), _operators("op0", "op1")),
    "scalar_tensor_tensor": (_elementwise("data", "b", "out"), _per_partition("data", "scalar0"),
                             _not_both_in_psum("data", "b"), _operators("op0", "op1")),
    "tensor_reduce": (_tensor_reduce, _operators("op")),
    "tensor_tensor_scan": (_elementwise("a", "b", "out"), _per_partition("a", "initial"), _not_both_in_psum("a", "b"),
                           _operators("op0", "op1")),
    "tensor_copy": (_elementwise("data", "out"),),
    "copy_predicated": (_elementwise("data", "predicate", "out"), _not_both_in_psum("data", "predicate"),
                        _one_dtype("data", "out")),
    "reciprocal": (_elementwise("data", "out"),),
    "bn_stats": (_same_partitions("data", "out"), _free("data", 1, 512), _free("out", 6, 6)),
    "bn_aggr": (_same_partitions("data", "out"), _triples, _free("out", 2, 2)),
    "vector_transpose": (_vector_transpose, _one_dtype("data", "out")),
    "max8": (_same_partitions("data", "out"), _free("data", 8, 16384), _free("out", 8, 8)),
    "find_index8": (_same_partitions("data", "values", "out"), _free("data", 8, 16384), _free("values", 8, 8),
                    _free("out", 8, 8)),
    "match_replace8": (_elementwise("data", "out"), _same_partitions("data", "values"), _free("data", 8, 16384),
                       _free("values", 8, 8)),
    "select": (_elementwise("predicate", "a", "b", "out"), _not_both_in_psum("a", "predicate")),
    "iota": (_steps_of("out"),),
    "affine_select": (_elementwise("data", "out"), _steps_of("data")),
    "gather_free": (_elementwise("indices", "out"), _same_partitions("data", "out"), _one_dtype("data", "out")),
    "partition_reduce": (_partition_reduce, _operators("op")),
    "dma_transpose": (_dma_transpose, _one_dtype("source", "destination")),
    "dma_gather": (_row_count,),
    "dma_scatter": (_row_count,),
}
"""Instructions with demands beyond those on single operands; the others (memset, control) have none."""
