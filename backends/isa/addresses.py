"""Every address that a stream can form lies in its memory: one walk a stream over intervals of registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from nxcc.backends.isa import intervals
from nxcc.backends.isa.intervals import ANY, Effects, Interval, State, Undefined
from nxcc.backends.isa.layout import is_trigger
from nxcc.backends.isa.program import (
    DMA_PARTITION_STRIDE,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    FieldKind,
    Function,
    Instruction,
    Memory,
    Operand,
)
from nxcc.backends.isa.structure import Block, Leaf, Node
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass

Report = Callable[[str, Engine, int, str], None]


@dataclass(frozen=True, slots=True)
class Arena:
    """Sizes that addresses must keep to: bytes of a partition that programs may use, of PSUM, of HBM; and partitions.

    writable_bytes: of a partition of SBUF; those behind are resident, and may be read.
    """

    target: Target
    hbm_bytes: int
    writable_bytes: int

    @property
    def partition_bytes(self) -> dict[Memory, int]:
        return {Memory.SBUF: self.target.sbuf.usable_bytes, Memory.PSUM: self.target.psum.partition_bytes}


@dataclass(slots=True)
class WaitBound:
    """A wait on a semaphore that is known, with the least value it can ask for."""

    semaphore: int
    least: int
    function: str
    index: int


@dataclass(slots=True)
class Findings:
    """What the walks of one entry learn besides breaches: waits, by engine."""

    waits: list[tuple[Engine, WaitBound]] = field(default_factory=list)
    unknown: bool = False


@dataclass(slots=True)
class Walk:
    """The walk of one engine's streams: the entry first, then each function once, for the union of all its calls."""

    engine: Engine
    arena: Arena
    functions: list[Function]
    trees: Mapping[tuple[str, int, Engine], Block]
    report: Report
    findings: Findings
    name: str = ""
    arguments: dict[int, State] = field(default_factory=dict)
    summaries: dict[int, Effects] = field(default_factory=dict)
    extents: dict[int, tuple[Interval, Interval]] = field(default_factory=dict)

    def entry(self, position: int, function: Function) -> None:
        """Walk an entry, and all functions it calls on this engine."""
        self.name = function.name
        self._nodes(self.trees["entry", position, self.engine].body, intervals.fresh())
        for index, state in sorted(self.arguments.items()):
            tree = self.trees.get(("function", index, self.engine))
            if tree is not None:
                self.name = self.functions[index].name
                self._nodes(tree.body, list(state))

    def _nodes(self, nodes: list[Node], state: State) -> State:
        for node in nodes:
            state = self._block(node, state) if isinstance(node, Block) else self._leaf(node, state)
        return state

    def _block(self, block: Block, state: State) -> State:
        assert block.opener is not None
        self._synchronisation(block.opener, block.index, state)
        kinds = {"loop": self._loop, "while": self._while, "if": self._if}
        return kinds[block.opener.spec.name](block, block.opener, state)

    def _loop(self, block: Block, opener: Instruction, state: State) -> State:
        count = self._value(opener.fields["count"], state, block.index)
        changed = intervals.effects(block.body, self._effects_of_call)
        register = opener.fields["register"]
        if register in changed:
            self.report(self.name, self.engine, block.index, f"the loop's register r{register} is changed within the loop")
        if count[1] < 1:
            return state
        start = intervals.advance(state, changed, (0, count[1] - 1))
        start[register] = (0, count[1] - 1)
        end = self._nodes(block.body, start)
        after = intervals.advance(state, changed, (max(count[0], 0), count[1]))
        for number, step in changed.items():
            if step is None or state[number] is None:
                after[number] = end[number]
        after[register] = None
        return after if count[0] >= 1 else intervals.join(after, state)

    def _while(self, block: Block, opener: Instruction, state: State) -> State:
        changed = dict.fromkeys(intervals.effects(block.body, self._effects_of_call))
        start = intervals.advance(state, changed, (0, 0))
        end = self._nodes(block.body, list(start))
        # A while is left from its middle: what only its body defines is not certain, what it changes is unknown.
        return intervals.join(start, [None if s is None else ANY if n in changed else e
                                      for n, (s, e) in enumerate(zip(start, end, strict=True))])

    def _if(self, block: Block, opener: Instruction, state: State) -> State:
        self._defined(opener.fields["register"], state, block.index)
        return intervals.join(self._nodes(block.body, list(state)), self._nodes(block.orelse, list(state)))

    def _leaf(self, leaf: Leaf, state: State) -> State:
        instruction, index = leaf.instruction, leaf.index
        if instruction.waits or instruction.signals:
            self._synchronisation(instruction, index, state)
        for name, operand in instruction.operands.items():
            self._operand(instruction, name, operand, state, index)
        transfer = _TRANSFERS.get(instruction.spec.name)
        if transfer is not None:
            return transfer(self, instruction, index, state)
        for declared in instruction.spec.fields:
            if declared.kind is FieldKind.AFFINE and declared.name in instruction.fields:
                self._value(instruction.fields[declared.name], state, index)
        return state

    # ---- registers ----------------------------------------------------------------------------------------------

    def _value(self, value: Affine, state: State, index: int) -> Interval:
        try:
            return intervals.evaluate(value, state)
        except Undefined as undefined:
            self.report(self.name, self.engine, index, f"r{undefined.args[0]} is read before anything sets it")
            return ANY

    def _defined(self, register: int, state: State, index: int) -> None:
        if state[register] is None:
            self.report(self.name, self.engine, index, f"r{register} is read before anything sets it")

    def _set(self, instruction: Instruction, index: int, state: State) -> State:
        state[instruction.fields["register"]] = intervals.wrapped(self._value(instruction.fields["value"], state, index))
        return state

    def _alu(self, instruction: Instruction, index: int, state: State) -> State:
        fields = instruction.fields
        a, b = (intervals.wrapped(self._value(fields[name], state, index)) for name in ("a", "b"))
        if fields["op"] in ("divide", "modulo") and b == (0, 0):
            self.report(self.name, self.engine, index, "a register is divided by 0")
        state[fields["register"]] = intervals.wrapped(intervals.ALU[fields["op"]](a, b))
        return state

    def _load(self, instruction: Instruction, index: int, state: State) -> State:
        operand = instruction.operands["source"]
        state[instruction.fields["register"]] = _VALUES.get(operand.dtype.name, ANY)
        return state

    def _store(self, instruction: Instruction, index: int, state: State) -> State:
        self._defined(instruction.fields["register"], state, index)
        return state

    def _call(self, instruction: Instruction, index: int, state: State) -> State:
        number = instruction.fields["function"]
        if not 0 <= number < len(self.functions) or ("function", number, self.engine) not in self.trees:
            self.report(self.name, self.engine, index, f"function {number} has no stream for {self.engine.value}")
            return state
        known = self.arguments.get(number)
        self.arguments[number] = list(state) if known is None else intervals.join(known, state)
        after = intervals.advance(state, self._effects_of_call(instruction), (1, 1))
        return after

    def _effects_of_call(self, instruction: Instruction) -> Effects:
        number = instruction.fields["function"]
        if number not in self.summaries:
            tree = self.trees.get(("function", number, self.engine))
            self.summaries[number] = intervals.effects(tree.body, lambda _: {}) if tree is not None else {}
        return self.summaries[number]

    # ---- addresses ----------------------------------------------------------------------------------------------

    def _operand(self, instruction: Instruction, name: str, operand: Operand, state: State, index: int) -> None:
        limit = self.arena.partition_bytes.get(operand.memory, 0)
        if operand.memory is Memory.SBUF and "w" in instruction.spec.operand(name).access:
            limit = self.arena.writable_bytes
        if isinstance(operand, AccessPattern):
            problem = self._pattern(instruction, name, operand, state, index, limit)
        else:
            problem = self._linear(instruction, operand, state, index, limit)
        if problem:
            self.report(self.name, self.engine, index, f"{name}: {problem}")

    def _pattern(self, instruction: Instruction, name: str, operand: AccessPattern, state: State, index: int,
                 limit: int) -> str:
        low, high = self._value(operand.offset, state, index) if operand.offset.terms else (operand.offset.constant,) * 2
        reach = self.extents.get(id(operand))
        if reach is None:
            size = operand.dtype.byte_size
            reach = self.extents[id(operand)] = extent([(stride * size, n) for stride, n in operand.dims], size), (0, 0)
        first, last = low + reach[0][0], high + reach[0][1]
        if first < 0 or last > limit:
            return f"bytes {first}..{last - 1} of a partition of {operand.memory.value}, which has {limit}"
        if instruction.spec.name == "matmul" and name == "out":
            bank = self.arena.target.psum.bank_bytes
            low_in_bank, span = low + reach[0][0], reach[0][1] - reach[0][0]
            if all(coefficient % bank == 0 for _, coefficient in operand.offset.terms):
                crosses = (operand.offset.constant + reach[0][0]) % bank + span > bank
            else:
                crosses = low_in_bank // bank != (last - 1) // bank
            if crosses:
                return f"bytes {first}..{last - 1} cross a bank of {bank} bytes"
        return ""

    def _linear(self, instruction: Instruction, operand: DmaPattern, state: State, index: int, limit: int) -> str:
        sizes = instruction.fields.get("sizes", ())
        dims = list(zip(operand.strides, sizes, strict=True))
        if operand is instruction.operands.get(_INDEXED.get(instruction.spec.name, "")):
            dims[0] = (instruction.fields["index_stride"], instruction.fields["limit"])
        if operand.memory is Memory.HBM:
            low, high = self._value(operand.address, state, index)
            reach = extent(dims, operand.dtype.byte_size)
            first, last = low + reach[0], high + reach[1]
            if first < 0 or last > self.arena.hbm_bytes:
                return f"bytes {first}..{last - 1} of hbm, of which the program has {self.arena.hbm_bytes}"
            return ""
        return self._sbuf_linear(operand, dims, state, index, limit)

    def _sbuf_linear(self, operand: DmaPattern, dims: list[tuple[int, int]], state: State, index: int, bytes_: int) -> str:
        """A walk over the linear map of SBUF, its partitions and its bytes followed apart."""
        address = operand.address
        constant = divmod(address.constant, DMA_PARTITION_STRIDE)
        parts = [(register, split(coefficient)) for register, coefficient in address.terms]
        steps = [(split(stride), size) for stride, size in dims]
        target = self.arena.target
        found = []
        for axis, item, limit, what in ((0, 1, target.partitions, "partitions"),
                                        (1, operand.dtype.byte_size, bytes_, "bytes of a partition")):
            terms = tuple((register, part[axis]) for register, part in parts if part[axis])
            low, high = self._value(Affine(constant[axis], terms), state, index)
            reach = extent([(step[axis], size) for step, size in steps], item)
            if low + reach[0] < 0 or high + reach[1] > limit:
                found.append(f"{what} {low + reach[0]}..{high + reach[1] - 1} of sbuf, which has {limit}")
        return "; ".join(found)

    # ---- semaphores ---------------------------------------------------------------------------------------------

    def _synchronisation(self, instruction: Instruction, index: int, state: State) -> None:
        for wait in instruction.waits:
            semaphore = self._semaphore(wait.index, state, index)
            least = self._value(wait.value, state, index)[0] if wait.value.terms else wait.value.constant
            if semaphore is not None and least > 0:
                self.findings.waits.append((self.engine, WaitBound(semaphore, least, self.name, index)))
        for signal in instruction.signals:
            self._semaphore(signal.index, state, index)
            if signal.amount == 0 or (signal.amount < 0 and is_trigger(instruction.spec)):
                self.report(self.name, self.engine, index, f"a signal of {signal.amount}")

    def _semaphore(self, value: Affine, state: State, index: int) -> int | None:
        """The semaphore if it is always the same."""
        low, high = self._value(value, state, index) if value.terms else (value.constant,) * 2
        count = self.arena.target.sequencer.semaphores
        if low < 0 or high >= count:
            self.report(self.name, self.engine, index, f"semaphores {low}..{high} of {count}")
            return None
        return low if low == high else None


def extent(dims: list[tuple[int, int]], item: int) -> Interval:
    """Lowest byte and one past the highest that a walk over (stride, size) touches, from its start."""
    low = high = 0
    for stride, size in dims:
        reach = stride * (size - 1)
        if reach < 0:
            low += reach
        else:
            high += reach
    return low, high + item


def split(stride: int) -> tuple[int, int]:
    """A stride of the linear map of SBUF as steps over partitions and bytes, the nearer partition first."""
    partitions = (stride + DMA_PARTITION_STRIDE // 2) // DMA_PARTITION_STRIDE
    return partitions, stride - partitions * DMA_PARTITION_STRIDE


_TRANSFERS: dict[str, Callable[[Walk, Instruction, int, State], State]] = {
    "register_set": Walk._set, "register_alu": Walk._alu, "register_load": Walk._load, "register_store": Walk._store,
    "call": Walk._call,
}

_VALUES: dict[str, Interval] = {"pred": (0, 255), "u8": (0, 255), "s8": (-128, 127), "u16": (0, 65535),
                                "s16": (-32768, 32767), "u32": (0, intervals.MOST)}
"""What a loaded register can hold, by the dtype of the element."""

_INDEXED = {"dma_gather": "source", "dma_scatter": "destination"}
"""Transfers whose rows on one side lie where indices say: limit rows, index_stride bytes apart."""
