"""Image programs: fused regions whose images lie in SBUF with channels on partitions, from convolution to convolution.

The region is a `fusion` whose frontend attribute IMAGES says what each dimension of its root runs over (see
nxcc.ir.hlo.imagespace). Values that later stages or the result need have tiles of their own, everything else lives in scratch
tiles of one piece. Images go through all stages in groups that fit, the weights of all stages loaded once; a program with one
head may cut its images into strips of rows instead, and its output channels where the weights do not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nxcc.backends.lowering.images.geometry import LEAST_LANES, spread, strips, turns, whole
from nxcc.backends.lowering.images.pairs import paired
from nxcc.backends.lowering.images.parts import VECTOR_SUMS, Part, Run, group_size
from nxcc.backends.lowering.images.stages import Program
from nxcc.backends.lowering.images.work import SCRATCH
from nxcc.backends.lowering.turning import comes_in_elements
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import View
from nxcc.ir.diagnostics import OUT_OF_MEMORY, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.imagespace import BATCH, CHANNEL, COLUMN, ROW, ImageMap, maps_of
from nxcc.ir.hlo.marks import IMAGES, is_image_program
from nxcc.ir.hlo.module import Instruction

STRIP_BYTES = 12288
"""Bytes a partition of the images of a strip: more would be loaded before work begins."""

COLUMN_BYTES = 6144
"""Bytes a partition for columns and small scratch."""

WEIGHT_SHARE = 0.5
"""Part of the room that the weights of a single head may take; beyond, output channels are made in several turns."""

_ORDER = {CHANNEL: 0, BATCH: 1, ROW: 2, COLUMN: 3}


def passes_over_weights(instruction: Instruction) -> bool:
    """Whether a weight that is not finite may meet padding, whose zeros a program does not multiply to NaN."""
    if not is_image_program(instruction):
        return False
    body = instruction.called[0]
    kernels = {i.operands[1] for i in body.instructions if i.opcode == "convolution" and any(
        d.padding_low > 0 or d.padding_high > 0 or d.base_dilation > 1 for d in i.attribute("window").dims)}
    return any(not _is_finite(instruction, kernel) for kernel in kernels)


def _is_finite(instruction: Instruction, kernel: Instruction) -> bool:
    if kernel.opcode == "parameter":
        kernel = instruction.operands[int(kernel.attributes["parameter_number"])]
    return kernel.opcode == "constant" and bool(np.isfinite(kernel.attributes["literal"].array.astype(np.float32)).all())


def root_map(instruction: Instruction) -> ImageMap:
    return tuple(int(mark) for mark in instruction.frontend_attributes[IMAGES].split(","))


def image_order(instruction: Instruction) -> Sequence[int]:
    """Channels come from partitions: a result that keeps them slowest is stored in long runs. One without places is rows."""
    marks = root_map(instruction)
    if ROW not in marks and COLUMN not in marks:
        return tuple(range(len(marks)))
    return _channels_first(marks)


def _channels_first(marks: ImageMap) -> Sequence[int]:
    return sorted(range(len(marks)), key=lambda d: (_ORDER.get(marks[d], -1), d))


def channels_last(instruction: Instruction, operands: Sequence[View | None]) -> Iterator[tuple[int, Sequence[int]]]:
    """Images among the operands whose channels lie together in memory, with the order in which partitions read them in runs."""
    body = instruction.called[0]
    maps = maps_of(body.post_order(), body.root, root_map(instruction))
    assert maps is not None, f"{body.name} is no image program"
    for parameter in body.parameters:
        number = int(parameter.attributes["parameter_number"])
        view, marks = operands[number], maps.get(parameter, ())
        if view is None or CHANNEL not in marks or not {ROW, COLUMN} & set(marks):
            continue
        if comes_in_elements(view, marks.index(CHANNEL)):
            yield number, _channels_first(marks)


def lower_image_program(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Write the tile program of a fused region."""
    body = instruction.called[0]
    order = body.post_order()
    maps = maps_of(order, body.root, root_map(instruction))
    assert maps is not None, f"{body.name} is no image program"
    program = Program(order, maps, body.root, kernel.target.partitions)
    views = {p: operands[int(p.attributes["parameter_number"])] for p in body.parameters}
    if _joins(program, views, results[0]):
        joined = Program(order, maps, body.root, kernel.target.partitions, joined=True)
        program = joined if plan_of(joined, kernel.sbuf_free_bytes, kernel.copies.inner) is not None else program
    pairs = None if kernel.exact_transposes else paired(program, views, kernel.target.tensor.stationary_max)
    if pairs is not None and _fits_in_pairs(pairs, kernel):
        program = pairs
    result = program.view(results[0], body.root)
    plan = plan_of(program, kernel.sbuf_free_bytes, kernel.copies.inner)
    if plan is None:
        raise CompileError(OUT_OF_MEMORY, f"{kernel.program.name}: its images and weights do not fit")
    _write(kernel, program, views, result, plan)


def _fits_in_pairs(program: Program, kernel: Kernel) -> bool:
    """Whether a program with rows in pairs fits with all output channels at a time."""
    plan = plan_of(program, kernel.sbuf_free_bytes, kernel.copies.inner)
    return plan is not None and plan.channels is None


def _joins(program: Program, views: Mapping[Instruction, View], result: View) -> bool:
    """Whether channels of all images fill more partitions than those of one, are worked on alike, and lie evenly in memory."""
    if any(head.opcode == "convolution" for head in program.heads) or any(CHANNEL in program.maps[v] for v in program.channels):
        return False
    sizes = {program.sizes(value)[:2] for value in program.stage_of}
    if len(sizes) != 1:
        return False
    ((images, channels),) = sizes
    alone, together = spread(channels, program.partitions), spread(images * channels, program.partitions)
    if images == 1 or alone is None or together is None or together.lanes <= alone.lanes:
        return False
    stored = [program.view(views[value], value) for value in program.stored if value in program.outside]
    return all(channel[0] == image[0] * images for channel, image, *_ in (view.dims for view in (
        *stored, program.view(result, program.root))))


@dataclass(frozen=True, slots=True)
class Plan:
    """images: in a group. rows: outputs of the one head's rows in a strip; None for whole images. channels: made at a time."""

    images: int
    rows: int | None = None
    channels: int | None = None


def plan_of(program: Program, room: int, copies: int) -> Plan | None:
    """How a program is cut so that it fits into so many bytes a partition; None if it cannot be."""
    budget = room * 9 // 10 - COLUMN_BYTES - _scratch_bytes(program)
    weights = sum(map(program.weight_bytes, program.heads))
    if program.depthwise:
        budget -= VECTOR_SUMS * program.bank_bytes
    images = max(program.sizes(value)[0] for value in program.stored)
    each = _bytes_of_one(program)
    windowed = len(program.heads) == 1 and program.heads[0].opcode != "reduce"  # a sum over all places has no strips
    if windowed and (weights > budget * WEIGHT_SHARE or each > STRIP_BYTES):
        found = _strip_plan(program, budget, weights, copies)
        if found is not None:
            return found
    group = group_size(images, each, budget - weights, copies)
    return Plan(group) if group else None


def _bytes_of_one(program: Program) -> int:
    """Bytes a partition that all images of one place in the batch take."""
    _, each = program.arena({v: program.image_bytes(v, program.sizes(v)[2] * program.sizes(v)[3]) for v in program.stored})
    each += sum(program.packed_bytes(head, program.sizes(head)[2]) for head in program.packed)
    return each + sum(map(program.passing_bytes, program.heads))


def _scratch_bytes(program: Program) -> int:
    """Of two values of a stage; a program that needs more finds out when it is written."""
    return 2 * SCRATCH * program.bank_bytes if any(stage.members for stage in program.stages) else 0


def _strip_plan(program: Program, budget: int, weights: int, copies: int) -> Plan | None:
    """For one head: as many channels at a time as there is room for their weights, and strips of rows."""
    (head,) = program.heads
    channels = program.sizes(head)[1]
    chunk = channels
    if weights > budget * WEIGHT_SHARE:
        if head in program.depthwise:
            return None
        fits = [c for c in range(LEAST_LANES, channels) if channels % c == 0 and c % LEAST_LANES == 0
                and weights * c // channels * copies <= budget * WEIGHT_SHARE]
        if not fits:
            return None
        chunk = fits[-1]
        weights = weights * chunk // channels * copies
    count = program.phases(head, ROW)[0].count

    def strip_bytes(rows: int) -> int:
        _, images = program.arena({v: program.image_bytes(v, program.strip_rows(v, head, rows) * program.sizes(v)[3])
                                   for v in program.stored})
        passing = program.passing_bytes(head) * min(rows, count) // count
        return images + passing + sum(program.packed_bytes(h, rows) for h in program.packed)

    rows = max((n for n in range(1, count + 1) if strip_bytes(n) * copies <= budget - weights), default=0)
    if rows == 0:
        return None
    enough = next((n for n in range(1, rows + 1) if strip_bytes(n) >= STRIP_BYTES), rows)
    rows = math.ceil(count / math.ceil(count / min(rows, enough)))
    return Plan(1, rows, chunk if chunk != channels else None)


def _write(kernel: Kernel, program: Program, views: Mapping[Instruction, View], result: View, plan: Plan) -> None:
    if plan.channels is None:
        _write_channels(kernel, program, views, result, plan, None)
        return
    for start, size in turns(kernel, program.sizes(program.heads[0])[1], plan.channels):
        _write_channels(kernel, program, views, result, plan, (start, size))


def _write_channels(kernel: Kernel, program: Program, views: Mapping[Instruction, View], result: View, plan: Plan,
                    cut: tuple[Index, int] | None) -> None:
    images = max(program.sizes(value)[0] for value in program.stored)
    if plan.rows is None:
        copies = kernel.copies.inner
        run = Run(kernel, program, views, result, cut, once=images <= plan.images and copies > 1)
        group = plan.images
        if not run.once:
            # weights and scratch lie in their places, and what is left is known
            group = min(group, max(1, group_size(images, _bytes_of_one(program), kernel.sbuf_free_bytes, copies)))
        for start, count in turns(kernel, images, group):
            run.part(Part(start, count))
        return
    run = Run(kernel, program, views, result, cut, once=False)
    axes = program.phases(program.heads[0], ROW)
    if images == 1:
        for strip in strips(kernel, axes, whole(axes[0]), plan.rows):
            run.part(Part(0, 1, strip))
        return
    with kernel.loop(images) as n:
        for strip in strips(kernel, axes, whole(axes[0]), plan.rows):
            run.part(Part(n, 1, strip))
