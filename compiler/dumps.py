"""Text of every stage, kept in the work folder for whoever asks."""

from __future__ import annotations

import os
from collections.abc import Callable

from nxcc.ir.diagnostics import FILE_UNWRITABLE, CompileError
from nxcc.ir.files import write_whole
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.text.writer import write_text
from nxcc.passes.partitioning.partition import Plan

MAX_CONSTANT_BYTES = 1 << 20
"""Modules with more bytes of constants are dumped with their large constants elided."""


class Dumps:
    """Where stage texts go. A folder without `only` keeps every stage; with `only`, the stages named there."""

    def __init__(self, workdir: str, only: tuple[str, ...]) -> None:
        self.folder = workdir or ("." if only else "")
        self.only = only
        self.count = 0
        self.written: set[str] = set()
        if workdir:
            try:
                os.makedirs(workdir, exist_ok=True)
            except OSError as error:
                raise CompileError(FILE_UNWRITABLE, f"cannot make the work folder {workdir}",
                                   why=error.strerror or str(error)) from None

    def keep(self, stage: str, suffix: str, text: Callable[[], str]) -> None:
        """Write a stage's text as `<number>-<stage>.<suffix>` if it is wanted; the text is made only then."""
        number = self.count
        self.count += 1
        if self.folder and (not self.only or stage in self.only):
            write_whole(os.path.join(self.folder, f"{number:02d}-{stage}.{suffix}"), text())
            self.written.add(stage)

    @property
    def missing(self) -> list[str]:
        """Stages that were asked for and left no text."""
        return [stage for stage in self.only if stage not in self.written]


def module_text(module: Module) -> str:
    """A module as text, large constants elided where it would become huge."""
    constants = sum(i.shape.byte_size for i in module.instructions() if i.opcode == "constant" and i.shape.is_array
                    and not i.attributes["literal"].is_splat)
    return write_text(module, large_constants=constants <= MAX_CONSTANT_BYTES)


def plan_text(plan: Plan) -> str:
    """The plan: nodes with their values, every host instruction with its reason, then each node's module."""
    lines = [f"value {name}: {shape}" for name, shape in plan.values.items()]
    lines += [f"alias {output} -> {source}" for output, source in plan.aliases.items()]
    lines += [f"host {row.instruction} ({row.opcode}): {row.reason}" + (f" [{row.source}]" if row.source else "")
              for row in plan.host]
    for node in plan.nodes:
        lines += ["", f"node {node.name}: {', '.join(node.inputs)} -> {', '.join(node.outputs)}", module_text(node.module)]
    return "\n".join(lines) + "\n"
