"""A convolution whose windows lie side by side, never over each other, is a product of patches.

Before:
  c = f32[1,768,14,14] convolution(x, w), window={size=16x16 stride=16x16}, dim_labels=bf01_oi01->bf01     x: f32[1,3,224,224]
After:
  p = f32[1,3,14,16,14,16] reshape(x)
  d = f32[1,14,14,768] dot(p, w), lhs_contracting_dims={1,3,5}, rhs_contracting_dims={1,2,3}
  c = f32[1,768,14,14] transpose(d), dimensions={0,3,1,2}

Each patch becomes a row, which is how what follows reads it (a sequence of tokens). Windows whose rows are short stay
convolutions: a patch comes from memory row by row.
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.patterns import transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

RUN = 8
"""Elements of a patch that lie together in memory, at least."""


@dataclass(frozen=True)
class PatchProducts:
    name: str = "patch-products"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _product(convolution: Instruction, builder: Builder) -> Instruction | None:
    """One dimension of patches and one within a patch for each spatial dimension of the data, summed with the kernel's."""
    if not _is_of_patches(convolution):
        return None
    _data, kernel = convolution.operands
    sizes: list[int] = []
    free: list[tuple[int, int]] = []
    summed: list[tuple[int, int]] = []
    for spread, inside in _parts(convolution):
        if spread is not None:
            free.append((len(sizes), spread))
            sizes.append(convolution.shape.dims[spread])
        if inside is not None:
            summed.append((len(sizes), inside))
            sizes.append(kernel.shape.dims[inside])
    patches = builder.reshape(_without_rest(convolution, builder), sizes)
    notes = {key: convolution.attributes[key] for key in ("operand_precision", "algorithm") if key in convolution.attributes}
    dims = [d for d, _ in summed], [d for _, d in summed]
    product = builder.dot(patches, kernel, dims, dtype=convolution.shape.dtype, **notes)
    product.frontend_attributes = dict(convolution.frontend_attributes)
    made = [*(spread for _, spread in free), convolution.attribute("dim_labels").output_feature]
    return transpose_to(builder, product, [made.index(d) for d in range(len(made))])


def _is_of_patches(convolution: Instruction) -> bool:
    """Floats, one group, windows that end where the next one begins, long in the dimension that lies together."""
    windows = convolution.attribute("window").dims
    if len(convolution.operands) != 2 or not windows or windows[-1].size < RUN or convolution.shape.element_count == 0:
        return False
    if convolution.attribute("feature_group_count") > 1 or convolution.attribute("batch_group_count") > 1:
        return False
    plain = all(w == WindowDimension(w.size, w.size) for w in windows)
    return plain and all(value.shape.dtype.is_float for value in (convolution, *convolution.operands))


def _parts(convolution: Instruction) -> list[tuple[int | None, int | None]]:
    """For each dimension of the data: the result's that it is spread over, and the kernel's that it is summed with."""
    labels = convolution.attribute("dim_labels")
    found: dict[int, tuple[int | None, int | None]] = {
        labels.input_batch: (labels.output_batch, None), labels.input_feature: (None, labels.kernel_input_feature)}
    found |= {d: (out, k) for d, out, k in
              zip(labels.input_spatial, labels.output_spatial, labels.kernel_spatial, strict=True)}
    return [found[d] for d in range(len(found))]


def _without_rest(convolution: Instruction, builder: Builder) -> Instruction:
    """The data without what no window reaches."""
    data, kernel = convolution.operands
    limits = [convolution.shape.dims[out] * kernel.shape.dims[k] if out is not None and k is not None else extent
              for extent, (out, k) in zip(data.shape.dims, _parts(convolution), strict=True)]
    return data if tuple(limits) == data.shape.dims else builder.slice(data, [0] * len(limits), limits)


RULES = (Rule("product-of-patches", ("convolution",), _product),)
_TABLE = rules_by_opcode(RULES)
