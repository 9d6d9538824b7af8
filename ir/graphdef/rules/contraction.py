"""Matrix products, Einsum and convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.dtypes import F32, S32
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter, broadcast_dims
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.rules.array import amounts_of, mirrored
from nxcc.ir.graphdef.rules.image import blended, target_sizes
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.attributes import ConvolutionDimensions, Window, WindowDimension
from nxcc.ir.hlo.module import Instruction

# Matrices


@rule("MatMul", "SparseMatMul", needs=("dot",))
def mat_mul(call: Call) -> Value:
    a, b = call.x(0), call.x(1)
    if call.node.op == "SparseMatMul":  # which side has many zeros is a hint
        a, b = call.emit.convert(a, F32), call.emit.convert(b, F32)
    call.need(a.shape.rank == 2 and b.shape.rank == 2, f"both operands must be matrices, they are {a.shape} and {b.shape}")
    over = (0 if call.attr("transpose_a") else 1, 1 if call.attr("transpose_b") else 0)
    return call.emit.builder.dot(a, b, ((over[0],), (over[1],)))


def batched_product(e: Emitter, a: Instruction, b: Instruction, a_transposed: bool = False,
                    b_transposed: bool = False) -> Instruction:
    """[..., m, k] times [..., k, n], leading dimensions broadcast."""
    dims = broadcast_dims(a.shape.dims[:-2], b.shape.dims[:-2])
    a = e.broadcast_to(a, (*dims, *a.shape.dims[-2:]))
    b = e.broadcast_to(b, (*dims, *b.shape.dims[-2:]))
    batch, r = range(len(dims)), len(dims)
    return e.builder.dot(a, b, ((r if a_transposed else r + 1,), (r + 1 if b_transposed else r,)), (batch, batch))


@rule("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", needs=("dot",))
def batch_mat_mul(call: Call) -> Value:
    e, a, b = call.emit, call.x(0), call.x(1)
    call.need(min(a.shape.rank, b.shape.rank) >= 2, f"both operands must be matrices, they are {a.shape} and {b.shape}")
    if call.node.op == "BatchMatMulV3":
        result = call.dtype("Tout")
        a, b = e.convert(a, result), e.convert(b, result)
    if a.shape.dtype.is_complex:
        a, b = (_conjugate(e, x) if call.attr(f"adj_{s}") else x for x, s in ((a, "x"), (b, "y")))
    return batched_product(e, a, b, call.attr("adj_x"), call.attr("adj_y"))


def _conjugate(e: Emitter, x: Instruction) -> Instruction:
    return e.make("complex", e.make("real", x), e.make("negate", e.make("imag", x)))


# Einsum


@rule("Einsum", needs=("dot",))
def einsum(call: Call) -> Value:
    """Two terms at a time, left to right; a term's repeated labels take its diagonal, its private ones are summed."""
    terms, result = _equation(call)
    e = call.emit
    parts = [_diagonal(e, x, labels) for x, labels in zip(call.operands, terms, strict=True)]
    x, labels = parts[0]
    for number, (y, other) in enumerate(parts[1:], 1):
        wanted = set(result).union(*(later for _, later in parts[number + 1:]))
        x, labels = _contract(e, x, labels, y, other, wanted)
    x, labels = _sum_private(e, x, labels, set(result))
    call.need(sorted(labels) == sorted(result), f"the result of {call.attr('equation')!r} repeats or invents a label")
    return e.transpose(x, [labels.index(label) for label in result])


def _equation(call: Call) -> tuple[list[str], str]:
    """Labels of each operand and of the result, an ellipsis spelled out in capitals of its own."""
    text = str(call.attr("equation")).replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    count = len(call.operands)
    call.need(bool(arrow) and len(terms) == count, f"the equation {text!r} does not fit {count} operands")
    longest = 0
    for term, x in zip(terms, call.operands, strict=True):
        extra = x.shape.rank - len(term.replace("...", ""))
        call.need(extra == 0 or ("..." in term and extra > 0), f"the term {term!r} does not fit {x.shape}")
        longest = max(longest, extra)
    spare = [chr(0x100 + k) for k in range(longest)]
    full = [term.replace("...", "".join(spare[longest - (x.shape.rank - len(term.replace("...", ""))):]))
            for term, x in zip(terms, call.operands, strict=True)]
    return full, right.replace("...", "".join(spare))


def _diagonal(e: Emitter, x: Instruction, labels: str) -> tuple[Instruction, str]:
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            on = e.compare(e.iota(S32, x.shape.dims, first), e.iota(S32, x.shape.dims, second), "EQ")
            x = e.reduce("add", e.select(on, x, e.like(x, 0)), [second])
            labels = labels[:second] + labels[second + 1:]
    return x, labels


def _sum_private(e: Emitter, x: Instruction, labels: str, wanted: set[str]) -> tuple[Instruction, str]:
    axes = [d for d, label in enumerate(labels) if label not in wanted]
    return e.reduce("add", x, axes), "".join(label for label in labels if label in wanted)


def _contract(e: Emitter, x: Instruction, a: str, y: Instruction, b: str, wanted: set[str]) -> tuple[Instruction, str]:
    x, a = _sum_private(e, x, a, wanted | set(b))
    y, b = _sum_private(e, y, b, wanted | set(a))
    x, y = _agree(e, x, a, y, b), _agree(e, y, b, x, a)
    both = [label for label in a if label in b]
    batch, inner = [s for s in both if s in wanted], [s for s in both if s not in wanted]
    found = e.builder.dot(x, y, ([a.index(s) for s in inner], [b.index(s) for s in inner]),
                          ([a.index(s) for s in batch], [b.index(s) for s in batch]))
    return found, "".join([*batch, *(s for s in a if s not in both), *(s for s in b if s not in both)])


def _agree(e: Emitter, x: Instruction, a: str, y: Instruction, b: str) -> Instruction:
    """x with dimensions of size 1 grown to those of y with the same label, as an ellipsis may broadcast."""
    dims = [y.shape.dims[b.index(label)] if size == 1 and label in b else size
            for size, label in zip(x.shape.dims, a, strict=True)]
    return e.broadcast_to(x, dims)


# Convolutions


@dataclass(frozen=True)
class Format:
    """Where batch, channels and space lie in data of a data_format."""

    batch: int
    feature: int
    spatial: tuple[int, ...]


def data_format(call: Call, space: int = 2, attribute: str = "data_format") -> Format:
    last, first = {2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}[space]
    if call.text(attribute, last, first) == last:
        return Format(0, space + 1, tuple(range(1, space + 1)))
    return Format(0, 1, tuple(range(2, space + 2)))


def paddings(call: Call, layout: Format, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
             dilations: Sequence[int]) -> list[tuple[int, int]]:
    """Padding before and after each spatial dimension. Source: GraphDef format reference, section 12."""
    kind = call.attr("padding")
    if kind == "EXPLICIT" and "explicit_paddings" in call.signature.attributes:
        given = call.attr("explicit_paddings")
        count = 2 * (len(sizes) + 2)
        call.need(len(given) == count, f"explicit_paddings {list(given)} must have {count} numbers")
        return [(given[2 * d], given[2 * d + 1]) for d in layout.spatial]
    if kind == "VALID":
        return [(0, 0)] * len(sizes)
    call.need(kind == "SAME", f"padding is {kind!r}; it may be SAME, VALID or, for some operators, EXPLICIT")
    found = []
    for n, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-n // stride) - 1) * stride + (k - 1) * dilation + 1 - n, 0)
        found.append((total // 2, total - total // 2))
    return found


def spatial_attr(call: Call, name: str, layout: Format) -> list[int]:
    """The spatial part of strides, dilations or ksize; batch must be 1."""
    values = call.attr(name)
    if not values and name == "dilations":
        return [1] * len(layout.spatial)
    rank = len(layout.spatial) + 2
    call.need(len(values) == rank and min(values) > 0, f"{name} {list(values)} must be {rank} positive numbers")
    call.need(values[layout.batch] == 1, f"{name} {list(values)} must be 1 for the batch")
    return [values[d] for d in layout.spatial]


def _labels(layout: Format, kernel_in: int, kernel_out: int) -> ConvolutionDimensions:
    count = len(layout.spatial)
    return ConvolutionDimensions(layout.batch, layout.feature, layout.spatial, kernel_in, kernel_out, tuple(range(count)),
                                 layout.batch, layout.feature, layout.spatial)


def _convolve(call: Call, layout: Format, x: Instruction, kernel: Instruction, groups: int) -> Value:
    count = len(layout.spatial)
    sizes, taps = [x.shape.dims[d] for d in layout.spatial], kernel.shape.dims[:count]
    strides = spatial_attr(call, "strides", layout)
    dilations = spatial_attr(call, "dilations", layout) if "dilations" in call.signature.attributes else [1] * count
    edges = paddings(call, layout, sizes, taps, strides, dilations)
    window = Window(tuple(WindowDimension(k, s, low, high, window_dilation=d)
                          for k, s, (low, high), d in zip(taps, strides, edges, dilations, strict=True)))
    return call.emit.make("convolution", x, kernel, window=window, dim_labels=_labels(layout, count, count + 1),
                          feature_group_count=groups)


@rule("Conv2D", "Conv3D", needs=("convolution",), ranks=("4+", "4+"))
def conv(call: Call) -> Value:
    space = 2 if call.node.op == "Conv2D" else 3
    x, kernel, layout = call.x(0), call.x(1), data_format(call, space)
    call.need(x.shape.rank == space + 2 == kernel.shape.rank,
              f"input and filter must have rank {space + 2}, they are {x.shape} and {kernel.shape}")
    channels, inner = x.shape.dims[layout.feature], kernel.shape.dims[space]
    call.need(inner > 0 and channels % inner == 0, f"{channels} channels are no multiple of the {inner} of the filter")
    return _convolve(call, layout, x, kernel, channels // inner)


@rule("FusedPadConv2D", "FusedResizeAndPadConv2D", needs=("convolution",))
def padded_conv(call: Call) -> Value:
    """A convolution of an image that is resized before, if it is, and whose edges are mirrored."""
    x, resizes = call.x(0), call.node.op == "FusedResizeAndPadConv2D"
    kernel = call.x(2 + resizes)
    call.need(x.shape.rank == 4 == kernel.shape.rank,
              f"input and filter must have rank 4, they are {x.shape} and {kernel.shape}")
    if resizes:
        image = blended(call.emit, x, target_sizes(call), call.attr("resize_align_corners"))
        x = call.emit.convert(image, x.shape.dtype)
    inner = kernel.shape.dims[2]
    call.need(inner == x.shape.dims[3], f"the input has {x.shape.dims[3]} channels, the filter {inner}")
    return _convolve(call, Format(0, 3, (1, 2)), mirrored(call, x, amounts_of(call, 1 + resizes)), kernel, 1)


@rule("DepthwiseConv2dNative", needs=("convolution",), ranks=(4, 4))
def depthwise(call: Call) -> Value:
    x, kernel, layout = call.x(0), call.x(1), data_format(call)
    channels = x.shape.dims[layout.feature]
    kh, kw, inner, multiplier = kernel.shape.dims
    call.need(inner == channels, f"the input has {channels} channels, the filter {inner}")
    return _convolve(call, layout, x, call.emit.reshape(kernel, (kh, kw, 1, inner * multiplier)), channels)


def _transposed(call: Call, sizes: Sequence[int], kernel: Instruction, groups: int, gradient: Instruction,
                layout: Format) -> Value:
    """Gradient of a convolution to its input: the other way round, with holes between the gradient's elements.

    kernel: [space..., channels of the gradient in a group, channels of the result].
    """
    e, count = call.emit, len(layout.spatial)
    strides = spatial_attr(call, "strides", layout)
    dilations = spatial_attr(call, "dilations", layout)
    wanted = [sizes[d] for d in layout.spatial]
    edges = paddings(call, layout, wanted, kernel.shape.dims[:count], strides, dilations)
    rows = []
    for number, (n, k, s, d, (before, _)) in enumerate(zip(wanted, kernel.shape.dims, strides, dilations, edges, strict=False)):
        reach = (k - 1) * d + 1
        spread = (gradient.shape.dims[layout.spatial[number]] - 1) * s + 1
        low = reach - 1 - before
        high = n + reach - 1 - spread - low
        call.need(high >= before - reach and spread <= n + before + reach,
                  f"input_sizes {list(sizes)} do not fit the gradient {gradient.shape}")
        rows.append(WindowDimension(k, 1, low, high, window_dilation=d, base_dilation=s))
    flipped = e.reverse(kernel, range(count))
    return e.make("convolution", gradient, flipped, window=Window(tuple(rows)), dim_labels=_labels(layout, count, count + 1),
                  feature_group_count=groups)


@rule("Conv2DBackpropInput", "Conv3DBackpropInputV2", needs=("convolution",), ranks=(1, "4+", "4+"))
def conv_transposed(call: Call) -> Value:
    space = 2 if call.node.op == "Conv2DBackpropInput" else 3
    e, sizes, kernel, gradient, layout = call.emit, call.ints(0), call.x(1), call.x(2), data_format(call, space)
    *taps, inner, outer = kernel.shape.dims
    call.need(kernel.shape.rank == gradient.shape.rank == space + 2 and len(sizes) in (space, space + 2),
              f"input_sizes {sizes}, filter {kernel.shape} and gradient {gradient.shape} do not fit together")
    if len(sizes) == space:
        sizes = _with_batch(sizes, gradient.shape.dims[0], inner, layout)
    channels = sizes[layout.feature]
    groups = channels // max(inner, 1)
    whole = groups > 0 and channels == groups * inner and outer % groups == 0
    call.need(whole and gradient.shape.dims[layout.feature] == outer,
              f"input_sizes {sizes}, filter {kernel.shape} and gradient {gradient.shape} do not fit together")
    parted = e.reshape(kernel, (*taps, inner, groups, outer // groups))
    swapped = e.transpose(parted, (*range(space), space + 2, space + 1, space))
    return _transposed(call, sizes, e.reshape(swapped, (*taps, outer // groups, channels)), groups, gradient, layout)


def _with_batch(sizes: list[int], batch: int, channels: int, layout: Format) -> list[int]:
    full = [batch] * (len(sizes) + 2)
    full[layout.feature] = channels
    for d, n in zip(layout.spatial, sizes, strict=True):
        full[d] = n
    return full


@rule("DepthwiseConv2dNativeBackpropInput", needs=("convolution",), ranks=(1, 4, 4))
def depthwise_transposed(call: Call) -> Value:
    sizes, kernel, gradient, layout = call.ints(0), call.x(1), call.x(2), data_format(call)
    call.need(len(sizes) == 4, f"input_sizes {sizes} must be four numbers")
    return _transposed(call, sizes, call.emit.transpose(kernel, (0, 1, 3, 2)), kernel.shape.dims[2], gradient, layout)
