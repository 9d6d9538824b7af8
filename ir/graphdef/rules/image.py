"""Resizing, cropping and colour."""

from __future__ import annotations

import numpy as np

from nxcc.ir.dtypes import F32, S32, U32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.indexing import gather_tuples
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import Array

# Resizing. Coordinates are computed in f32, as TensorFlow does. Source: GraphDef format reference, section 12.


def _scale(source: int, target: int, align_corners: bool) -> np.float32:
    if align_corners and target > 1:
        return np.float32(source - 1) / np.float32(target - 1)
    return np.float32(source) / np.float32(target)


def _coordinates(call: Call, source: int, target: int) -> Array:
    """Where each of `target` outputs looks, in f32."""
    return _places(source, target, call.attr("align_corners"), call.attr("half_pixel_centers"))


def _places(source: int, target: int, align_corners: bool, centred: bool) -> Array:
    scale = _scale(source, target, align_corners)
    places = np.arange(target, dtype=np.float32)
    return (places + np.float32(0.5)) * scale - np.float32(0.5) if centred else places * scale


def target_sizes(call: Call) -> list[int]:
    """Rows and columns that a resize makes."""
    x, sizes = call.x(0), call.ints(1)
    call.need(x.shape.rank == 4 and len(sizes) == 2 and min(sizes) > 0, f"{x.shape} cannot be resized to {sizes}")
    call.need(0 not in x.shape.dims[1:3], f"the image {x.shape} is empty")
    call.table(max(sizes))
    return sizes


@rule("ResizeBilinear", needs=("gather",))
def resize_bilinear(call: Call) -> Value:
    """Two neighbours along each axis, blended; always f32."""
    return blended(call.emit, call.x(0), target_sizes(call), call.attr("align_corners"), call.attr("half_pixel_centers"))


def blended(e: Emitter, image: Instruction, sizes: list[int], align_corners: bool, centred: bool = False) -> Instruction:
    """An image of other sizes, by its two neighbours along each axis; f32."""
    x = e.convert(image, F32)
    # the vertical step last: TensorFlow blends rows after columns
    for axis, target in zip((2, 1), reversed(sizes), strict=True):
        source = x.shape.dims[axis]
        at = _places(source, target, align_corners, centred)
        low = np.maximum(np.floor(at), 0).astype(np.int32)
        high = np.minimum(np.floor(at) + 1, source - 1).astype(np.int32)
        weight = (at - np.floor(at)).astype(np.float32)
        x = _blend(e, x, axis, low, high, weight)
    return x


def _blend(e: Emitter, x: Instruction, axis: int, low: Array, high: Array, weight: Array) -> Instruction:
    first = _take_rows(e, x, axis, low)
    if not weight.any():
        return first
    second = _take_rows(e, x, axis, high)
    factor = e.spread(e.constant(weight), first.shape.dims, (axis,))
    return e.add(first, e.multiply(e.subtract(second, first), factor))


def _take_rows(e: Emitter, x: Instruction, axis: int, places: Array) -> Instruction:
    """x at known places along an axis: nothing, a repetition where each place is taken as often, else a gather."""
    source, target = x.shape.dims[axis], len(places)
    if target == source and np.array_equal(places, np.arange(source)):
        return x
    if target % source == 0 and np.array_equal(places, np.arange(target) // (target // source)):
        dims = (*x.shape.dims[:axis + 1], target // source, *x.shape.dims[axis + 1:])
        wide = e.spread(x, dims, [d for d in range(len(dims)) if d != axis + 1])
        return e.reshape(wide, (*x.shape.dims[:axis], target, *x.shape.dims[axis + 1:]))
    steps = set(np.diff(places).tolist())
    if len(steps) == 1 and (step := steps.pop()) > 0:
        starts, limits, strides = [0] * x.shape.rank, list(x.shape.dims), [1] * x.shape.rank
        starts[axis], limits[axis], strides[axis] = int(places[0]), int(places[-1]) + 1, step
        return e.slice(x, starts, limits, strides)
    return e.take(x, e.constant(places.astype(np.int32)), axis)


@rule("ResizeNearestNeighbor", needs=("gather",))
def resize_nearest(call: Call) -> Value:
    x = call.x(0)
    for axis, target in zip((1, 2), target_sizes(call), strict=True):
        source = x.shape.dims[axis]
        scale = _scale(source, target, call.attr("align_corners"))
        places = np.arange(target, dtype=np.float32)
        if call.attr("half_pixel_centers"):
            at = np.floor((places + np.float32(0.5)) * scale)
        elif call.attr("align_corners"):
            at = np.floor(places * scale + np.float32(0.5))
        else:
            at = np.floor(places * scale)
        x = _take_rows(call.emit, x, axis, np.clip(at, 0, source - 1).astype(np.int32))
    return x


def resample(e: Emitter, x: Instruction, axis: int, weights: Array) -> Instruction:
    """[..., n, ...] by a matrix [m, n] along an axis."""
    found = e.builder.dot(x, e.constant(weights.astype(np.float32)), ((axis,), (1,)))
    last = x.shape.rank - 1
    order = list(range(last))
    order.insert(axis, last)
    return e.transpose(found, order)


_CUBIC_TABLE = 1024


def _cubic(x: Array, a: float) -> Array:
    """Keys' kernel at distances 0 to 2."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, far)


def _cubic_weights(call: Call, source: int, target: int) -> Array:
    """Distances are rounded to 1/1024, as in TensorFlow; centred pixels leave out what lies outside and rescale."""
    centred = call.attr("half_pixel_centers")
    a = -0.5 if centred else -0.75
    at = _coordinates(call, source, target)
    base = np.floor(at)
    delta = np.rint((at - base).astype(np.float64) * _CUBIC_TABLE) / _CUBIC_TABLE
    weights = np.zeros((target, source))
    for tap, distance in ((-1, 1 + delta), (0, delta), (1, 1 - delta), (2, 2 - delta)):
        place = (base + tap).astype(np.int64)
        inside = np.clip(place, 0, source - 1)
        part = _cubic(distance, a) * ((inside == place) | (not centred))
        np.add.at(weights, (np.arange(target), inside), part)
    if centred:
        weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _area_weights(call: Call, source: int, target: int) -> Array:
    """Each output is the mean of the stretch of inputs that it covers."""
    scale = float(_scale(source, target, call.attr("align_corners")))
    weights = np.zeros((target, source))
    for o in range(target):
        low, high = o * scale, (o + 1) * scale
        for i in range(int(np.floor(low)), int(np.ceil(high))):
            share = min(i + 1.0, high) - max(float(i), low)
            weights[o, min(i, source - 1)] += share / scale
    return weights


@rule("ResizeBicubic", "ResizeArea", needs=("dot",))
def resize_by_weights(call: Call) -> Value:
    e = call.emit
    x = e.convert(call.x(0), F32)
    table = _cubic_weights if call.node.op == "ResizeBicubic" else _area_weights
    for axis, target in zip((1, 2), target_sizes(call), strict=True):
        call.table(target * x.shape.dims[axis])
        x = resample(e, x, axis, table(call, x.shape.dims[axis], target))
    return x


# Cropping


def _crop_coordinates(e: Emitter, boxes: Instruction, side: int, size: int, extent: int) -> Instruction:
    """[boxes, size]: where along one axis each crop looks."""
    n = boxes.shape.dims[0]
    low, high = (e.reshape(e.part(boxes, 1, k, k + 1), (n,)) for k in (side, side + 2))
    if size == 1:
        return e.reshape(e.scaled(e.scaled(e.add(low, high), 0.5), extent - 1), (n, 1))
    step = _settled_quotient(e, e.scaled(e.subtract(high, low), extent - 1), size - 1)
    start = e.scaled(low, extent - 1)
    places = e.spread(e.convert(e.iota(S32, (size,), 0), F32), (n, size), (1,))
    return e.add(e.spread(start, (n, size), (0,)), e.multiply(places, e.spread(step, (n, size), (0,))))


def _settled_quotient(e: Emitter, x: Instruction, divisor: int) -> Instruction:
    """x / divisor to the last bit, f32, also where division is only good to one unit in the last place.

    A crop's last place is where the image ends, or one step outside of it: the unit decides. The quotient is split into halves
    of 12 bits, whose products with a small divisor are exact, and corrected by what is left of x.
    """
    quotient = e.divide(x, e.like(x, divisor))
    if divisor >= 1 << 12:
        return quotient
    bits = e.make("bitcast-convert", quotient, shape=x.shape.with_dtype(U32))
    high = e.make("bitcast-convert", e.make("and", bits, e.like(bits, 0xFFFFF000)), shape=x.shape)
    low = e.subtract(quotient, high)
    rest = e.subtract(e.subtract(x, e.scaled(high, divisor)), e.scaled(low, divisor))
    return e.add(quotient, e.scaled(rest, 1 / divisor))


def _pixels(e: Emitter, image: Instruction, box: Instruction, y: Instruction, x: Instruction) -> Instruction:
    """image[box, y, x] for f32 coordinates already whole; [boxes, height, width, channels]."""
    dims = (*y.shape.dims, x.shape.dims[1], 1)
    parts = [e.spread(box, dims, (0,)), e.spread(e.convert(y, S32), dims, (0, 1)), e.spread(e.convert(x, S32), dims, (0, 2))]
    return gather_tuples(e, image, e.concatenate(parts, 3))


@rule("CropAndResize", needs=("gather",), ranks=(4, 2, 1, 1))
def crop_and_resize(call: Call) -> Value:
    e, image, boxes, box = call.emit, call.x(0), call.x(1), call.x(2)
    sizes = call.ints(3)
    call.need(len(sizes) == 2 and min(sizes) > 0, f"a crop cannot have the size {sizes}")
    height, width = sizes
    _, rows, columns, channels = image.shape.dims
    y, x = _crop_coordinates(e, boxes, 0, height, rows), _crop_coordinates(e, boxes, 1, width, columns)
    dims = (boxes.shape.dims[0], height, width, channels)
    if call.text("method", "bilinear", "nearest") == "nearest":
        found = e.convert(_pixels(e, image, box, *(e.make("round-nearest-afz", v) for v in (y, x))), F32)
    else:
        found = _bilinear_crop(e, image, box, y, x)
    inside = None
    for at, extent, axis in ((y, rows, 1), (x, columns, 2)):
        part = e.make("and", e.compare(at, e.like(at, 0), "GE"), e.compare(at, e.like(at, extent - 1), "LE"))
        wide = e.spread(part, dims, (0, axis))
        inside = wide if inside is None else e.make("and", inside, wide)
    assert inside is not None
    return e.select(inside, found, e.like(found, call.attr("extrapolation_value")))


def _bilinear_crop(e: Emitter, image: Instruction, box: Instruction, y: Instruction, x: Instruction) -> Instruction:
    top, bottom = e.make("floor", y), e.make("ceil", y)
    left, right = e.make("floor", x), e.make("ceil", x)
    corners = {(a, b): e.convert(_pixels(e, image, box, v, h), F32)
               for a, v in enumerate((top, bottom)) for b, h in enumerate((left, right))}
    dims = corners[0, 0].shape.dims
    across = e.spread(e.subtract(x, left), dims, (0, 2))
    down = e.spread(e.subtract(y, top), dims, (0, 1))
    rows = [e.add(corners[a, 0], e.multiply(e.subtract(corners[a, 1], corners[a, 0]), across)) for a in (0, 1)]
    return e.add(rows[0], e.multiply(e.subtract(rows[1], rows[0]), down))


# Colour, channels last


def _channels(e: Emitter, x: Instruction) -> list[Instruction]:
    last = x.shape.rank - 1
    return [e.part(x, last, k, k + 1) for k in range(3)]


def _to_hsv(e: Emitter, x: Instruction) -> list[Instruction]:
    r, g, b = _channels(e, x)
    value = e.maximum(e.maximum(r, g), b)
    span = e.subtract(value, e.minimum(e.minimum(r, g), b))
    zero = e.like(value, 0)
    saturation = e.select(e.compare(value, zero, "GT"), e.divide(span, value), zero)
    unit = e.divide(e.like(span, 1.0), e.scaled(span, 6.0))
    hue = e.select(e.compare(g, value, "EQ"), e.offset(e.multiply(unit, e.subtract(b, r)), 2 / 6),
                   e.offset(e.multiply(unit, e.subtract(r, g)), 4 / 6))
    hue = e.select(e.compare(r, value, "EQ"), e.multiply(unit, e.subtract(g, b)), hue)
    hue = e.select(e.compare(span, zero, "GT"), hue, zero)
    return [e.select(e.compare(hue, zero, "LT"), e.offset(hue, 1.0), hue), saturation, value]


def _to_rgb(e: Emitter, hue: Instruction, saturation: Instruction, value: Instruction) -> Instruction:
    six = e.scaled(hue, 6.0)

    def distance(centre: float) -> Instruction:
        return e.make("abs", e.offset(six, -centre))

    parts = [e.offset(distance(3), -1), e.offset(e.make("negate", distance(2)), 2), e.offset(e.make("negate", distance(4)), 2)]
    pale = e.subtract(e.like(saturation, 1.0), saturation)
    colours = [e.multiply(e.add(pale, e.multiply(saturation, e.clamp(part, 0, 1))), value) for part in parts]
    return e.concatenate(colours, hue.shape.rank - 1)


@rule("RGBToHSV", ranks=("1+",))
def rgb_to_hsv(call: Call) -> Value:
    x = call.x(0)
    return call.emit.concatenate(_to_hsv(call.emit, x), x.shape.rank - 1)


@rule("HSVToRGB", ranks=("1+",))
def hsv_to_rgb(call: Call) -> Value:
    return _to_rgb(call.emit, *_channels(call.emit, call.x(0)))


@rule("AdjustSaturation", ranks=("3+", 0))
def adjust_saturation(call: Call) -> Value:
    e = call.emit
    hue, saturation, value = _to_hsv(e, e.wide(call.x(0)))
    found = _to_rgb(e, hue, e.clamp(e.multiply(saturation, call.x(1)), 0, 1), value)
    return e.convert(found, call.x(0).shape.dtype)


@rule("AdjustHue", ranks=("3+", 0))
def adjust_hue(call: Call) -> Value:
    e = call.emit
    hue, saturation, value = _to_hsv(e, e.wide(call.x(0)))
    turned = e.add(hue, call.x(1))
    found = _to_rgb(e, e.subtract(turned, e.make("floor", turned)), saturation, value)
    return e.convert(found, call.x(0).shape.dtype)


@rule("AdjustContrastv2", ranks=("3+", 0))
def adjust_contrast(call: Call) -> Value:
    """(x - mean) * factor + mean, the mean of each channel of each image."""
    e, x = call.emit, call.emit.wide(call.x(0))
    axes = [x.shape.rank - 3, x.shape.rank - 2]
    count = x.shape.dims[axes[0]] * x.shape.dims[axes[1]]
    total = e.reduce("add", x, axes, keep=True)
    mean = e.divide(total, e.like(total, count))
    return e.convert(e.add(e.multiply(e.subtract(x, mean), call.x(1)), mean), call.x(0).shape.dtype)
