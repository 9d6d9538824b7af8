"""Detection heads: non-maximum suppression, and the operators between it and the padding that gives fixed shapes again.

How many boxes are kept depends on their scores: their places are held at the bound, with a count beside them (Partial).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.ir.dtypes import F32, PRED, S32
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import partial_rule, rule
from nxcc.ir.graphdef.rules.counted import by_rule, partial, valid, whole
from nxcc.ir.graphdef.rules.indexing import gather_axis, top
from nxcc.ir.graphdef.rules.reduction import position_of_extreme
from nxcc.ir.graphdef.values import Partial, Value
from nxcc.ir.hlo.module import Instruction

# Non-maximum suppression of several groups of boxes at once


def _edges(e: Emitter, boxes: Instruction) -> list[Instruction]:
    """Top, left, bottom and right of [groups, n, 4] boxes whose corners may be given in either order."""
    dims = boxes.shape.dims[:2]
    y1, x1, y2, x2 = (e.reshape(e.part(boxes, 2, k, k + 1), dims) for k in range(4))
    return [e.minimum(y1, y2), e.minimum(x1, x2), e.maximum(y1, y2), e.maximum(x1, x2)]


def _area(e: Emitter, edges: Sequence[Instruction]) -> Instruction:
    return e.multiply(e.subtract(edges[2], edges[0]), e.subtract(edges[3], edges[1]))


def _overlap(e: Emitter, edges: Sequence[Instruction], area: Instruction, best: Instruction) -> Instruction:
    """[groups, n]: intersection over union of each box with box best[group]; 0 where a box has no area."""
    dims = area.shape.dims
    place = e.reshape(best, (dims[0], 1))
    own = [e.broadcast_to(gather_axis(e, edge, place, 1, 1), dims) for edge in edges]
    own_area = e.broadcast_to(gather_axis(e, area, place, 1, 1), dims)
    height = e.subtract(e.minimum(edges[2], own[2]), e.maximum(edges[0], own[0]))
    width = e.subtract(e.minimum(edges[3], own[3]), e.maximum(edges[1], own[1]))
    zero = e.like(area, 0)
    both = e.multiply(e.maximum(height, zero), e.maximum(width, zero))
    union = e.subtract(e.add(area, own_area), both)
    empty = e.make("or", e.compare(area, zero, "LE"), e.compare(own_area, zero, "LE"))
    return e.select(empty, zero, e.divide(both, union))


def suppress(e: Emitter, boxes: Instruction, scores: Instruction, count: int, iou: Instruction, least: Instruction,
             sigma: float = 0.0) -> tuple[Instruction, Instruction, Instruction]:
    """Greedily keep at most `count` boxes of each group: [groups, count] places, whether each is a box at all, and its score.

    boxes: [groups, n, 4]; scores: [groups, n], f32. A box needs a score above `least`; it is dropped when it overlaps a kept
    one by more than `iou`. With a sigma, overlap also lowers a score, by exp(-overlap ** 2 / (2 sigma)). Each turn of the
    loop keeps one box of every group.
    """
    groups, n = scores.shape.dims
    dead = -math.inf
    alive = e.select(e.compare(scores, e.broadcast_to(least, (groups, n)), "GT"), scores, e.like(scores, dead))
    state = [e.index(0), alive, e.full(S32, (count, groups), 0), e.full(PRED, (count, groups), False),
             e.full(F32, (count, groups), 0), boxes, e.broadcast_to(iou, (groups, n)), e.broadcast_to(least, (groups, n))]

    def turn(inner: Emitter, parts: list[Instruction]) -> list[Instruction]:
        number, keys, places, valid, kept, corners, limit, floor = parts
        edges = _edges(inner, corners)
        best = position_of_extreme(inner, keys, 1, "GT")
        highest = inner.reduce("maximum", keys, [1])
        found = inner.compare(highest, inner.like(highest, dead), "GT")
        overlap = _overlap(inner, edges, _area(inner, edges), best)
        itself = inner.compare(inner.iota(S32, (groups, n), 1), inner.spread(best, (groups, n), (0,)), "EQ")
        if sigma:
            keys = inner.multiply(keys, inner.make("exponential", inner.scaled(inner.multiply(overlap, overlap), -0.5 / sigma)))
            dropped = inner.compare(keys, floor, "LE")
        else:
            dropped = inner.compare(overlap, limit, "GT")
        left = inner.select(inner.make("or", itself, dropped), inner.like(keys, dead), keys)
        shown = inner.select(found, best, inner.like(best, 0))
        score = inner.select(found, highest, inner.like(highest, 0))
        return [inner.offset(number, 1), left, inner.with_row(places, number, shown), inner.with_row(valid, number, found),
                inner.with_row(kept, number, score), corners, limit, floor]

    after = e.loop(state, lambda inner, parts: inner.compare(parts[0], inner.index(count), "LT"), turn, "suppression")
    places, valid, kept = (e.transpose(x, (1, 0)) for x in after[2:5])
    return places, valid, kept


@dataclass(frozen=True)
class _Kept:
    """What one group kept: places and scores [bound], how many of them are boxes, and how many were asked for at most."""

    places: Instruction
    scores: Instruction
    count: Instruction
    wanted: int


def _single(call: Call, least: Instruction, sigma: float = 0.0) -> _Kept:
    e = call.emit
    boxes, scores = e.wide(call.x(0)), e.wide(call.x(1))
    wanted = call.number(2)
    n = scores.shape.dims[0]
    call.need(boxes.shape.dims == (n, 4) and wanted >= 0, f"boxes {boxes.shape} and scores {scores.shape} do not fit together")
    count = min(wanted, n)
    if count == 0:
        return _Kept(e.full(S32, (0,), 0), e.full(F32, (0,), 0), e.index(0), wanted)
    iou = e.scalar(F32, 0.5) if len(call.inputs) < 4 else e.reshape(e.convert(call.x(3), F32), ())
    places, valid, kept = suppress(e, e.reshape(boxes, (1, n, 4)), e.reshape(scores, (1, n)), count, iou, least, sigma)
    total = e.reduce("add", e.convert(e.reshape(valid, (count,)), S32), [0])
    return _Kept(e.reshape(places, (count,)), e.reshape(kept, (count,)), total, wanted)


def _least(call: Call, number: int) -> Instruction:
    return call.emit.reshape(call.emit.convert(call.x(number), F32), ())


_NEEDS = ("while", "gather", "reduce")


@rule("NonMaxSuppression", needs=_NEEDS, ranks=(2, 1, 0))
def non_max_suppression(call: Call) -> Value:
    call.inputs.append(call.emit.scalar(F32, call.attr("iou_threshold")))
    return non_max_suppression_v2(call)


@rule("NonMaxSuppressionV2", needs=_NEEDS, ranks=(2, 1, 0))
def non_max_suppression_v2(call: Call) -> Value:
    kept = _single(call, call.emit.scalar(F32, -math.inf))
    return partial(call, kept.places, kept.count)


@rule("NonMaxSuppressionV3", needs=_NEEDS, ranks=(2, 1, 0))
def non_max_suppression_v3(call: Call) -> Value:
    kept = _single(call, _least(call, 4))
    return partial(call, kept.places, kept.count)


def _padded(call: Call, kept: _Kept, *rows: Instruction) -> list[Value]:
    """Rows of what was kept: filled up with zeros if the node asks for it, else as long as the count."""
    if not call.attr("pad_to_max_output_size"):
        return [partial(call, x, kept.count) for x in rows]
    e = call.emit
    return [e.pad(x, e.scalar(x.shape.dtype, 0), [0], [kept.wanted - x.shape.dims[0]]) for x in rows]


@rule("NonMaxSuppressionV4", needs=_NEEDS, ranks=(2, 1, 0))
def non_max_suppression_v4(call: Call) -> Sequence[Value]:
    kept = _single(call, _least(call, 4))
    return [*_padded(call, kept, kept.places), kept.count]


@rule("NonMaxSuppressionV5", needs=_NEEDS, ranks=(2, 1, 0))
def non_max_suppression_v5(call: Call) -> Sequence[Value]:
    """With soft_nms_sigma above 0, overlap lowers scores instead of only dropping boxes."""
    kept = _single(call, _least(call, 4), float(call.constant(5)))
    scores = call.emit.convert(kept.scores, call.x(1).shape.dtype)
    return [*_padded(call, kept, kept.places, scores), kept.count]


@rule("CombinedNonMaxSuppression", needs=("while", "gather", "reduce", "topk"), ranks=(4, 3, 0, 0, 0, 0))
def combined_non_max_suppression(call: Call) -> Sequence[Value]:
    """Each class of each image by itself, then the best of all classes; what is missing is zero."""
    e, boxes, scores = call.emit, call.x(0), call.x(1)
    each, total = call.number(2), call.number(3)
    batch, n, classes = scores.shape.dims
    each = min(each, n)
    size = min(total, each * classes) if call.attr("pad_per_class") else total
    groups = batch * classes
    shared = e.broadcast_to(boxes, (batch, n, classes, 4))
    corners = e.reshape(e.transpose(shared, (0, 2, 1, 3)), (groups, n, 4))
    keys = e.reshape(e.transpose(scores, (0, 2, 1)), (groups, n))
    places, valid, kept = suppress(e, corners, keys, each, _least(call, 4), _least(call, 5))
    ranked = e.reshape(e.select(valid, kept, e.like(kept, -math.inf)), (batch, classes * each))
    k = min(size, classes * each)
    best, at = top(e, ranked, k)
    real = e.compare(best, e.like(best, -math.inf), "GT")
    chosen = e.reshape(gather_axis(e, corners, places, 1, 1), (batch, classes * each, 4))
    found = gather_axis(e, chosen, at, 1, 1)
    if call.attr("clip_boxes"):
        found = e.clamp(found, 0, 1)
    classes_of = e.convert(e.divide(at, e.like(at, each)), F32)
    kept_boxes = e.select(e.spread(real, found.shape.dims, (0, 1)), found, e.like(found, 0))
    rows = [kept_boxes, e.select(real, best, e.like(best, 0)), e.select(real, classes_of, e.like(classes_of, 0))]
    padded = [e.pad(x, e.scalar(F32, 0), [0] * x.shape.rank, [0, size - k, *[0] * (x.shape.rank - 2)]) for x in rows]
    return [*padded, e.reduce("add", e.convert(real, S32), [1])]


@partial_rule("NonMaxSuppressionV2", "NonMaxSuppressionV3")
def of_counted_boxes(call: Call) -> Value:
    """Boxes that do not count have no score."""
    e, (boxes, scores) = call.emit, call.inputs[:2]
    if not isinstance(scores, Partial):
        return by_rule(call)
    call.need(isinstance(boxes, Partial) and boxes.axis == 0, "the scores depend on values, the boxes do not")
    call.inputs[1] = e.select(valid(e, scores), whole(scores), e.like(scores.items, -math.inf))
    return by_rule(call)
