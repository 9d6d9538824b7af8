"""A stream as a tree of blocks: loops, whiles and ifs with what they enclose. Checks that they are balanced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from nxcc.backends.isa.program import Instruction, Stream
from nxcc.ir.facts import dataclass

DEPTH_MAX = 32
"""Nesting that is followed; ours, so that hostile programs cannot exhaust the stack."""


@dataclass(slots=True)
class Block:
    """A loop, while or if (opener), or a whole stream (None). body and orelse hold leaves and blocks in order."""

    opener: Instruction | None
    index: int
    body: list[Node] = field(default_factory=list)
    orelse: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Leaf:
    """An instruction that opens and closes nothing."""

    instruction: Instruction
    index: int


Node = Block | Leaf
Report = Callable[[int, str], None]


def parse(stream: Stream, report: Report, *, entry: bool) -> Block:
    """The tree of a stream; breaches of the structure are reported with their index, and mended so that parsing goes on."""
    return _Parser(stream, report, entry).root


class _Parser:
    def __init__(self, stream: Stream, report: Report, entry: bool) -> None:
        self.report = report
        self.entry = entry
        self.root = Block(None, 0)
        self.stack: list[Block] = [self.root]
        self.targets: list[list[Node]] = [self.root.body]
        for index, instruction in enumerate(stream):
            handler = _HANDLERS.get(instruction.spec.name)
            if handler is None:
                self.targets[-1].append(Leaf(instruction, index))
            else:
                handler(self, instruction, index)
        if len(self.stack) > 1:
            report(self.stack[-1].index, "this block has no end")
        if entry and (not stream or stream[-1].spec.name != "halt"):
            report(len(stream) - 1, "the stream does not end in halt")
        if entry and sum(i.spec.name == "halt" for i in stream) > 1:
            report(len(stream) - 1, "code follows a halt")

    def open(self, instruction: Instruction, index: int) -> None:
        if len(self.stack) > DEPTH_MAX:
            self.report(index, f"blocks nest deeper than {DEPTH_MAX}")
            return
        block = Block(instruction, index)
        self.targets[-1].append(block)
        self.stack.append(block)
        self.targets.append(block.body)

    def turn(self, instruction: Instruction, index: int) -> None:
        block = self.stack[-1]
        if block.opener is None or block.opener.spec.name != "if" or self.targets[-1] is block.orelse:
            self.report(index, "else without if")
            return
        self.targets[-1] = block.orelse
        self._bare(instruction, index)

    def close(self, instruction: Instruction, index: int) -> None:
        if len(self.stack) == 1:
            self.report(index, "end without a block")
            return
        self.stack.pop()
        self.targets.pop()
        self._bare(instruction, index)

    def _bare(self, instruction: Instruction, index: int) -> None:
        if instruction.waits or instruction.signals:
            self.report(index, "else and end neither wait nor signal")

    def leave(self, instruction: Instruction, index: int) -> None:
        innermost = next((b for b in reversed(self.stack) if b.opener is not None and b.opener.spec.name != "if"), None)
        if innermost is None or innermost.opener is None or innermost.opener.spec.name != "while":
            self.report(index, "break_unless outside a while, or inside a loop within it")
        self.targets[-1].append(Leaf(instruction, index))

    def call(self, instruction: Instruction, index: int) -> None:
        if not self.entry:
            self.report(index, "a function calls")
        self.targets[-1].append(Leaf(instruction, index))

    def halt(self, instruction: Instruction, index: int) -> None:
        if not self.entry or len(self.stack) > 1:
            self.report(index, "halt inside a block or a function")
        self.targets[-1].append(Leaf(instruction, index))


_HANDLERS: dict[str, Callable[[_Parser, Instruction, int], None]] = {
    "loop": _Parser.open, "while": _Parser.open, "if": _Parser.open, "else": _Parser.turn, "end": _Parser.close,
    "break_unless": _Parser.leave, "call": _Parser.call, "halt": _Parser.halt,
}


def skeleton(nodes: list[Node]) -> tuple[object, ...]:
    """The whiles and ifs of a block, nested; loops count only for what conditionals they hold."""
    rows: list[object] = []
    for node in nodes:
        if isinstance(node, Block):
            assert node.opener is not None
            inner, other = skeleton(node.body), skeleton(node.orelse)
            if node.opener.spec.name != "loop" or inner:
                rows.append((node.opener.spec.name, inner, other))
    return tuple(rows)
