"""How row programs with long rows run: the stages that tiles of rows go through, and what passes from one to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from nxcc.backends.lowering.rows.plan import Step
from nxcc.backends.lowering.rows.products import sides_bytes
from nxcc.backends.lowering.rows.program import RowProgram
from nxcc.backends.lowering.rows.values import starts_neutral
from nxcc.ir.dtypes import F32, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

WIDE = 1024
"""Columns from which a row is long: what is shorter has several rows or heads worked on in step."""

ROWS_MIN = 64
"""Rows of a matrix from which a tile has enough of them to be worked on alone."""

STAGES = 3
"""Tiles of rows that are worked on at a time, at most but for rare programs."""

WORKING_BYTES = 24576
"""Bytes a partition for what else long rows need: squares, columns, left sides."""


@dataclass
class Stage:
    """rows: work on values without long columns, before the pieces. wide: work on pieces of the columns, in order. products:
    those that sum over the columns of a left side made here. later: what follows when all pieces are done."""

    rows: list[Step] = field(default_factory=list)
    wide: list[Step] = field(default_factory=list)
    products: list[Step] = field(default_factory=list)
    later: list[Step] = field(default_factory=list)


@dataclass
class Course:
    """stages: in order. is_kept: whether long values lie on the chip whole, from the stage that makes them to the last that
    reads them; else each stage computes again what it reads."""

    stages: list[Stage]
    is_kept: bool


def course_of(program: RowProgram) -> Course | None:
    """How a program with long rows runs; None if it has none, or work that cannot be cut into pieces."""
    width = _width(program)
    stages = None if width is None else _stages(program, width)
    if width is None or stages is None:
        return None
    lanes, kernel = program.kernel.target.partitions, program.kernel
    matrices = sum(sides_bytes(v.sizes[-2], v.sizes[-1], v.dtype, lanes) for v in map(program.side, program.dots))
    rows = sum(program.columns(i.instruction, None) == width for i in program.inputs)
    results = sum(program.columns(root, None) == width for root in program.roots)
    if kept_bytes(width, rows + results, matrices) <= kernel.target.sbuf.usable_bytes or results:
        return Course(stages, True)
    return Course(_passes(program, stages, width), False)


def kept_bytes(width: int, others: int, matrices: int) -> int:
    """Bytes a partition of long rows that are kept. others: operands and results as long; matrices: their bytes."""
    return STAGES * 4 * width * (1 + others) + matrices + WORKING_BYTES


def _passes(program: RowProgram, stages: Sequence[Stage], width: int) -> list[Stage]:
    """Stages that keep no long value: what each reduces or multiplies, with all that this is made from."""
    made = {step.value: step for stage in stages for step in stage.wide if step.value.opcode != "reduce"}
    products = [step for stage in stages for step in stage.products]
    found: list[Stage] = []
    for stage in stages:
        own = set(map(id, stage.wide))
        sums = [step for step in products if id(made[product_left(program, step.value)]) in own]
        stack = [step for step in stage.wide if step.value.opcode == "reduce" or step.total is not None]
        stack += [made[product_left(program, step.value)] for step in sums]
        needed: dict[int, Step] = {}
        while stack:
            step = stack.pop()
            needed[id(step)] = step
            stack.extend(made[value] for value in step.reads if value in made and id(made[value]) not in needed)
        if needed:
            found.append(Stage(stage.rows, [step for step in program.plan.steps if id(step) in needed], sums, stage.later))
        else:
            found[-1].later = [*found[-1].later, *stage.rows, *stage.later]
    return found


def product_left(program: RowProgram, dot: Instruction) -> Instruction:
    """The value that is a product's left side."""
    return program.plan.shown.get(dot.operands[0], dot.operands[0])


def _stages(program: RowProgram, width: int) -> list[Stage] | None:
    levels: dict[Instruction, int] = {}
    kinds: dict[int, Stage] = {}
    for step in program.plan.steps:
        level = max((levels.get(value, 0) for value in step.reads), default=0)
        inside = step.value.opcode == "dot" and program.columns(step.value, None) != width
        wide = inside or _is_wide(program, step, width)
        if wide and not _can_be_cut(program, step, width):
            return None
        level += inside
        stage = kinds.setdefault(level, Stage())
        (stage.products if inside else stage.wide if wide else stage.rows).append(step)
        levels[step.value] = level + (inside or wide and step.value.opcode == "reduce")
        if step.total is not None:
            levels[step.total] = level + 1
    found: list[Stage] = []
    for _, stage in sorted(kinds.items()):
        if stage.wide or stage.products or not found:
            found.append(stage)
        else:
            found[-1].later.extend(stage.rows)
    return found if len(found) > 1 and found[0].wide else None


def _width(program: RowProgram) -> int | None:
    """Columns of the long values; None unless there are such, of one size, and all matrices fit the schedule."""
    if not program.batch or program.sizes[-1] < ROWS_MIN:
        return None
    bank = program.kernel.target.tensor.moving_max
    columns = {dot: program.columns(dot, None) for dot in program.dots}
    width = max(columns.values())
    if width < WIDE:
        return None
    for dot, size in columns.items():
        depth = program.side(dot).sizes[-2]
        if size == width and depth >= WIDE or size != width and (size > bank or depth != width or dot in program.lefts):
            return None
    return width


def _is_wide(program: RowProgram, step: Step, width: int) -> bool:
    if step.value.opcode == "reduce":
        return any(program.columns(value, None) == width for value in step.reads)
    return program.columns(step.value, None) == width


def _can_be_cut(program: RowProgram, step: Step, width: int) -> bool:
    """Whether a step gives the same on pieces of the columns, sums of pieces being joined."""
    value = step.value
    if step.spread is not None or value.opcode == "dot" and step.total is not None:
        return False
    if value.opcode != "reduce":
        return all(program.columns(read, None) in (1, width) for read in step.reads) or value.opcode == "dot"
    dtypes = (program.plan.shown.get(value.operands[0], value.operands[0]).shape.dtype, value.shape.dtype)
    return starts_neutral(value) and dtypes == (F32, F32)


def crossing_values(program: RowProgram, stages: Sequence[Stage]) -> dict[Instruction, tuple[int, DType]]:
    """Values that live longer than the part of a stage that makes them: their columns and dtypes."""
    parts = [part for stage in stages for part in ([*stage.rows], [*stage.wide], [*stage.products], [*stage.later])]
    home: dict[Instruction, int] = {}
    dtypes: dict[Instruction, DType] = {}
    found: dict[Instruction, tuple[int, DType]] = {}
    for number, part in enumerate(parts):
        for step in part:
            for value in (step.value, step.total):
                if value is not None:
                    home[value], dtypes[value] = number, step.dtype if value is step.value else F32
    for number, part in enumerate(parts):
        for value in dict.fromkeys(value for step in part for value in step.reads):
            if value in home and home[value] != number:
                found[value] = program.columns(value, None), dtypes[value]
    for value in program.plan.results:
        if value in home:
            found[value] = program.columns(value, None), dtypes[value]
    return found
