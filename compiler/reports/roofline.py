"""What a module has to do at least, and how long the target's peaks take for it: the roofline of a whole module.

t = max(flops / PE, elements / Vector, elements / Scalar, bytes / memory), each engine at its peak and all at once
(hardware model 5.2). Counted: products and sums of dots and convolutions at the rate of their operands' dtype; one pass of
Vector for each elementwise operation of two whole arrays and each reduction but sums (an operation with a constant or a
broadcast operand folds into another instruction, a sum into the accumulators of Scalar or PE); one pass of Scalar for each
transcendental function; every input, weight and output once, tables only as far as rows are looked up. A loop's body counts
as often as it runs, once if that depends on data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from nxcc.backends.isa.program import Engine
from nxcc.backends.target import Target
from nxcc.compiler.reports.statistics import multiply_accumulates
from nxcc.compiler.reports.trips import multiplicities, runs
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Computation, Instruction, Module

TRANSCENDENTAL = frozenset((
    "exponential", "exponential-minus-one", "log", "log-plus-one", "tanh", "logistic", "sqrt", "rsqrt", "cbrt", "sine",
    "cosine", "tan", "erf", "power", "atan2"))
FREE = frozenset(("convert", "copy", "bitcast-convert", "reduce-precision"))
"""Elementwise operations that reading or writing does for nothing."""
RUNNING = frozenset(("call", "conditional", "fusion", "while"))
"""What runs the computations that it calls; others apply them to elements."""
PICKING = frozenset(("gather", "dynamic-slice", "slice"))
"""What reads only as much of its first operand as it yields."""


@dataclass(frozen=True)
class Work:
    """flops: by dtype of the operands of dots and convolutions. vector, scalar: elements. bytes: read and written in HBM."""

    flops: dict[str, int]
    vector: int
    scalar: int
    bytes: int


@dataclass(frozen=True)
class Roofline:
    """Microseconds that each part of the work takes at the target's peak."""

    pe_us: float
    vector_us: float
    scalar_us: float
    memory_us: float

    @property
    def us(self) -> float:
        return max(self.pe_us, self.vector_us, self.scalar_us, self.memory_us)

    @property
    def bound_by(self) -> str:
        """The part that takes longest: pe, vector, scalar or memory."""
        return max(("pe", "vector", "scalar", "memory"), key=lambda part: float(getattr(self, f"{part}_us")))


def module_work(module: Module) -> Work:
    """Count a module's work."""
    return _work(multiplicities(module.entry), module_bytes(module))


def instruction_work(instruction: Instruction) -> Work:
    """Count the work of an instruction and of what it runs; bytes: of its operands as far as it reads them, and its result."""
    found = Counter[Computation]()
    for called in instruction.called if instruction.opcode in RUNNING else ():
        found.update(multiplicities(called, runs(instruction)))
    read = sum(_read_by(instruction, operand) for operand in set(instruction.operands))
    return _work(found, read + instruction.shape.byte_size, instruction)


def _work(computations: Mapping[Computation, int], moved: int, alone: Instruction | None = None) -> Work:
    flops: Counter[str] = Counter()
    vector = scalar = 0
    rows = [(instruction, times) for computation, times in computations.items() for instruction in computation.instructions]
    for instruction, times in rows if alone is None else [*rows, (alone, 1)]:
        macs = multiply_accumulates(instruction)
        if macs:
            flops[instruction.operands[0].shape.dtype.name] += 2 * macs * times
        elif instruction.opcode in TRANSCENDENTAL:
            scalar += instruction.shape.element_count * times
        else:
            vector += _vector_elements(instruction) * times
    return Work(dict(flops), vector, scalar, moved)


def _vector_elements(instruction: Instruction) -> int:
    if not instruction.shape.is_array:
        return 0
    if instruction.opcode == "reduce":
        is_sum = instruction.called[0].root.opcode == "add"
        return 0 if is_sum else instruction.operands[0].shape.element_count
    if instruction.opcode == "reduce-window":
        return instruction.shape.element_count
    if not instruction.operator.elementwise or instruction.opcode in FREE:
        return 0
    whole = [operand for operand in instruction.operands if not _is_broadcast(operand)]
    return instruction.shape.element_count if len(whole) > 1 else 0


def _is_broadcast(value: Instruction) -> bool:
    """Whether the value repeats a smaller one."""
    size = value.shape.element_count
    while value.opcode in ("broadcast", "reshape", "convert", "copy", "bitcast", "transpose"):
        value = value.operands[0]
    return value.shape.element_count < size


def module_bytes(module: Module) -> int:
    """Bytes of inputs, weights and constants as far as they are read, and of the results."""
    entry = module.entry
    read = sum(_read(i) for i in entry.instructions if i.opcode in ("parameter", "constant"))
    return read + entry.root.shape.byte_size


def _read(value: Instruction) -> int:
    """Bytes of a value that its users read; each byte once."""
    if not value.shape.is_array:
        return value.shape.byte_size if value.users else 0
    whole = value.shape.byte_size
    return min(whole, sum(_read_by(user, value) for user in set(value.users)))


def _read_by(user: Instruction, value: Instruction) -> int:
    if user.opcode in PICKING and user.operands[0] is value and value not in user.operands[1:]:
        return user.shape.byte_size
    if user.opcode in ("fusion", "call"):
        return sum(_read(_parameter(user.called[0], number)) for number, o in enumerate(user.operands) if o is value)
    return value.shape.byte_size


def _parameter(computation: Computation, number: int) -> Instruction:
    return computation.parameters[number]


def roofline(work: Work, target: Target) -> Roofline:
    """The time of each part at peak, microseconds."""
    pe, tensor = target.engines[Engine.PE], target.tensor
    peak = 2.0 * tensor.rows * tensor.columns * pe.clock_hz
    seconds = sum(flops * tensor.passes.get(dtype, 1) for dtype, flops in work.flops.items()) / peak
    return Roofline(
        seconds * 1e6, _lanes_us(work.vector, Engine.VECTOR, target), _lanes_us(work.scalar, Engine.SCALAR, target),
        work.bytes / target.memory_bytes_per_second * 1e6)


def _lanes_us(elements: int, engine: Engine, target: Target) -> float:
    """Elements at one a lane and cycle; a target without the engine has the work elsewhere."""
    facts = target.engines.get(engine)
    return elements / (facts.lanes * facts.clock_hz) * 1e6 if facts is not None else 0.0
