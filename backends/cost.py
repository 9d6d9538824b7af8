"""The cost model: how long an instruction keeps its engine busy, and what a transfer costs the DMA engines.

The only one: fusion, tiling, scheduling, the estimate and the timing simulator ask here. One rule an instruction, registered
under its name with its formula in words; every number is a fact of the target, so `explain` can say where it is from.
Waiting, order and sharing are not here: they are the timing simulator's.
Source of the formulas: hardware model 1.4 to 1.8 and 2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from nxcc.backends.isa.layout import is_trigger
from nxcc.backends.isa.program import (
    DMA_PARTITION_STRIDE,
    INSTRUCTIONS,
    AccessPattern,
    DmaPattern,
    Engine,
    Instruction,
    Memory,
)
from nxcc.backends.isa.rules import CONTROL_FLOW, REGISTER_INSTRUCTIONS
from nxcc.backends.target import Target
from nxcc.ir.dtypes import BF16, F16
from nxcc.ir.facts import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """Ticks of the target's clock (Target.ticks_per_second).

    busy: until the engine can start its next instruction. latency: from then until an instruction that depends on the
    result can start on the same engine. Another engine waits for the semaphore as well (sequencer.semaphore_hop_ns).
    """

    busy: int
    latency: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a DMA trigger asks of the DMA engines.

    bytes: of the larger side. descriptors: of the side with the shorter runs; run_bytes: contiguous bytes of each.
    first_engine, engines: the first of those that carry a share, and their number. data: ticks of the one with most to do,
    alone. latency: ticks from the trigger to the semaphore, alone. interval: ticks until the queue takes the next transfer.
    """

    bytes: int
    descriptors: int
    run_bytes: int
    first_engine: int
    engines: int
    data: int
    latency: int
    interval: int


Cycles = Callable[[Instruction, Engine, Target], float]


@dataclass(frozen=True, slots=True)
class Rule:
    """cycles: of the engine's clock. facts: target facts that it reads; `{engine}` stands for the engine."""

    cycles: Cycles
    formula: str
    facts: tuple[str, ...]


RULES: dict[str, Rule] = {}
_ENGINE_FACTS = ("engines.{engine}.start_cycles", "engines.{engine}.initiation_cycles", "memory_costs.full_rate_stride_bytes",
                 "memory_costs.large_stride_factor")


def rule(*names: str, formula: str, facts: tuple[str, ...] = ()) -> Callable[[Cycles], Cycles]:
    """Register the cost of instructions whose time is their cycles as they are."""
    def register(cycles: Cycles) -> Cycles:
        for name in names:
            assert name in INSTRUCTIONS and name not in RULES, name
            RULES[name] = Rule(cycles, formula, facts)
        return cycles
    return register


def streaming(*names: str, formula: str, facts: tuple[str, ...] = ()) -> Callable[[Cycles], Cycles]:
    """Register the work of instructions that stream elements: the engine's start, least interval and strides come on top."""
    def register(work: Cycles) -> Cycles:
        def cycles(instruction: Instruction, engine: Engine, target: Target) -> float:
            facts = target.engines[engine]
            return facts.start_cycles + max(facts.initiation_cycles,
                                            work(instruction, engine, target) * _stride_factor(instruction, target))
        rule(*names, formula=f"start + max(initiation, ({formula}) * stride factor)", facts=_ENGINE_FACTS + facts)(cycles)
        return work
    return register


def cycles(instruction: Instruction, engine: Engine, target: Target) -> int:
    """Cycles of the engine's clock that the instruction keeps it busy, rounded up."""
    return math.ceil(RULES[instruction.spec.name].cycles(instruction, engine, target))


def cost(instruction: Instruction, engine: Engine, target: Target) -> Cost:
    """The instruction's cost in ticks; a DMA trigger's is that of triggering (see `transfer`)."""
    facts = target.engines[engine]
    per_cycle = target.ticks_per_cycle(engine)
    return Cost(cycles(instruction, engine, target) * per_cycle,
                (facts.static_overhead_cycles + facts.write_to_read_cycles) * per_cycle)


def table_load(before: str | None, function: str, target: Target) -> int:
    """Ticks that Scalar needs to change from one activation function to another."""
    if function in TABLELESS or before == function:
        return 0
    return target.instruction_costs.table_load_cycles * target.ticks_per_cycle(Engine.SCALAR)


TABLELESS = frozenset(("copy", "square", "abs", "sign", "relu"))
"""Functions that leave the loaded table in place. Assumed: hardware model 1.6."""


def explain(name: str, target: Target) -> str:
    """Formula, constants and their sources for one instruction; KeyError if there is none of this name.

    Said as well: what decides when the next instruction can start, and which of the constants the sources leave open.
    """
    spec, row = INSTRUCTIONS[name], RULES[name]
    engines = [engine for engine in spec.engines if engine in target.engines]
    reason = absent(name, target)
    if reason:
        return f"{name}: {spec.meaning}\n{target.name} has no such instruction: {reason}\n"
    names = [engine.name.lower() for engine in engines]
    sections = [(f"cost in cycles: {row.formula}", row.facts + _CLOCK_FACTS)]
    if is_trigger(spec):
        sections.append((_TRANSFER, _TRANSFER_FACTS))
    if spec.operands and Engine.PE not in engines:
        sections.append((_DEPENDENT, _DEPENDENT_FACTS))
    sections.append((_WAITING, _WAITING_FACTS))
    lines, shown = [f"{name}: {spec.meaning}"], []
    for title, paths in sections:
        lines.append(title)
        new = [path for path in dict.fromkeys(p.format(engine=e) for p in paths for e in names) if path not in shown]
        lines += [f"  {path} = {_fact(path, target)}" for path in new]
        shown += new
    ports = _exclusions(engines, target) if spec.operands and not is_trigger(spec) else []
    return "\n".join([*lines, *ports, *_open_questions(shown, target)]) + "\n"


def absent(name: str, target: Target) -> str:
    """Why a target cannot run an instruction; empty if it can. What unrolling takes out of a program counts as absent."""
    if name in CONTROL_FLOW and not target.features.control_flow:
        return "no control flow"
    if name in REGISTER_INSTRUCTIONS and not target.features.registers:
        return "no registers"
    engines = INSTRUCTIONS[name].engines
    has_one = any(engine in target.engines for engine in engines)
    return "" if has_one else f"no {' or '.join(engine.words for engine in engines)} engine"


def _fact(path: str, target: Target) -> str:
    fact = target.facts[path]
    return f"{fact.value} [{fact.status.value}] {fact.source}"


def _exclusions(engines: Sequence[Engine], target: Target) -> list[str]:
    """Engines that cannot reach a memory while an instruction of these does."""
    rows = [(engine, memory, others) for engine in engines
            for memory, others in target.engines[engine].excludes.items()]
    return [f"ports: while {engine.words} uses {memory.name}, {', '.join(o.words for o in others)} cannot "
            f"[{target.facts[f'engines.{engine.name.lower()}.excludes'].status.value}]"
            for engine, memory, others in rows if others]


def _open_questions(paths: Sequence[str], target: Target) -> list[str]:
    """What is not known well among these facts, with the ends that the range of an estimate uses."""
    lines = []
    for question in target.uncertain:
        if any(path in paths for path in (*question.fast, *question.slow)):
            ends = [", ".join(f"{path} {'x ' if question.scaled else ''}{value}" for path, value in end.items()) or "as it is"
                    for end in (question.fast, question.slow)]
            lines.append(f"uncertain: {question.name}: fast {ends[0]}; slow {ends[1]}; {question.why}")
    return lines


_CLOCK_FACTS = ("engines.{engine}.clock_hz",)
_TRANSFER = (
    "transfer: start + data of the busiest engine + completion, where an engine's data is descriptors * max(run bytes, least "
    "descriptor) / bandwidth; next of the queue after max(interval, data); all share the core's HBM bandwidth")
_TRANSFER_FACTS = ("dma.start_ns", "dma.issue_interval_ns", "dma.completion_ns", "dma.engines", "dma.partitions_per_engine",
                   "dma.bytes_per_second_per_engine", "dma.descriptor_bytes_min", "dma.transpose_factor",
                   "dma.accumulate_factor", "dma.engine_gap_ns", "dma.queues", "hbm.share_bytes_per_second")
_DEPENDENT = "what needs its result on the same engine starts that much after its end, or follows it element by element:"
_DEPENDENT_FACTS = ("engines.{engine}.static_overhead_cycles", "engines.{engine}.write_to_read_cycles")
_WAITING = "what waits for it on another engine starts a semaphore's hop and an access later:"
_WAITING_FACTS = ("sequencer.semaphore_hop_ns", "memory_costs.access_start_cycles")


# ---- operands -----------------------------------------------------------------------------------------------------


def _operand(instruction: Instruction, name: str) -> AccessPattern:
    operand = instruction.operands[name]
    assert isinstance(operand, AccessPattern)
    return operand


def _elements(instruction: Instruction) -> int:
    """Elements a partition of the first operand."""
    return _operand(instruction, next(o.name for o in instruction.spec.operands)).free_elements


def _in_psum(instruction: Instruction, *names: str) -> bool:
    return any(instruction.operands[name].memory is Memory.PSUM for name in names if name in instruction.operands)


def _innermost_stride(pattern: AccessPattern) -> int:
    """Bytes between neighbouring elements; one element's if there are no neighbours."""
    size = pattern.dtype.byte_size
    return next((abs(stride) * size for stride, extent in reversed(pattern.dims) if extent > 1), size)


def _stride_factor(instruction: Instruction, target: Target) -> int:
    facts = target.memory_costs
    far = any(isinstance(operand, AccessPattern) and _innermost_stride(operand) > facts.full_rate_stride_bytes
              for operand in instruction.operands.values())
    return facts.large_stride_factor if far else 1


# ---- Tensor -------------------------------------------------------------------------------------------------------

_PE_FACTS = ("tensor.passes", "tensor.pass_factor", "tensor.pass_overhead_cycles", *_ENGINE_FACTS[1:])


def _pe(instruction: Instruction, columns: int, kind: str, target: Target) -> float:
    least = target.engines[Engine.PE].initiation_cycles
    facts = target.tensor
    stream = facts.pass_factor * max(columns * _stride_factor(instruction, target), least)
    return facts.passes[kind] * (stream + facts.pass_overhead_cycles)


@rule("matmul", formula="passes * (pass factor * max(N * stride factor, initiation) + pass overhead), N: columns of moving",
      facts=_PE_FACTS)
def _matmul(instruction: Instruction, engine: Engine, target: Target) -> float:
    moving, stationary = _operand(instruction, "moving"), _operand(instruction, "stationary")
    kinds = ["tf32"] if instruction.fields.get("tf32") else [moving.dtype.name, stationary.dtype.name]
    slowest = max(kinds, key=lambda kind: target.tensor.passes[kind])
    return _pe(instruction, moving.free_elements, slowest, target)


@rule("pe_transpose", formula="passes * (pass factor * max(P, initiation) + pass overhead), P: partitions of data, the columns "
      "of the identity", facts=_PE_FACTS)
def _pe_transpose(instruction: Instruction, engine: Engine, target: Target) -> float:
    data = _operand(instruction, "data")
    return _pe(instruction, data.partitions, data.dtype.name, target)


# ---- Vector, Scalar, GpSimd ---------------------------------------------------------------------------------------

_TWO = ("instruction_costs.two_operand_cycles",)


def _two_operands(instruction: Instruction, target: Target, fast: bool) -> float:
    return _elements(instruction) * (1 if fast else target.instruction_costs.two_operand_cycles)


@streaming("tensor_tensor", formula="N if one operand is in PSUM, or all is contiguous bf16 in SBUF and op is add, subtract or "
           "multiply; else 2 N; on GpSimd 2 N, power 16 N",
           facts=(*_TWO, "instruction_costs.gpsimd_integer_cycles", "instruction_costs.gpsimd_power_cycles"))
def _tensor_tensor(instruction: Instruction, engine: Engine, target: Target) -> float:
    if engine is Engine.GPSIMD:
        facts = target.instruction_costs
        power = instruction.fields["op"] == "power"
        return _elements(instruction) * (facts.gpsimd_power_cycles if power else facts.gpsimd_integer_cycles)
    patterns = [_operand(instruction, name) for name in ("a", "b", "out")]
    packed = instruction.fields["op"] in ("add", "subtract", "multiply") and all(
        p.dtype is BF16 and p.memory is Memory.SBUF and _innermost_stride(p) == p.dtype.byte_size for p in patterns)
    return _two_operands(instruction, target, packed or _in_psum(instruction, "a", "b"))


@streaming("tensor_scalar", formula="N; power 16 N, rsqrt 4 N",
           facts=("instruction_costs.gpsimd_power_cycles", "instruction_costs.gpsimd_rsqrt_cycles"))
def _tensor_scalar(instruction: Instruction, engine: Engine, target: Target) -> float:
    facts = target.instruction_costs
    factors = {"power": facts.gpsimd_power_cycles, "rsqrt": facts.gpsimd_rsqrt_cycles}
    return _elements(instruction) * max(factors.get(instruction.fields.get(name, ""), 1) for name in ("op0", "op1"))


@streaming("scalar_tensor_tensor", formula="N if data and b are bf16, op0 is subtract, op1 is multiply and N is even; else 2 N",
           facts=_TWO)
def _scalar_tensor_tensor(instruction: Instruction, engine: Engine, target: Target) -> float:
    fields = instruction.fields
    fast = (fields["op0"], fields["op1"]) == ("subtract", "multiply") and _elements(instruction) % 2 == 0 and all(
        instruction.operands[name].dtype is BF16 for name in ("data", "b"))
    return _two_operands(instruction, target, fast)


@streaming("tensor_reduce", formula="N / 2 on Vector if data and out are bf16 and op is add or maximum; else N",
           facts=("instruction_costs.half_rate_cycles",))
def _tensor_reduce(instruction: Instruction, engine: Engine, target: Target) -> float:
    half = engine is Engine.VECTOR and instruction.fields["op"] in ("add", "maximum") and all(
        operand.dtype is BF16 for operand in instruction.operands.values())
    return _elements(instruction) * (target.instruction_costs.half_rate_cycles if half else 1)


@streaming("tensor_tensor_scan", formula="2 N", facts=_TWO)
def _scan(instruction: Instruction, engine: Engine, target: Target) -> float:
    return _two_operands(instruction, target, fast=False)


@streaming("copy_predicated", formula="N if data or predicate is in PSUM; else 2 N", facts=_TWO)
def _copy_predicated(instruction: Instruction, engine: Engine, target: Target) -> float:
    return _two_operands(instruction, target, _in_psum(instruction, "data", "predicate"))


@streaming("select", formula="N if a, b or predicate is in PSUM; else 2 N (assumed)", facts=_TWO)
def _select(instruction: Instruction, engine: Engine, target: Target) -> float:
    return _two_operands(instruction, target, _in_psum(instruction, "a", "b", "predicate"))


@streaming("memset", formula="N / 2 on Vector for 0 in bf16 or f16; else N", facts=("instruction_costs.half_rate_cycles",))
def _memset(instruction: Instruction, engine: Engine, target: Target) -> float:
    half = engine is Engine.VECTOR and _operand(instruction, "out").dtype in (BF16, F16) \
        and instruction.fields.get("value", 0.0) == 0
    return _elements(instruction) * (target.instruction_costs.half_rate_cycles if half else 1)


@streaming("reciprocal", formula="8 N", facts=("instruction_costs.reciprocal_cycles",))
def _reciprocal(instruction: Instruction, engine: Engine, target: Target) -> float:
    return _elements(instruction) * target.instruction_costs.reciprocal_cycles


@streaming("bn_aggr", formula="13 N / 3", facts=("instruction_costs.bn_aggr_cycles",))
def _bn_aggr(instruction: Instruction, engine: Engine, target: Target) -> float:
    return _elements(instruction) * target.instruction_costs.bn_aggr_cycles


@streaming("tensor_copy", "bn_stats", "vector_transpose", "max8", "find_index8", "match_replace8", "iota", "affine_select",
           formula="N")
def _one_operand(instruction: Instruction, engine: Engine, target: Target) -> float:
    return _elements(instruction)


@rule("activation", formula="max(initiation, N * stride factor), and one more interval if the sum is read out; a function that "
      f"needs another table than the one before loads it first ({', '.join(sorted(TABLELESS))} need none)",
      facts=(*_ENGINE_FACTS[1:], "instruction_costs.reduce_into_scalar_cycles", "instruction_costs.table_load_cycles"))
def _activation(instruction: Instruction, engine: Engine, target: Target) -> float:
    data = _operand(instruction, "data")
    least = target.engines[engine].initiation_cycles
    extra = target.instruction_costs.reduce_into_scalar_cycles if "sum" in instruction.operands else 0
    return max(least, data.free_elements * _stride_factor(instruction, target)) + extra


@streaming("gather_free", formula="8 n, n: indices a partition (assumed)", facts=("instruction_costs.gpsimd_gather_cycles",))
def _gather_free(instruction: Instruction, engine: Engine, target: Target) -> float:
    return _operand(instruction, "indices").free_elements * target.instruction_costs.gpsimd_gather_cycles


@streaming("partition_reduce", formula="16 N (assumed)", facts=("instruction_costs.gpsimd_partition_reduce_cycles",))
def _partition_reduce(instruction: Instruction, engine: Engine, target: Target) -> float:
    return _elements(instruction) * target.instruction_costs.gpsimd_partition_reduce_cycles


# ---- sequencers ---------------------------------------------------------------------------------------------------


@rule("register_set", "register_alu", "register_store", "loop", formula="register instruction",
      facts=("sequencer.register_cycles",))
def _register(instruction: Instruction, engine: Engine, target: Target) -> float:
    return target.sequencer.register_cycles


@rule("register_load", formula="time to load from HBM or SBUF", facts=("sequencer.load_hbm_ns", "sequencer.load_sbuf_ns"))
def _register_load(instruction: Instruction, engine: Engine, target: Target) -> float:
    far = instruction.operands["source"].memory is Memory.HBM
    nanoseconds = target.sequencer.load_hbm_ns if far else target.sequencer.load_sbuf_ns
    return nanoseconds * 1e-9 * target.engines[engine].clock_hz


@rule("end", "else", "call", formula="a taken branch", facts=("sequencer.branch_taken_cycles",))
def _taken(instruction: Instruction, engine: Engine, target: Target) -> float:
    return target.sequencer.branch_taken_cycles


@rule("if", "break_unless", formula="a branch that is not taken; if it is, the timing simulator takes the other cost",
      facts=("sequencer.branch_not_taken_cycles", "sequencer.branch_taken_cycles"))
def _not_taken(instruction: Instruction, engine: Engine, target: Target) -> float:
    return target.sequencer.branch_not_taken_cycles


@rule("while", "halt", formula="nothing: a marker")
def _marker(instruction: Instruction, engine: Engine, target: Target) -> float:
    return 0


@rule("nop", "dma_copy", "dma_transpose", formula="one sequencer instruction", facts=("sequencer.trigger_ns",))
def _trigger(instruction: Instruction, engine: Engine, target: Target) -> float:
    return target.sequencer.trigger_ns * 1e-9 * target.engines[engine].clock_hz


@rule("dma_gather", "dma_scatter", formula="start + cycles per descriptor * descriptors, written by GpSimd (assumed)",
      facts=("engines.{engine}.start_cycles", "instruction_costs.gpsimd_descriptor_cycles"))
def _indexed(instruction: Instruction, engine: Engine, target: Target) -> float:
    return target.engines[engine].start_cycles \
        + transfer(instruction, target).descriptors * target.instruction_costs.gpsimd_descriptor_cycles


# ---- transfers ----------------------------------------------------------------------------------------------------


def transfer(instruction: Instruction, target: Target) -> Transfer:
    """What a trigger asks of the DMA engines, were it alone."""
    source, destination = instruction.operands["source"], instruction.operands["destination"]
    assert isinstance(source, DmaPattern) and isinstance(destination, DmaPattern)
    facts = target.dma
    sizes = instruction.fields["sizes"]
    elements = math.prod(sizes)
    item = max(source.dtype.byte_size, destination.dtype.byte_size)
    run = min(_run_elements(source, sizes), _run_elements(destination, sizes))
    descriptors = max(1, elements // run)
    first, engines, share = _engines(source, destination, sizes, elements * item, target)
    factor = facts.transpose_factor if instruction.spec.name == "dma_transpose" else 1
    if instruction.fields.get("accumulate") == "add":
        factor *= facts.accumulate_factor
    moved = descriptors * max(run * item, facts.descriptor_bytes_min) * factor
    data = math.ceil(moved * share / facts.bytes_per_second_per_engine * target.ticks_per_second)
    latency = target.ticks(facts.start_ns) + data + target.ticks(facts.completion_ns)
    return Transfer(elements * item, descriptors, run * item, first, engines, data, latency,
                    max(target.ticks(facts.issue_interval_ns), data))


def transfer_bytes(instruction: Instruction) -> int:
    """Bytes of a transfer's larger side."""
    item = max(side.dtype.byte_size for side in instruction.operands.values() if isinstance(side, DmaPattern))
    elements: int = math.prod(instruction.fields["sizes"])
    return elements * item


def _run_elements(side: DmaPattern, sizes: tuple[int, ...]) -> int:
    """Elements that lie one after another on this side."""
    run = 1
    for stride, size in zip(reversed(side.strides), reversed(sizes), strict=True):
        if size == 1:
            continue
        if stride != run * side.dtype.byte_size:
            break
        run *= size
    return run


def _engines(source: DmaPattern, destination: DmaPattern, sizes: tuple[int, ...], total_bytes: int,
             target: Target) -> tuple[int, int, float]:
    """The first of the DMA engines that carry the transfer, their number, and the share of the one with most to do.

    Each engine serves its own partitions of SBUF, and the side that touches fewer engines decides; without SBUF all share
    alike. An address that depends on registers counts with its constant.
    """
    facts = target.dma
    on_chip = [_served(side, sizes, target) for side in (destination, source) if side.memory is Memory.SBUF]
    if on_chip:
        return min(on_chip, key=lambda found: found[1])
    engines = max(1, min(facts.engines, total_bytes // facts.descriptor_bytes_min))
    return 0, engines, 1 / engines


def _served(side: DmaPattern, sizes: tuple[int, ...], target: Target) -> tuple[int, int, float]:
    """First engine, number of engines and largest share, for the partitions that a walk over SBUF touches."""
    partitions = {side.address.constant // DMA_PARTITION_STRIDE}
    for stride, size in zip(side.strides, sizes, strict=True):
        step = (stride + DMA_PARTITION_STRIDE // 2) // DMA_PARTITION_STRIDE
        if step:
            partitions = {start + step * i for start in partitions for i in range(min(size, target.partitions))}
    facts = target.dma
    load = Counter(partition // facts.partitions_per_engine % facts.engines for partition in partitions)
    return min(load), len(load), max(load.values()) / len(partitions)


# ---- between cores ------------------------------------------------------------------------------------------------


def handover(sizes: Sequence[int], same_chip: bool, target: Target) -> int:
    """Ticks to bring values of these sizes (bytes) from the memory of one core to that of another.

    On one chip both lie in the same DRAM, which reads and writes at the share of a core; between chips the link is in between.
    One transfer a value, from a queue of the taking core (assumed).
    """
    if not sizes:
        return 0
    dma, total = target.dma, sum(sizes)
    share = target.hbm.share_bytes_per_second
    slowest = 2 * total / share if same_chip else total / min(share, target.cores.link_bytes_per_second)
    issued = target.ticks(dma.issue_interval_ns) * (len(sizes) - 1)
    data = max(issued, math.ceil(slowest * target.ticks_per_second))
    return target.ticks(dma.start_ns) + data + target.ticks(dma.completion_ns) + target.ticks(target.sequencer.semaphore_hop_ns)
