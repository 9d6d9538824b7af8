"""Convolutions with kernels in the order in which the tensor engine takes them, and casts where the values are small.

Before:
  c = bf16[1,96,8,8] convert(k)                       k = f32[1,96,8,8] concatenate(a, b), dimensions={1}
  ROOT r = f32[1,64,8,8] convolution(c, w), dim_labels=bf01_oi01->bf01, ..            w: bf16[64,96,3,3]
After:
  d = bf16[1,32,8,8] convert(a)    e = bf16[1,64,8,8] convert(b)    c = bf16[1,96,8,8] concatenate(d, e), dimensions={1}
  t = bf16[96,3,3,64] transpose(w), dimensions={1,2,3,0}
  ROOT r = f32[1,64,8,8] convolution(c, t), dim_labels=bf01_i01o->bf01, ..

Input channels first and output channels last: a partition then reads all its weights in one run. Where each channel is
convolved for itself, output channels come first. The transpose of a weight is done once (see store_transposed). A cast moves up
through what only selects or joins elements, so that images lie in memory in the type in which they are multiplied; rounding is
monotonic, so the largest of rounded numbers is the rounded largest.
"""

from __future__ import annotations

from dataclasses import replace

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.combiners import plain_opcode
from nxcc.ir.hlo.imagespace import is_depthwise
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.combiners import combiner
from nxcc.passes.patterns import is_number, splat_value, transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode


@dataclass(frozen=True)
class CanonicalizeConvolution:
    name: str = "canonicalize-convolution"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _channels_outside(convolution: Instruction, builder: Builder) -> Instruction | None:
    """The kernel as [inputs, window.., outputs]; as [outputs, window.., inputs] where channels stay apart."""
    labels = convolution.attribute("dim_labels")
    first, last = labels.kernel_input_feature, labels.kernel_output_feature
    if is_depthwise(convolution):
        first, last = last, first
    order = (first, *labels.kernel_spatial, last)
    rank = len(order)
    if order == tuple(range(rank)) or len(convolution.operands) != 2:
        return None
    data, kernel = convolution.operands
    attributes = dict(convolution.attributes)
    attributes["dim_labels"] = replace(labels, kernel_input_feature=order.index(labels.kernel_input_feature),
                                       kernel_spatial=tuple(range(1, rank - 1)),
                                       kernel_output_feature=order.index(labels.kernel_output_feature))
    found = builder.make("convolution", data, transpose_to(builder, kernel, order), shape=convolution.shape, **attributes)
    found.frontend_attributes = dict(convolution.frontend_attributes)
    return found


def _reversal(convolution: Instruction, builder: Builder) -> Instruction | None:
    """A kernel that is reversed along the window: the window says so."""
    if len(convolution.operands) != 2 or convolution.operands[1].opcode != "reverse":
        return None
    data, kernel = convolution.operands
    spatial = convolution.attribute("dim_labels").kernel_spatial
    turned = kernel.attribute("dimensions")
    if not set(turned) <= set(spatial):
        return None
    windows = tuple(replace(w, reversal=w.reversal != (d in turned))
                    for d, w in zip(spatial, convolution.attribute("window").dims, strict=True))
    attributes = dict(convolution.attributes) | {"window": replace(convolution.attribute("window"), dims=windows)}
    found = builder.make("convolution", data, kernel.operands[0], shape=convolution.shape, **attributes)
    found.frontend_attributes = dict(convolution.frontend_attributes)
    return found


def _zeros_in_the_window(convolution: Instruction, builder: Builder) -> Instruction | None:
    """An image with zeros around it: the window says so."""
    if len(convolution.operands) != 2:
        return None
    data, kernel = convolution.operands
    pad = data.operands[0] if data.opcode == "convert" else data
    if pad.opcode != "pad" or not is_number(pad.operands[1], 0.0) or not data.shape.dtype.is_float:
        return None
    spatial = convolution.attribute("dim_labels").input_spatial
    edges = pad.attribute("padding")
    outside = [edge for d, edge in enumerate(edges) if d not in spatial]
    if any(min(edge.low, edge.high) < 0 or edge.interior for edge in edges) or any(edge.low or edge.high for edge in outside):
        return None
    windows = convolution.attribute("window")
    dims = zip(spatial, windows.dims, strict=True)
    if any(w.base_dilation > 1 for w in windows.dims):
        return None
    wider = tuple(replace(w, padding_low=w.padding_low + edges[d].low, padding_high=w.padding_high + edges[d].high)
                  for d, w in dims)
    image = pad.operands[0] if data is pad else builder.convert(pad.operands[0], data.shape.dtype)
    attributes = dict(convolution.attributes) | {"window": replace(windows, dims=wider)}
    found = builder.make("convolution", image, kernel, shape=convolution.shape, **attributes)
    found.frontend_attributes = dict(convolution.frontend_attributes)
    return found


def _cast_first(convert: Instruction, builder: Builder) -> Instruction | None:
    """convert(concatenate(a, ..)) and convert(window maximum of a), where nobody else reads the wide value."""
    source = convert.operands[0]
    narrow = convert.shape.dtype
    if not source.shape.is_array or source.opcode not in ("concatenate", "reduce-window") or not narrow.is_float:
        return None
    if not source.shape.dtype.is_float or narrow.bits > source.shape.dtype.bits:
        return None
    if any(user.opcode != "convert" or user.shape.dtype is not narrow for user in source.users):
        return None
    if source.opcode == "concatenate":
        return builder.make("concatenate", *(builder.convert(o, narrow) for o in source.operands), **source.attributes)
    return _window_of_casts(source, convert, builder)


def _window_of_casts(window: Instruction, convert: Instruction, builder: Builder) -> Instruction | None:
    opcode = plain_opcode(window.called[0])
    if len(window.operands) != 2 or opcode not in ("maximum", "minimum"):
        return None
    data, initial = window.operands
    start = splat_value(initial)
    if start is None:
        return None
    narrow = convert.shape.dtype
    module = builder.computation.parent
    assert module is not None
    called = combiner(module, opcode, narrow, builder)
    return builder.make("reduce-window", builder.convert(data, narrow), builder.splat(narrow, (), start), called=(called,),
                        **window.attributes)


RULES = (Rule("reversal-in-the-window", ("convolution",), _reversal),
         Rule("zeros-in-the-window", ("convolution",), _zeros_in_the_window),
         Rule("kernel-channels-outside", ("convolution",), _channels_outside),
         Rule("cast-before-joining", ("convert",), _cast_first))
_TABLE = rules_by_opcode(RULES)
