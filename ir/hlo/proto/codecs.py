"""Attributes in HloInstructionProto: one codec per attributes.Kind, shared by reader and writer.

Which field an attribute lies in, its kind, enum and default come from its declaration (ir/hlo/attributes.py), never from here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any

from nxcc.ir.diagnostics import INVALID_MODULE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import (
    Attribute,
    ConvolutionDimensions,
    Domain,
    Kind,
    OperandAlias,
    PaddingDimension,
    ReplicaGroups,
    ResultAccuracy,
    SliceDimension,
    Window,
    WindowDimension,
)
from nxcc.ir.hlo.operator import Operator
from nxcc.ir.hlo.proto.schema import enum_values, message_type
from nxcc.ir.hlo.proto.shapes import shape_from_proto, shape_to_proto
from nxcc.ir.hlo.proto.sharding import groups_from_proto, groups_to_proto, sharding_from_proto, sharding_to_proto

Read = Callable[[Any], Any]
"""Value of an attribute from an HloInstructionProto; None if it is absent."""
Write = Callable[[Any, Any], None]
"""Put a value into an HloInstructionProto."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How attributes of one kind are read and written: each function binds a declaration first."""

    read: Callable[[Attribute], Read]
    write: Callable[[Attribute], Write]


# Fields


def _setter(path: str) -> Write:
    *parents, field = path.split(".")

    def write(message: Any, value: Any) -> None:
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, field, value)
    return write


def _extender(path: str) -> Write:
    get = attrgetter(path)
    return lambda message, values: get(message).extend(values)


def _read_int(attribute: Attribute) -> Read:
    path, is_element, _ = attribute.proto.partition("[0]")
    get = attrgetter(path)
    if is_element:
        def read_first(message: Any) -> Any:
            values = get(message)
            return values[0] if values else None
        return read_first
    if attribute.default is None and not attribute.required:
        return lambda message: get(message) if message.HasField(path) else None
    absent = attribute.default or 0
    return lambda message: get(message) or absent


def _write_int(attribute: Attribute) -> Write:
    path, is_element, _ = attribute.proto.partition("[0]")
    if is_element:
        extend = _extender(path)
        return lambda message, value: extend(message, (value,))
    return _setter(path)


def _read_channel(attribute: Attribute) -> Read:
    """Numbers below 1 mean that there is no channel; all_reduce_id is the old name."""
    return lambda message: max(0, message.channel_id or message.all_reduce_id)


def _read_plain(attribute: Attribute) -> Read:
    return attrgetter(attribute.proto)


def _write_plain(attribute: Attribute) -> Write:
    return _setter(attribute.proto)


def _read_string(attribute: Attribute) -> Read:
    """Text; fields of type bytes keep what is not UTF-8 as surrogates."""
    get = attrgetter(attribute.proto)

    def read(message: Any) -> str:
        value = get(message)
        return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return read


def _write_string(attribute: Attribute) -> Write:
    put = _setter(attribute.proto)
    get = attrgetter(attribute.proto)

    def write(message: Any, value: str) -> None:
        put(message, value.encode("utf-8", "surrogateescape") if isinstance(get(message), bytes) else value)
    return write


def _read_ints(attribute: Attribute) -> Read:
    get = attrgetter(attribute.proto)
    return lambda message: tuple(get(message))


def _write_ints(attribute: Attribute) -> Write:
    return _extender(attribute.proto)


# Enums


def _after(prefix: str, number_zero: str = "") -> Callable[[str, int], str]:
    """Text is the lower-case name without a prefix; zero, which means unset, has its own."""
    return lambda name, number: name.removeprefix(prefix).lower() if number else number_zero


def _lower(name: str, number: int) -> str:
    return name.lower()


def _verbatim(name: str, number: int) -> str:
    return name


_TEXT_OF_ENUM: dict[str, Callable[[str, int], str]] = {
    "PrecisionConfig.Precision": _lower, "RandomAlgorithm": _lower, "RandomDistribution": _lower,
    "PrecisionConfig.Algorithm": _after("ALG_"), "ConvolutionKind": _after("CONVOLUTION_KIND_"),
    "TriState": _after("TRI_STATE_"),
    "CustomCallApiVersion": lambda name, number: name if number else "API_VERSION_ORIGINAL",
}
"""Enums whose text is not the name of the value."""


@cache
def _enum_texts(enum: str) -> dict[int, str]:
    text = _TEXT_OF_ENUM.get(enum, _verbatim)
    return {number: text(name, number) for number, name in enum_values(enum).items()}


@cache
def _enum_numbers(enum: str) -> dict[str, int]:
    """Where two numbers have one text, the lower one is written: zero takes no bytes."""
    return {text: number for number, text in sorted(_enum_texts(enum).items(), reverse=True)}


def enum_words(enum: str) -> tuple[str, ...]:
    """What HLO text calls the values of an enum, in the order of their numbers; unset values have no word."""
    return tuple(dict.fromkeys(text for text in _enum_texts(enum).values() if text))


def _enum_text(enum: str, number: int) -> str:
    text = _enum_texts(enum).get(number)
    if text is None:
        raise CompileError(INVALID_MODULE, f"{enum} has no value {number}")
    return text


def _enum_number(enum: str, text: str) -> int:
    number = _enum_numbers(enum).get(text)
    if number is None:
        raise CompileError(INVALID_MODULE, f"{enum} has no value {text!r}", why="values are " + ", ".join(_enum_numbers(enum)))
    return number


def _read_name(attribute: Attribute) -> Read:
    get, enum = attrgetter(attribute.proto), attribute.enum
    return (lambda message: _enum_text(enum, get(message))) if enum else get


def _write_name(attribute: Attribute) -> Write:
    put, enum = _setter(attribute.proto), attribute.enum
    return (lambda message, value: put(message, _enum_number(enum, value))) if enum else put


def _read_names(attribute: Attribute) -> Read:
    """Values that are all zero say nothing, as an empty list does."""
    get, enum = attrgetter(attribute.proto), attribute.enum

    def read(message: Any) -> tuple[str, ...]:
        numbers = get(message)
        return tuple(_enum_text(enum, n) for n in numbers) if any(numbers) else ()
    return read


def _write_names(attribute: Attribute) -> Write:
    extend, enum = _extender(attribute.proto), attribute.enum
    return lambda message, values: extend(message, (_enum_number(enum, v) for v in values))


# Records


def _read_window(attribute: Attribute) -> Read:
    get = attrgetter(attribute.proto)
    return lambda message: Window(tuple(
        WindowDimension(d.size, d.stride or 1, d.padding_low, d.padding_high, d.window_dilation or 1, d.base_dilation or 1,
                        d.window_reversal) for d in get(message).dimensions))


def _write_window(attribute: Attribute) -> Write:
    get = attrgetter(attribute.proto)

    def write(message: Any, value: Window) -> None:
        for d in value.dims:
            get(message).dimensions.add(
                size=d.size, stride=d.stride, padding_low=d.padding_low, padding_high=d.padding_high,
                window_dilation=d.window_dilation, base_dilation=d.base_dilation, window_reversal=d.reversal)
    return write


_CONVOLUTION_FIELDS = (
    ("input_batch", "input_batch_dimension"), ("input_feature", "input_feature_dimension"),
    ("kernel_input_feature", "kernel_input_feature_dimension"), ("kernel_output_feature", "kernel_output_feature_dimension"),
    ("output_batch", "output_batch_dimension"), ("output_feature", "output_feature_dimension"))
_CONVOLUTION_LISTS = (("input_spatial", "input_spatial_dimensions"), ("kernel_spatial", "kernel_spatial_dimensions"),
                      ("output_spatial", "output_spatial_dimensions"))


def _read_conv_dims(attribute: Attribute) -> Read:
    path = attribute.proto

    def read(message: Any) -> ConvolutionDimensions | None:
        if not message.HasField(path):
            return None
        numbers = getattr(message, path)
        values: dict[str, Any] = {name: getattr(numbers, field) for name, field in _CONVOLUTION_FIELDS}
        values |= {name: tuple(getattr(numbers, field)) for name, field in _CONVOLUTION_LISTS}
        return ConvolutionDimensions(**values)
    return read


def _write_conv_dims(attribute: Attribute) -> Write:
    def write(message: Any, value: ConvolutionDimensions) -> None:
        numbers = getattr(message, attribute.proto)
        numbers.SetInParent()
        for name, field in _CONVOLUTION_FIELDS:
            setattr(numbers, field, getattr(value, name))
        for name, field in _CONVOLUTION_LISTS:
            getattr(numbers, field).extend(getattr(value, name))
    return write


def _read_padding(attribute: Attribute) -> Read:
    get = attrgetter(attribute.proto)
    return lambda message: tuple(PaddingDimension(d.edge_padding_low, d.edge_padding_high, d.interior_padding)
                                 for d in get(message).dimensions)


def _write_padding(attribute: Attribute) -> Write:
    def write(message: Any, value: tuple[PaddingDimension, ...]) -> None:
        config = getattr(message, attribute.proto)
        config.SetInParent()
        for d in value:
            config.dimensions.add(edge_padding_low=d.low, edge_padding_high=d.high, interior_padding=d.interior)
    return write


def _read_slices(attribute: Attribute) -> Read:
    get = attrgetter(attribute.proto)
    return lambda message: tuple(SliceDimension(d.start, d.limit, d.stride or 1) for d in get(message))


def _write_slices(attribute: Attribute) -> Write:
    def write(message: Any, value: tuple[SliceDimension, ...]) -> None:
        for d in value:
            getattr(message, attribute.proto).add(start=d.start, limit=d.limit, stride=d.stride)
    return write


def _write_groups(attribute: Attribute) -> Write:
    return lambda message, value: groups_to_proto(value, message)


def _read_groups(attribute: Attribute) -> Read:
    def read(message: Any) -> ReplicaGroups:
        return groups_from_proto(message)
    return read


def _read_pairs(attribute: Attribute) -> Read:
    get = attrgetter(attribute.proto)
    return lambda message: tuple((pair.source, pair.target) for pair in get(message))


def _write_pairs(attribute: Attribute) -> Write:
    def write(message: Any, value: tuple[tuple[int, int], ...]) -> None:
        for source, target in value:
            getattr(message, attribute.proto).add(source=source, target=target)
    return write


def _read_shape(attribute: Attribute) -> Read:
    path = attribute.proto
    return lambda message: shape_from_proto(getattr(message, path)) if message.HasField(path) else None


def _write_shape(attribute: Attribute) -> Write:
    return lambda message, value: shape_to_proto(value, getattr(message, attribute.proto))


def _read_shapes(attribute: Attribute) -> Read:
    """Present, though it may be empty, if constrain_layout says so."""
    get = attrgetter(attribute.proto)
    return lambda message: tuple(map(shape_from_proto, get(message))) if message.constrain_layout else None


def _write_shapes(attribute: Attribute) -> Write:
    def write(message: Any, value: tuple[Any, ...]) -> None:
        message.constrain_layout = True
        for shape in value:
            shape_to_proto(shape, getattr(message, attribute.proto).add())
    return write


def _read_aliases(attribute: Attribute) -> Read:
    get = attrgetter(attribute.proto)
    return lambda message: tuple(OperandAlias(tuple(a.output_shape_index), a.operand_index, tuple(a.operand_shape_index))
                                 for a in get(message))


def _write_aliases(attribute: Attribute) -> Write:
    def write(message: Any, value: tuple[OperandAlias, ...]) -> None:
        for a in value:
            getattr(message, attribute.proto).add(output_shape_index=a.output_index, operand_index=a.operand,
                                                  operand_shape_index=a.operand_index)
    return write


def _read_accuracy(attribute: Attribute) -> Read:
    get = attrgetter(attribute.proto)

    def read(message: Any) -> ResultAccuracy:
        accuracy = get(message)
        if accuracy.HasField("tolerance"):
            tolerance = accuracy.tolerance
            return ResultAccuracy("", (tolerance.atol, tolerance.rtol, tolerance.ulps))
        return ResultAccuracy(_enum_text("ResultAccuracy.Mode", accuracy.mode).lower() if accuracy.mode else "")
    return read


def _write_accuracy(attribute: Attribute) -> Write:
    def write(message: Any, value: ResultAccuracy) -> None:
        accuracy = getattr(message, attribute.proto)
        if value.tolerance:
            accuracy.tolerance.atol, accuracy.tolerance.rtol, accuracy.tolerance.ulps = value.tolerance
        else:
            accuracy.mode = _enum_number("ResultAccuracy.Mode", value.mode.upper())
    return write


def _read_domain(attribute: Attribute) -> Read:
    """Text calls `entry` what the protobuf calls exit, and the other way round; records follow the text."""
    none = message_type("StackFrameIndexProto")()

    def read(message: Any) -> Domain:
        return Domain(sharding_from_proto(message.domain_exit_sharding, none),
                      sharding_from_proto(message.domain_entry_sharding, none))
    return read


def _write_domain(attribute: Attribute) -> Write:
    def write(message: Any, value: Domain) -> None:
        message.domain_exit_sharding.SetInParent()
        message.domain_entry_sharding.SetInParent()
        sharding_to_proto(value.entry, message.domain_exit_sharding)
        sharding_to_proto(value.exit, message.domain_entry_sharding)
    return write


# Structured sparsity, kept as text


_SPARSITY = (("dimension", "dimension"), ("stride", "stride"), ("idx", "idx"))


def _read_sparsity(attribute: Attribute) -> Read:
    def read(message: Any) -> str:
        config = getattr(message, attribute.proto)
        sides = [f"{side}={_sparsity_text(getattr(config, side))}" for side in ("lhs", "rhs") if config.HasField(side)]
        return "{" + " ".join(sides) + "}" if sides else ""
    return read


def _sparsity_text(side: Any) -> str:
    rest = "".join(f" {key}={getattr(side, field)}" for key, field in _SPARSITY if getattr(side, field))
    return f"{{sparsity={side.num_non_zero}x{side.block_size}{rest}}}"


def _write_sparsity(attribute: Attribute) -> Write:
    def write(message: Any, value: str) -> None:
        import re
        config = getattr(message, attribute.proto)
        for side, body in re.findall(r"(lhs|rhs)=\{([^{}]*)\}", value):
            target = getattr(config, side)
            target.SetInParent()
            for key, number in re.findall(r"(\w+)=([0-9x]+)", body):
                if key == "sparsity":
                    target.num_non_zero, target.block_size = map(int, number.split("x"))
                else:
                    setattr(target, dict(_SPARSITY)[key], int(number))
    return write


CODECS: dict[Kind, Codec] = {
    Kind.INT: Codec(_read_int, _write_int), Kind.BOOL: Codec(_read_plain, _write_plain),
    Kind.FLOAT: Codec(_read_plain, _write_plain), Kind.STRING: Codec(_read_string, _write_string),
    Kind.NAME: Codec(_read_name, _write_name), Kind.INTS: Codec(_read_ints, _write_ints),
    Kind.NAMES: Codec(_read_names, _write_names), Kind.WINDOW: Codec(_read_window, _write_window),
    Kind.CONV_DIMS: Codec(_read_conv_dims, _write_conv_dims), Kind.PADDING: Codec(_read_padding, _write_padding),
    Kind.SLICES: Codec(_read_slices, _write_slices), Kind.GROUPS: Codec(_read_groups, _write_groups),
    Kind.PAIRS: Codec(_read_pairs, _write_pairs), Kind.SHAPE: Codec(_read_shape, _write_shape),
    Kind.SHAPES: Codec(_read_shapes, _write_shapes), Kind.ALIASES: Codec(_read_aliases, _write_aliases),
    Kind.ACCURACY: Codec(_read_accuracy, _write_accuracy), Kind.DOMAIN: Codec(_read_domain, _write_domain),
    Kind.SPARSITY: Codec(_read_sparsity, _write_sparsity)}
"""Literals have no codec: their payloads never pass through the protobuf library (see literals.py)."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One attribute of one operator, bound to its field."""

    attribute: Attribute
    read: Read
    write: Write


@cache
def attributes_of(operator: Operator) -> tuple[Bound, ...]:
    """How to read and write the attributes of an operator; those without a place in the protobuf and literals are left out."""
    bound = []
    for attribute in operator.attributes:
        if attribute.kind is Kind.LITERAL or not (attribute.proto or attribute.kind is Kind.DOMAIN):
            continue
        codec = CODECS[attribute.kind]
        read = _read_channel if attribute.proto == "channel_id" else codec.read
        bound.append(Bound(attribute, read(attribute), codec.write(attribute)))
    return tuple(bound)
