"""A rehearsal of an entry: its streams run together in one legal order, without data.

Engines go on as far as they can and transfers are done at once. A standstill, a semaphore below 0 or a read of what nothing
has written is a fault in that order, hence of the program; that no fault shows proves nothing about other orders. What
depends on data is decided by a scenario; the rehearsal ends quietly at STEPS_MAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from nxcc.backends.isa.addresses import split
from nxcc.backends.isa.program import (
    DMA_PARTITION_STRIDE,
    REGISTERS,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    OperandSpec,
    Wait,
)
from nxcc.backends.isa.structure import Block, Leaf, Node
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass

STEPS_MAX = 40_000
"""Instructions that a rehearsal follows; ours, so that verifying stays quick however long a program runs."""

Report = Callable[[str, Engine, int, str], None]
Step = tuple[str, Leaf | Block, int]
"""What to do, with which node, and where to jump if it does not go on."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How what depends on data goes: iterations of each while, trips of a loop with an unknown count, the arm of an if."""

    iterations: int
    taken: bool


SCENARIOS = (Scenario(2, True), Scenario(0, False))


def flatten(nodes: list[Node], code: list[Step]) -> list[Step]:
    """A tree as steps with jumps."""
    for node in nodes:
        if isinstance(node, Leaf):
            code.append((_KINDS.get(node.instruction.spec.name, "run"), node, 0))
            continue
        assert node.opener is not None
        name = node.opener.spec.name
        start = len(code)
        code.append((name, node, 0))
        flatten(node.body, code)
        code.append(("again" if name != "if" else "join", node, start))
        code[start] = (name, node, len(code))
        if name == "if":
            flatten(node.orelse, code)
            code[code[start][2] - 1] = ("join", node, len(code))
    return code


_KINDS = {"register_set": "set", "register_alu": "alu", "register_load": "load", "call": "call", "halt": "halt",
          "break_unless": "break"}


class Content:
    """Which bytes of SBUF and PSUM have been written, a row for 32 partitions; generous where a row is written in part."""

    def __init__(self, target: Target) -> None:
        rows = -(-target.partitions // ROW)
        self.rows = {Memory.SBUF: np.zeros((rows, target.sbuf.partition_bytes), np.bool_),
                     Memory.PSUM: np.zeros((rows, target.psum.partition_bytes), np.bool_)}
        self.seen: set[tuple[int, int, bool]] = set()
        self.trusted = True

    def access(self, operand: AccessPattern | DmaPattern, sizes: tuple[int, ...], place: int, write: bool) -> bool:
        """Mark what is written; whether everything read has been. Equal accesses are looked at once."""
        key = (id(operand), place, write)
        if key in self.seen:
            return True
        self.seen.add(key)
        return all(self._row(row, view_of, write) for row, view_of in self._views(operand, sizes, place))

    @staticmethod
    def _row(row: np.ndarray, shape: tuple[int, tuple[int, ...], tuple[int, ...]], write: bool) -> bool:
        offset, sizes, strides = shape
        view = np.ndarray(sizes, np.bool_, row, offset, strides)
        if write:
            view[...] = True
            return True
        return bool(view.all())

    def _views(self, operand: AccessPattern | DmaPattern, sizes: tuple[int, ...],
               place: int) -> list[tuple[np.ndarray, tuple[int, tuple[int, ...], tuple[int, ...]]]]:
        item = operand.dtype.byte_size
        if isinstance(operand, AccessPattern):
            first, last = operand.partition, operand.partition + operand.partitions - 1
            dims = [(stride * item, size) for stride, size in operand.dims]
            offset = place
        else:
            partition, offset = divmod(place, DMA_PARTITION_STRIDE)
            steps = [(split(stride), size) for stride, size in zip(operand.strides, sizes, strict=True)]
            first = partition + sum(min(step[0] * (size - 1), 0) for step, size in steps)
            last = partition + sum(max(step[0] * (size - 1), 0) for step, size in steps)
            dims = [(step[1], size) for step, size in steps if step[1]]
        shape = (offset, (*(size for _, size in dims), item), (*(stride for stride, _ in dims), 1))
        rows = self.rows[operand.memory]
        return [(rows[row], shape) for row in range(first // ROW, last // ROW + 1)]


ROW = 32
"""Partitions that `Content` looks at as one: those between two start partitions."""


class Performer:
    """One engine: its place in the code, its registers (None: unknown), its open loops."""

    def __init__(self, engine: Engine, code: list[Step], name: str) -> None:
        self.engine = engine
        self.code, self.name, self.at = code, name, 0
        self.registers: list[int | None] = [None] * REGISTERS
        self.loops: list[list[int]] = []
        self.caller: tuple[list[Step], str, int] | None = None

    def value(self, affine: Affine) -> int | None:
        total = affine.constant
        for register, coefficient in affine.terms:
            held = self.registers[register]
            if held is None:
                return None
            total += held * coefficient
        return total

    @property
    def done(self) -> bool:
        return self.at >= len(self.code) and self.caller is None


class Rehearsal:
    """All engines of one entry in one scenario."""

    def __init__(self, performers: list[Performer], functions: list[Function], codes: Mapping[tuple[int, Engine], list[Step]],
                 target: Target, scenario: Scenario, report: Report) -> None:
        self.performers, self.functions, self.codes = performers, functions, codes
        self.scenario, self.report = scenario, report
        self.counts: dict[int, int] = {}
        self.content = Content(target)
        self.steps = 0
        self.depends_on_data = False

    def run(self) -> None:
        """Until all engines are done, none can go on, or STEPS_MAX."""
        progress = True
        while progress and self.steps < STEPS_MAX:
            progress = False
            for performer in self.performers:
                before = self.steps
                while not performer.done and self.steps < STEPS_MAX and self._step(performer):
                    self.steps += 1
                progress |= self.steps > before
        if self.steps < STEPS_MAX:
            self._report_blocked()

    def _report_blocked(self) -> None:
        for performer in self.performers:
            if not performer.done:
                _, node, _ = performer.code[performer.at]
                waits = ", ".join(f"semaphore {performer.value(w.index)} >= {performer.value(w.value)}, which is "
                                  f"{self.counts.get(performer.value(w.index) or 0, 0)}"
                                  for w in _instruction(node).waits if not self._met(performer, w))
                self.report(performer.name, performer.engine, node.index, f"waits for ever for {waits}")

    def _met(self, performer: Performer, wait: Wait) -> bool:
        index, value = performer.value(wait.index), performer.value(wait.value)
        if index is None or value is None:
            self.content.trusted = False
            return True
        return self.counts.get(index, 0) >= value

    def _step(self, performer: Performer) -> bool:
        """One step of an engine; False if it has to wait."""
        if performer.at >= len(performer.code):
            assert performer.caller is not None
            performer.code, performer.name, performer.at = performer.caller
            performer.caller = None
            return True
        kind, node, jump = performer.code[performer.at]
        instruction = _instruction(node)
        if kind not in ("again", "join"):
            for wait in instruction.waits:
                if not self._met(performer, wait):
                    return False
        performer.at += 1
        _KIND_STEPS[kind](self, performer, node, jump)
        if instruction.signals and kind not in ("again", "join"):
            self._signal(performer, instruction, node.index)
        return True

    def _signal(self, performer: Performer, instruction: Instruction, place: int) -> None:
        for signal in instruction.signals:
            index = performer.value(signal.index)
            if index is None:
                self.content.trusted = False
                continue
            count = self.counts[index] = self.counts.get(index, 0) + signal.amount
            if count < 0 and self.content.trusted:
                self.report(performer.name, performer.engine, place, f"takes semaphore {index} below 0, to {count}")

    # ---- kinds of steps -----------------------------------------------------------------------------------------

    def _run(self, performer: Performer, node: Node, jump: int) -> None:
        if not self.content.trusted:
            return
        instruction = _instruction(node)
        sizes = instruction.fields.get("sizes", ())
        for write in (False, True):
            for declared in instruction.spec.operands:
                operand = instruction.operands.get(declared.name)
                if operand is None or operand.memory is Memory.HBM or not _touches(declared, instruction, write):
                    continue
                if not write and declared.access == "rw" and _opens(performer, instruction):
                    continue
                place = performer.value(operand.offset if isinstance(operand, AccessPattern) else operand.address)
                if place is None:
                    self.content.trusted = not write and self.content.trusted
                elif not self.content.access(operand, sizes, place, write):
                    self.report(performer.name, performer.engine, node.index,
                                f"{declared.name}: reads {operand.memory.value} before it is written, at offset "
                                f"{place % DMA_PARTITION_STRIDE}")

    def _set(self, performer: Performer, node: Node, jump: int) -> None:
        fields = _instruction(node).fields
        performer.registers[fields["register"]] = _wrap(performer.value(fields["value"]))

    def _alu(self, performer: Performer, node: Node, jump: int) -> None:
        fields = _instruction(node).fields
        a, b = performer.value(fields["a"]), performer.value(fields["b"])
        operator = _ALU.get(fields["op"])
        if a is None or b is None or operator is None or (b == 0 and fields["op"] in ("divide", "modulo")):
            performer.registers[fields["register"]] = None
        else:
            performer.registers[fields["register"]] = _wrap(operator(a, b))

    def _load(self, performer: Performer, node: Node, jump: int) -> None:
        performer.registers[_instruction(node).fields["register"]] = None

    def _call(self, performer: Performer, node: Node, jump: int) -> None:
        number = _instruction(node).fields["function"]
        performer.caller = (performer.code, performer.name, performer.at)
        performer.code, performer.at = self.codes[number, performer.engine], 0
        performer.name = self.functions[number].name

    def _halt(self, performer: Performer, node: Node, jump: int) -> None:
        performer.at = len(performer.code)

    def _loop(self, performer: Performer, node: Node, jump: int) -> None:
        fields = _instruction(node).fields
        count = performer.value(fields["count"])
        if count is None:
            self.depends_on_data = True
            count = self.scenario.iterations
        if count < 1:
            performer.at = jump
            return
        performer.loops.append([count, 0])
        performer.registers[fields["register"]] = 0

    def _while(self, performer: Performer, node: Node, jump: int) -> None:
        performer.loops.append([0, 0])

    def _again(self, performer: Performer, node: Node, jump: int) -> None:
        opener = _instruction(node)
        loop = performer.loops[-1]
        loop[1] += 1
        if opener.spec.name == "loop":
            if loop[1] >= loop[0]:
                performer.loops.pop()
                return
            performer.registers[opener.fields["register"]] = loop[1]
        performer.at = jump + 1

    def _break(self, performer: Performer, node: Node, jump: int) -> None:
        held = performer.registers[_instruction(node).fields["register"]]
        if held is None:
            self.depends_on_data = True
            held = int(performer.loops[-1][1] < self.scenario.iterations)
        if not held:
            depth = 0
            while depth >= 0:
                kind, _, _ = performer.code[performer.at]
                depth += (kind in ("loop", "while")) - (kind == "again")
                performer.at += 1
            performer.loops.pop()

    def _if(self, performer: Performer, node: Node, jump: int) -> None:
        held = performer.registers[_instruction(node).fields["register"]]
        if held is None:
            self.depends_on_data = True
            held = int(self.scenario.taken)
        if not held:
            performer.at = jump

    def _join(self, performer: Performer, node: Node, jump: int) -> None:
        performer.at = jump


_KIND_STEPS: dict[str, Callable[[Rehearsal, Performer, Node, int], None]] = {
    "run": Rehearsal._run, "set": Rehearsal._set, "alu": Rehearsal._alu, "load": Rehearsal._load, "call": Rehearsal._call,
    "halt": Rehearsal._halt, "loop": Rehearsal._loop, "while": Rehearsal._while, "again": Rehearsal._again,
    "break": Rehearsal._break, "if": Rehearsal._if, "join": Rehearsal._join,
}

_ALU: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b, "divide": lambda a, b: a // b,
    "modulo": lambda a, b: a % b, "minimum": min, "maximum": max, "and": lambda a, b: a & b,
    "equal": lambda a, b: int(a == b),
    "not_equal": lambda a, b: int(a != b), "less": lambda a, b: int(a < b), "less_equal": lambda a, b: int(a <= b),
}
"""Those that address code needs; the result of others counts as depending on data."""


def _instruction(node: Node) -> Instruction:
    instruction = node.instruction if isinstance(node, Leaf) else node.opener
    assert instruction is not None
    return instruction


def _touches(declared: OperandSpec, instruction: Instruction, write: bool) -> bool:
    """Whether the operand is written, or (write=False) must hold something, as an output does only if it is added to."""
    if write:
        return "w" in declared.access
    return declared.access == "r" or instruction.fields.get("accumulate") in (True, "add") and "w" in declared.access


def _opens(performer: Performer, instruction: Instruction) -> bool:
    """Whether a product that could be added to overwrites, being the first of a loop."""
    turn = instruction.fields.get("turn")
    return turn is not None and performer.value(turn) == 0


def _wrap(value: int | None) -> int | None:
    return None if value is None else ((value + (1 << 31)) & ((1 << 32) - 1)) - (1 << 31)


def rehearse(position: int, entry: Function, functions: list[Function], trees: Mapping[tuple[str, int, Engine], Block],
             target: Target, report: Report, resident: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Report what comes to a standstill or reads what nothing wrote, in each scenario that makes a difference.

    resident: bytes of SBUF that hold something before the entry starts. Returned: those that do after it, all if the
    rehearsal ended early.
    """
    codes = {(index, engine): flatten(tree.body, []) for (kind, index, engine), tree in trees.items() if kind == "function"}
    for scenario in SCENARIOS:
        performers = [Performer(engine, flatten(trees["entry", position, engine].body, []), entry.name)
                      for engine in entry.streams]
        rehearsal = Rehearsal(performers, functions, codes, target, scenario, report)
        rows = rehearsal.content.rows[Memory.SBUF]
        if resident is not None:
            rows |= resident
        rehearsal.run()
        if not rehearsal.depends_on_data:
            break
    return rows if rehearsal.steps < STEPS_MAX else np.ones_like(rows)
