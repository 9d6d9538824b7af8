"""The machine verifier: what can be said of a program without running it on data.

Trusts only the decoder: limits, operands, addresses for all values of registers, structure, waits, reads before writes.
Accesses that no semaphore orders are found by strict simulation, not here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nxcc.backends.isa.addresses import Arena, Findings, Walk
from nxcc.backends.isa.layout import is_trigger
from nxcc.backends.isa.program import Engine, Function, Program
from nxcc.backends.isa.rehearsal import rehearse
from nxcc.backends.isa.rules import breaches
from nxcc.backends.isa.structure import Block, Leaf, Node, parse, skeleton
from nxcc.backends.target import Target
from nxcc.ir.diagnostics import PROGRAM_INVALID, CompileError

PROBLEMS_MAX = 50
"""Problems that one error lists."""

Trees = dict[tuple[str, int, Engine], Block]


def verify_program(program: Program, target: Target, *, hbm_bytes: int) -> None:
    """CompileError(NXC0403) with all problems in `details`; hbm_bytes: size of the arena that the program runs in."""
    problems = Problems()
    _verify_limits(program, target, hbm_bytes, problems)
    trees = _verify_structure(program, problems)
    _verify_instructions(program, target, problems)
    _verify_resident(program, target, problems)
    problems.raise_if_any()
    kept: NDArray[np.bool_] | None = None
    for position, entry in _loading_first(program):
        findings = Findings()
        loads = program.resident is not None and entry.name == program.resident.entry
        writable = target.sbuf.usable_bytes if program.resident is None or loads else program.resident.offset
        for engine in entry.streams:
            walk = Walk(engine, Arena(target, hbm_bytes, writable), program.functions, trees, problems.add, findings)
            walk.entry(position, entry)
        _verify_waits(position, entry, trees, findings, problems)
        problems.raise_if_any()
        content = rehearse(position, entry, program.functions, trees, target, problems.add, kept)
        problems.raise_if_any()
        if loads:
            assert program.resident is not None
            kept = content
            kept[:, :program.resident.offset] = False


class Problems:
    """What was found, in order, each once."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], None] = {}

    def add(self, function: str, engine: Engine, index: int, text: str) -> None:
        self.found.setdefault((f"{function}, {engine.value} {index}", text))

    def raise_if_any(self) -> None:
        if not self.found:
            return
        rows = list(self.found)
        details = tuple(f"{where}: {text}" for where, text in rows[:PROBLEMS_MAX])
        where, text = rows[0]
        more = f" ({len(rows) - 1} more)" if len(rows) > 1 else ""
        raise CompileError(PROGRAM_INVALID, f"the machine program breaks a rule{more}", where=where, why=text, details=details)


def _verify_limits(program: Program, target: Target, hbm_bytes: int, problems: Problems) -> None:
    limits = (("sbuf_bytes", program.sbuf_bytes, target.sbuf.usable_bytes), ("hbm_bytes", program.hbm_bytes, hbm_bytes),
              ("the hbm arena", hbm_bytes, target.hbm.bytes), ("semaphores", program.semaphores, target.sequencer.semaphores))
    for name, value, most in limits:
        if not 0 <= value <= most:
            problems.found[("program", f"{name}: {value}, at most {most}")] = None


def _loading_first(program: Program) -> list[tuple[int, Function]]:
    """The entries by position, the one that fills what is resident before those that read it."""
    name = program.resident.entry if program.resident is not None else ""
    return sorted(enumerate(program.entries), key=lambda row: row[1].name != name)


def _verify_resident(program: Program, target: Target, problems: Problems) -> None:
    """Pinned queues belong to the entry that fills what is resident, and it uses no other; that part has a place."""
    resident = program.resident
    if resident is not None and not 0 <= resident.offset <= program.sbuf_bytes:
        problems.found[("program", f"resident from byte {resident.offset} of {program.sbuf_bytes}")] = None
    entries = {entry.name for entry in program.entries}
    for name, engine, stream in program.streams():
        loads = resident is not None and name == resident.entry and name in entries
        for index, instruction in enumerate(stream):
            if is_trigger(instruction.spec) and (instruction.fields.get("queue", 0) >= target.dma.queues) != loads:
                problems.add(name, engine, index, "pinned queues are for loading what is resident, other queues for the rest")


def _verify_structure(program: Program, problems: Problems) -> Trees:
    trees: Trees = {}
    for kind, functions in (("function", program.functions), ("entry", program.entries)):
        for position, function in enumerate(functions):
            shapes: dict[tuple[object, ...], Engine] = {}
            for engine, stream in function.streams.items():
                def report(index: int, text: str, name: str = function.name, engine: Engine = engine) -> None:
                    problems.add(name, engine, index, text)

                tree = trees[kind, position, engine] = parse(stream, report, entry=kind == "entry")
                shape = skeleton(tree.body)
                if shape:
                    shapes.setdefault(shape, engine)
            if len(shapes) > 1:
                first, second, *_ = shapes.values()
                problems.add(function.name, second, 0, f"its whiles and ifs differ from those of {first.value}")
    return trees


def _verify_instructions(program: Program, target: Target, problems: Problems) -> None:
    for name, engine, stream in program.streams():
        for index, instruction in enumerate(stream):
            for text in breaches(instruction, engine, target):
                problems.add(name, engine, index, f"{instruction.spec.name}: {text}")


def _verify_waits(position: int, entry: Function, trees: Trees, findings: Findings, problems: Problems) -> None:
    """No wait asks for more than all signals of the entry together; nothing is said if an index or a count is not known.

    Signals that take a semaphore back are left out: the sum is what the semaphore never exceeds.
    """
    totals: dict[int, float] = {}
    known = all(_count(trees["entry", position, engine].body, 1, engine, trees, totals) for engine in entry.streams)
    for engine, wait in findings.waits if known else ():
        total = totals.get(wait.semaphore, 0)
        if wait.least > total:
            problems.add(wait.function, engine, wait.index,
                         f"waits for semaphore {wait.semaphore} >= {wait.least}, but all signals add up to {int(total)}")


def _count(nodes: list[Node], times: float, engine: Engine, trees: Trees, totals: dict[int, float]) -> bool:
    """Add up the signals of a block that runs at most `times` times; False if a semaphore is not known."""
    for node in nodes:
        instruction = node.instruction if isinstance(node, Leaf) else node.opener
        assert instruction is not None
        for signal in instruction.signals:
            if not signal.index.is_constant:
                return False
            totals[signal.index.constant] = totals.get(signal.index.constant, 0) + max(signal.amount, 0) * times
        if isinstance(node, Block):
            inner = times * _repeats(node)
            if not (_count(node.body, inner, engine, trees, totals) and _count(node.orelse, inner, engine, trees, totals)):
                return False
        elif instruction.spec.name == "call":
            tree = trees.get(("function", instruction.fields["function"], engine))
            if tree is not None and not _count(tree.body, times, engine, trees, totals):
                return False
    return True


def _repeats(block: Block) -> float:
    """How often the body of a block runs at most."""
    assert block.opener is not None
    if block.opener.spec.name == "if":
        return 1
    count = block.opener.fields.get("count")
    return max(count.constant, 0) if count is not None and count.is_constant else float("inf")
