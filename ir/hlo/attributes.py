"""Typed records for structured attributes, and the declaration of every attribute: text key, kind, protobuf field.

The readers and writers derive from these declarations: a codec exists per Kind, never per operator.
"""

from __future__ import annotations

import enum
from dataclasses import field
from typing import Any

from nxcc.ir.facts import dataclass


class Kind(enum.Enum):
    """How an attribute's value looks in Python; text and protobuf codecs are chosen by it."""

    INT = "int"
    BOOL = "bool"
    FLOAT = "float"
    STRING = "str, printed in quotes"
    NAME = "str, an enum value printed bare"
    INTS = "tuple[int, ...]"
    NAMES = "tuple[str, ...], enum values in braces"
    WINDOW = "Window"
    CONV_DIMS = "ConvolutionDimensions"
    PADDING = "tuple[PaddingDimension, ...]"
    SLICES = "tuple[SliceDimension, ...]"
    GROUPS = "ReplicaGroups"
    PAIRS = "tuple[tuple[int, int], ...]"
    SHAPE = "Shape"
    SHAPES = "tuple[Shape, ...]"
    ALIASES = "tuple[OperandAlias, ...]"
    ACCURACY = "ResultAccuracy"
    DOMAIN = "Domain"
    LITERAL = "Literal"
    SPARSITY = "str, kept verbatim"


@dataclass(frozen=True, slots=True)
class WindowDimension:
    """One dimension of a window; padding may be negative (crop)."""

    size: int
    stride: int = 1
    padding_low: int = 0
    padding_high: int = 0
    window_dilation: int = 1
    base_dilation: int = 1
    reversal: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    dims: tuple[WindowDimension, ...] = ()


@dataclass(frozen=True, slots=True)
class ConvolutionDimensions:
    """Dimension numbers of a convolution; spatial dimensions are in the order of the window."""

    input_batch: int
    input_feature: int
    input_spatial: tuple[int, ...]
    kernel_input_feature: int
    kernel_output_feature: int
    kernel_spatial: tuple[int, ...]
    output_batch: int
    output_feature: int
    output_spatial: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PaddingDimension:
    low: int
    high: int
    interior: int = 0


@dataclass(frozen=True, slots=True)
class SliceDimension:
    start: int
    limit: int
    stride: int = 1


@dataclass(frozen=True, slots=True)
class ReplicaGroups:
    """Device groups of a collective: explicit lists, or the compact iota form, or mesh axes kept verbatim as text.

    groups: explicit groups (empty: all replicas in one group).
    iota: (number of groups, devices per group, reshape dims, transpose permutation) when written `[g,n]<=[dims]T(perm)`.
    """

    groups: tuple[tuple[int, ...], ...] = ()
    iota: tuple[int, int, tuple[int, ...], tuple[int, ...]] | None = None
    mesh: str = ""


@dataclass(frozen=True, slots=True)
class OperandAlias:
    """`output_to_operand_aliasing`: this path of the output reuses that path of an operand."""

    output_index: tuple[int, ...]
    operand: int
    operand_index: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ResultAccuracy:
    """mode ("default", "highest") or a tolerance (atol, rtol, ulps)."""

    mode: str = ""
    tolerance: tuple[float, float, int] | None = None


@dataclass(frozen=True, slots=True)
class Sharding:
    """OpSharding. kind: replicated, maximal, tuple, other (tiled), manual, unknown, unreduced.

    tile_dims / devices: tile assignment, explicit; iota_dims / iota_perm: the compact device list.
    mesh: the newer named form, kept verbatim as text; then the rest is unused.
    """

    kind: str = "replicated"
    tile_dims: tuple[int, ...] = ()
    devices: tuple[int, ...] = ()
    iota_dims: tuple[int, ...] = ()
    iota_perm: tuple[int, ...] = ()
    replicate_on_last_tile_dim: bool = False
    last_tile_dims: tuple[str, ...] = ()
    shard_group: tuple[str, int] | None = None
    elements: tuple[Sharding, ...] = ()
    metadata: tuple[Any, ...] = ()
    mesh: str = ""


@dataclass(frozen=True, slots=True)
class Domain:
    entry: Sharding
    exit: Sharding


@dataclass(frozen=True, slots=True)
class Attribute:
    """Declaration of one attribute.

    key: name in text and in `Instruction.attributes`. proto: path of the field inside HloInstructionProto;
    `dimensions[0]` means the first element of a repeated field, `a.b` a field of a sub-message.
    default: the value that absence means; writers leave it out when equal (unless always_printed). text_default: what absence
    means in text, where that is something else.
    """

    key: str
    kind: Kind
    proto: str = ""
    default: Any = None
    required: bool = False
    always_printed: bool = False
    enum: str = field(default="", compare=False)
    text_default: Any = None


@dataclass(frozen=True, slots=True)
class IoAlias:
    """Module-level input_output_alias: output path reuses a parameter's buffer. kind: "may-alias" or "must-alias"."""

    output_index: tuple[int, ...]
    parameter: int
    parameter_index: tuple[int, ...]
    kind: str = "may-alias"


def _ints(key: str, proto: str, **options: Any) -> Attribute:
    return Attribute(key, Kind.INTS, proto, options.pop("default", ()), **options)


DIMENSIONS = _ints("dimensions", "dimensions", required=True)
OPTIONAL_DIMENSIONS = _ints("dimensions", "dimensions")
IOTA_DIMENSION = Attribute("iota_dimension", Kind.INT, "dimensions[0]", required=True)
INDEX = Attribute("index", Kind.INT, "tuple_index", required=True)
PARAMETER_NUMBER = Attribute("parameter_number", Kind.INT, "parameter_number", required=True)
LITERAL = Attribute("literal", Kind.LITERAL, "literal", required=True)
OPTIONAL_LITERAL = Attribute("literal", Kind.LITERAL, "literal")
SLICE = Attribute("slice", Kind.SLICES, "slice_dimensions", required=True)
DYNAMIC_SLICE_SIZES = _ints("dynamic_slice_sizes", "dynamic_slice_sizes", required=True)
PADDING = Attribute("padding", Kind.PADDING, "padding_config", required=True)
WINDOW = Attribute("window", Kind.WINDOW, "window", default=Window())
DIM_LABELS = Attribute("dim_labels", Kind.CONV_DIMS, "convolution_dimension_numbers", required=True)
OPTIONAL_DIM_LABELS = Attribute("dim_labels", Kind.CONV_DIMS, "convolution_dimension_numbers")
FEATURE_GROUP_COUNT = Attribute("feature_group_count", Kind.INT, "feature_group_count", default=1)
BATCH_GROUP_COUNT = Attribute("batch_group_count", Kind.INT, "batch_group_count", default=1)
OPERAND_PRECISION = Attribute("operand_precision", Kind.NAMES, "precision_config.operand_precision", default=(),
                              enum="PrecisionConfig.Precision")
ALGORITHM = Attribute("algorithm", Kind.NAME, "precision_config.algorithm", default="", enum="PrecisionConfig.Algorithm")
CONVOLUTION_KIND = Attribute("convolution_kind", Kind.NAME, "conv_kind", default="", enum="ConvolutionKind")
SPARSITY_CONFIG = Attribute("sparsity_config", Kind.SPARSITY, "sparsity_config", default="")
DOT_DIMS = tuple(
    _ints(f"{side}_{what}_dims", f"dot_dimension_numbers.{side}_{what}_dimensions")
    for side, what in (("lhs", "batch"), ("lhs", "contracting"), ("rhs", "batch"), ("rhs", "contracting")))
RAGGED_DOT_DIMS = tuple(
    _ints(f"{side}_{what}_dims", f"ragged_dot_dimension_numbers.dot_dimension_numbers.{side}_{what}_dimensions")
    for side, what in (("lhs", "batch"), ("lhs", "contracting"), ("rhs", "batch"), ("rhs", "contracting"))) + (
    _ints("lhs_ragged_dims", "ragged_dot_dimension_numbers.lhs_ragged_dimensions"),
    _ints("rhs_group_dims", "ragged_dot_dimension_numbers.rhs_group_dimensions"))
GATHER = (
    _ints("offset_dims", "gather_dimension_numbers.offset_dims", always_printed=True),
    _ints("collapsed_slice_dims", "gather_dimension_numbers.collapsed_slice_dims", always_printed=True),
    _ints("start_index_map", "gather_dimension_numbers.start_index_map", always_printed=True),
    _ints("operand_batching_dims", "gather_dimension_numbers.operand_batching_dims"),
    _ints("start_indices_batching_dims", "gather_dimension_numbers.start_indices_batching_dims"),
    Attribute("index_vector_dim", Kind.INT, "gather_dimension_numbers.index_vector_dim", default=0, always_printed=True),
    _ints("slice_sizes", "gather_slice_sizes", always_printed=True),
    Attribute("indices_are_sorted", Kind.BOOL, "indices_are_sorted", default=False))
SCATTER = (
    _ints("update_window_dims", "scatter_dimension_numbers.update_window_dims", always_printed=True),
    _ints("inserted_window_dims", "scatter_dimension_numbers.inserted_window_dims", always_printed=True),
    _ints("scatter_dims_to_operand_dims", "scatter_dimension_numbers.scatter_dims_to_operand_dims", always_printed=True),
    _ints("input_batching_dims", "scatter_dimension_numbers.input_batching_dims"),
    _ints("scatter_indices_batching_dims", "scatter_dimension_numbers.scatter_indices_batching_dims"),
    Attribute("index_vector_dim", Kind.INT, "scatter_dimension_numbers.index_vector_dim", default=0, always_printed=True),
    Attribute("indices_are_sorted", Kind.BOOL, "indices_are_sorted", default=False),
    Attribute("unique_indices", Kind.BOOL, "unique_indices", default=False))
BATCH_NORM = (Attribute("epsilon", Kind.FLOAT, "epsilon", required=True),
              Attribute("feature_index", Kind.INT, "feature_index", required=True))
DIRECTION = Attribute("direction", Kind.NAME, "comparison_direction", required=True)
COMPARISON_TYPE = Attribute("type", Kind.NAME, "comparison_type", default="")
EXPONENT_BITS = Attribute("exponent_bits", Kind.INT, "exponent_bits", required=True)
MANTISSA_BITS = Attribute("mantissa_bits", Kind.INT, "mantissa_bits", required=True)
RESULT_ACCURACY = Attribute("result_accuracy", Kind.ACCURACY, "result_accuracy", default=ResultAccuracy())
FFT_TYPE = Attribute("fft_type", Kind.NAME, "fft_type", default="FFT", always_printed=True, enum="FftType")
FFT_LENGTH = _ints("fft_length", "fft_length", required=True)
TRIANGULAR_SOLVE = (
    Attribute("left_side", Kind.BOOL, "triangular_solve_options.left_side", default=False),
    Attribute("lower", Kind.BOOL, "triangular_solve_options.lower", default=False),
    Attribute("unit_diagonal", Kind.BOOL, "triangular_solve_options.unit_diagonal", default=False),
    Attribute("transpose_a", Kind.NAME, "triangular_solve_options.transpose_a", default="TRANSPOSE_INVALID",
              always_printed=True, enum="TriangularSolveOptions.Transpose"))
CHOLESKY_LOWER = Attribute("lower", Kind.BOOL, "cholesky_options.lower", default=False)
IS_STABLE = Attribute("is_stable", Kind.BOOL, "is_stable", default=False)
K = Attribute("k", Kind.INT, "k", required=True)
LARGEST = Attribute("largest", Kind.BOOL, "largest", default=False, always_printed=True, text_default=True)
RNG_ALGORITHM = Attribute("algorithm", Kind.NAME, "rng_algorithm", default="rng_default", always_printed=True,
                          enum="RandomAlgorithm")
DISTRIBUTION = Attribute("distribution", Kind.NAME, "distribution", required=True, enum="RandomDistribution")
DELTA = Attribute("delta", Kind.INT, "delta", required=True)
FUSION_KIND = Attribute("kind", Kind.NAME, "fusion_kind", required=True)
OUTPUT_ALIASING = Attribute("output_to_operand_aliasing", Kind.ALIASES, "output_operand_aliasing", default=())
IS_COMPOSITE = Attribute("is_composite", Kind.BOOL, "is_composite", default=False)
CHANNEL_ID = Attribute("channel_id", Kind.INT, "channel_id", default=0)
REPLICA_GROUPS = Attribute("replica_groups", Kind.GROUPS, "collective_device_list", default=ReplicaGroups())
USE_GLOBAL_DEVICE_IDS = Attribute("use_global_device_ids", Kind.BOOL, "use_global_device_ids", default=False)
CONSTRAIN_LAYOUT = Attribute("constrain_layout", Kind.BOOL, "constrain_layout", default=False)
SOURCE_TARGET_PAIRS = Attribute("source_target_pairs", Kind.PAIRS, "source_target_pairs", default=())
PERMUTE_SLICE_SIZES = _ints("slice_sizes", "dynamic_slice_sizes")
IS_HOST_TRANSFER = Attribute("is_host_transfer", Kind.BOOL, "is_host_transfer", default=False)
HAS_DYNAMIC_ROOT = Attribute("has_dynamic_root", Kind.BOOL, "has_dynamic_root", default=False)
INFEED_CONFIG = Attribute("infeed_config", Kind.STRING, "infeed_config", default="")
OUTFEED_CONFIG = Attribute("outfeed_config", Kind.STRING, "outfeed_config", default="")
OUTFEED_SHAPE = Attribute("outfeed_shape", Kind.SHAPE, "outfeed_shape")
ASYNC_THREAD = Attribute("async_execution_thread", Kind.STRING, "async_execution_thread", default="")
PREFETCH_INDEX = Attribute("cross_program_prefetch_index", Kind.INT, "cross_program_prefetch_index")
INFERRED_DIMENSION = Attribute("inferred_dimension", Kind.INT, "")
DOMAIN = Attribute("domain", Kind.DOMAIN, "", required=True)
SCAN = (Attribute("dimensions", Kind.INTS, "dimensions", required=True),
        Attribute("num_carries", Kind.INT, "num_carries", default=0, always_printed=True),
        Attribute("is_reverse", Kind.BOOL, "is_reverse", default=False),
        Attribute("is_associative", Kind.NAME, "is_associative", default="", enum="TriState"))
CUSTOM_CALL = (
    WINDOW, OPTIONAL_DIM_LABELS, FEATURE_GROUP_COUNT, BATCH_GROUP_COUNT, OPERAND_PRECISION,
    Attribute("padding_type", Kind.NAME, "padding_type", default="PADDING_INVALID", enum="PaddingType"),
    Attribute("custom_call_target", Kind.STRING, "custom_call_target", required=True),
    Attribute("operand_layout_constraints", Kind.SHAPES, "operand_shapes_with_layout"),
    Attribute("custom_call_has_side_effect", Kind.BOOL, "custom_call_has_side_effect", default=False),
    OPTIONAL_LITERAL, OUTPUT_ALIASING,
    Attribute("schedule", Kind.NAME, "custom_call_schedule", default="SCHEDULE_NONE", enum="CustomCallSchedule"),
    Attribute("api_version", Kind.NAME, "custom_call_api_version", default="API_VERSION_ORIGINAL",
              enum="CustomCallApiVersion"))
