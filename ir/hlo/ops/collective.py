"""Collectives and transfers, with one replica and one partition.

Then each has a plain meaning: what is gathered or reduced over one device is the operand itself, or device 0's part of
it. Where a result needs the data of more devices, evaluation refuses (NXC0301), as it does where data would have to come
from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from nxcc.ir.diagnostics import UNSUPPORTED_MODULE, CompileError
from nxcc.ir.dtypes import U32
from nxcc.ir.hlo.attributes import (
    CHANNEL_ID,
    CONSTRAIN_LAYOUT,
    DIMENSIONS,
    HAS_DYNAMIC_ROOT,
    INFEED_CONFIG,
    IS_HOST_TRANSFER,
    OPTIONAL_DIMENSIONS,
    OUTFEED_CONFIG,
    OUTFEED_SHAPE,
    PERMUTE_SLICE_SIZES,
    REPLICA_GROUPS,
    SOURCE_TARGET_PAIRS,
    USE_GLOBAL_DEVICE_IDS,
    ReplicaGroups,
)
from nxcc.ir.hlo.module import Computation, Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.checks import (
    compatible,
    need,
    need_arrays,
    need_called,
    need_compatible,
    need_dimension,
    need_integer,
    need_producer,
)
from nxcc.ir.hlo.ops.control import check_start, started
from nxcc.ir.literals import Array
from nxcc.ir.shapes import TOKEN_SHAPE, Shape, array, tuple_of

_GROUPED = (CHANNEL_ID, REPLICA_GROUPS, CONSTRAIN_LAYOUT)
_REDUCING = (*_GROUPED, USE_GLOBAL_DEVICE_IDS)
_GATHERING = (*_GROUPED, DIMENSIONS, USE_GLOBAL_DEVICE_IDS)
_PERMUTING = (CHANNEL_ID, SOURCE_TARGET_PAIRS, PERMUTE_SLICE_SIZES)
_TRANSFER = (CHANNEL_ID, IS_HOST_TRANSFER)


def group_size(groups: ReplicaGroups) -> int | None:
    """Devices in a group; None where the groups leave it open (all replicas, or named mesh axes)."""
    if groups.iota is not None:
        return groups.iota[1]
    return len(groups.groups[0]) if groups.groups else None


def needs_others(instruction: Instruction) -> bool:
    """Whether a collective says that device 0 gets data of other devices, which one device alone goes without."""
    declared = instruction.operator.attributes
    if SOURCE_TARGET_PAIRS in declared:
        return any(target == 0 != source for source, target in instruction.attribute("source_target_pairs"))
    if REPLICA_GROUPS not in declared:
        return False
    groups: ReplicaGroups = instruction.attribute("replica_groups")
    if groups.iota is not None:
        return groups.iota[1] > 1
    return bool(groups.mesh) or any(0 in group and len(group) > 1 for group in groups.groups)


def _joined(shapes: Sequence[Shape]) -> Shape:
    return shapes[0] if len(shapes) == 1 else tuple_of(*shapes)


def _joined_values(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else values


def _parts(shape: Shape) -> tuple[Shape, ...]:
    return shape.elements if shape.is_tuple else (shape,)


def _operand_shapes(instruction: Instruction) -> list[Shape]:
    return [o.shape for o in instruction.operands]


def _refuse(instruction: Instruction, why: str) -> NoReturn:
    raise CompileError(UNSUPPORTED_MODULE, f"{instruction.opcode} cannot be evaluated on one device",
                       instruction.name, str(instruction.location), why)


# all-reduce


def _all_reduce_shape(*shapes: Shape, called: Sequence[Computation], **_: Any) -> Shape:
    need_arrays(shapes)
    need_called(called, 1)
    # the combiner's own type may differ from the data's: XLA accepts it, it is the kind of reduction that counts
    need(len(called[0].parameters) == 2, f"computation {called[0].name} must take 2 parameters")
    return _joined(shapes)


def _check_global_ids(instruction: Instruction) -> None:
    if instruction.attribute("use_global_device_ids"):
        need(instruction.attribute("channel_id") > 0, "use_global_device_ids needs a channel_id")


def _second(x: Shape) -> Shape:
    need(x.is_tuple and len(x.elements) >= 2, f"operand must be the tuple of a start, it is {x}")
    return x.elements[1]


def _is_pair(start: Instruction) -> bool:
    """True if a start is declared as (operands, result, contexts...), false if as the plain result."""
    return not compatible(start.shape, _joined(_operand_shapes(start)))


def _check_start(instruction: Instruction) -> None:
    operands = _joined(_operand_shapes(instruction))
    if _is_pair(instruction):
        check_start(instruction, operands, operands)


def _check_all_reduce_start(instruction: Instruction) -> None:
    _check_global_ids(instruction)
    _all_reduce_shape(*_operand_shapes(instruction), called=instruction.called)
    _check_start(instruction)


def _paired(instruction: Instruction, operands: tuple[Any, ...], result: Any) -> Any:
    return started(instruction, _joined_values(operands), result) if _is_pair(instruction) else result


def _check_done(opcode: str) -> Callable[[Instruction], None]:
    """The result is the start's, out of its tuple where it has one."""
    check_producer = need_producer(opcode)

    def check(instruction: Instruction) -> None:
        check_producer(instruction)
        start = instruction.operands[0]
        result = _second(start.shape) if _is_pair(start) else start.shape
        need_compatible(instruction.shape, result, "result")
    return check


def _done(instruction: Instruction, value: Any) -> Any:
    return value[1] if _is_pair(instruction.operands[0]) else value


operator("all-reduce", (0, None), attributes=_REDUCING, called=("to_apply",), calls_back=True, shape=_all_reduce_shape,
         check=_check_global_ids, evaluate=lambda i, *values, run: _joined_values(values))
operator("all-reduce-start", (0, None), attributes=_REDUCING, called=("to_apply",), calls_back=True,
         check=_check_all_reduce_start, evaluate=lambda i, *values, run: _paired(i, values, _joined_values(values)))
operator("all-reduce-done", 1, check=_check_done("all-reduce-start"), evaluate=_done)


# all-gather, reduce-scatter: one dimension grows or shrinks by the size of the group


def _check_scaled(instruction: Instruction, smaller: Sequence[Shape], larger: Sequence[Shape]) -> None:
    """Pairs of shapes that differ only in one dimension, by a whole factor: the number of devices of a group.

    A group of one replica may have more devices, one a partition; then any factor will do. torch_xla hands a scalar along, the
    token that orders collectives: it has no dimension and stays as it is.
    """
    factor = group_size(instruction.attribute("replica_groups")) or 1
    _check_global_ids(instruction)
    need(len(smaller) == len(larger), f"{len(smaller)} operands must give as many results")
    need_arrays((*smaller, *larger))
    for small, large in zip(smaller, larger, strict=True):
        if small.rank == large.rank == 0 and small.dtype is large.dtype and len(smaller) > 1:
            continue
        d = need_dimension(instruction.attribute("dimensions"), small.rank)
        same = (small.dtype is large.dtype and small.rank == large.rank and small.dims[:d] == large.dims[:d]
                and small.dims[d + 1:] == large.dims[d + 1:])
        need(same, f"{small} and {large} must agree in type and in all dimensions but {d}")
        scaled = large.dims[d] % max(small.dims[d], 1) == 0 if factor == 1 else large.dims[d] == small.dims[d] * factor
        need(scaled, f"dimension {d} of {large} must be that of {small} times the size of a group")


def _check_all_gather(instruction: Instruction) -> None:
    _check_scaled(instruction, _operand_shapes(instruction), _parts(instruction.shape))


def _check_all_gather_start(instruction: Instruction) -> None:
    operands = _operand_shapes(instruction)
    declared = instruction.shape
    need(declared.is_tuple and len(declared.elements) >= 2, f"result must be (operands, results), it is {declared}")
    check_start(instruction, _joined(operands), declared.elements[1])
    _check_scaled(instruction, operands, _parts(declared.elements[1]))


def _check_reduce_scatter(instruction: Instruction) -> None:
    need_called(instruction.called, 1)
    _check_scaled(instruction, _parts(instruction.shape), _operand_shapes(instruction))


def _refuse_gather(instruction: Instruction) -> None:
    """Data of several devices cannot come together."""
    is_start = instruction.opcode == "all-gather-start"
    results = instruction.shape.elements[1] if is_start else instruction.shape
    if [shape.dims for shape in _operand_shapes(instruction)] != [shape.dims for shape in _parts(results)]:
        _refuse(instruction, f"the result {results} takes the data of several devices")


def _first_parts(instruction: Instruction, values: tuple[Any, ...]) -> Any:
    """One replica reduces nothing and keeps the part of device 0, also where the shapes speak of more devices."""
    d = instruction.attribute("dimensions")[0]
    return _joined_values(tuple(np.take(value, range(shape.dims[d]), d) if shape.rank else value
                                for value, shape in zip(values, _parts(instruction.shape), strict=True)))


def _all_gather(instruction: Instruction, *values: Any) -> Any:
    _refuse_gather(instruction)
    return _joined_values(values)


def _all_gather_start(instruction: Instruction, *values: Any) -> Any:
    return started(instruction, _joined_values(values), _all_gather(instruction, *values))


operator("all-gather", (1, None), attributes=_GATHERING, check=_check_all_gather, refuse=_refuse_gather, evaluate=_all_gather)
operator("all-gather-start", (1, None), attributes=_GATHERING, check=_check_all_gather_start, refuse=_refuse_gather,
         evaluate=_all_gather_start)
operator("all-gather-done", 1, shape=_second, check=need_producer("all-gather-start"),
         evaluate=lambda i, x: x[1])
operator("reduce-scatter", (1, None), attributes=(*_REDUCING, DIMENSIONS), called=("to_apply",), calls_back=True,
         check=_check_reduce_scatter, evaluate=lambda i, *values, run: _first_parts(i, values))


# all-to-all, broadcast, permute


def _all_to_all_shape(*shapes: Shape, dimensions: tuple[int, ...], replica_groups: ReplicaGroups, **_: Any) -> Shape:
    need_arrays(shapes)
    if not dimensions:
        for shape in shapes[1:]:
            need_compatible(shape, shapes[0], "each operand")
        need(len(shapes) == (group_size(replica_groups) or len(shapes)),
             f"{group_size(replica_groups)} devices in a group need as many operands, {len(shapes)} are given")
        return tuple_of(*shapes)
    need(len(shapes) == 1, "all-to-all over a dimension takes one operand")
    d = need_dimension(dimensions, shapes[0].rank)
    parts = group_size(replica_groups) or 1
    need(shapes[0].dims[d] % parts == 0, f"dimension {d} of {shapes[0]} cannot be split in {parts}")
    return shapes[0]


def _refuse_exchange(instruction: Instruction) -> None:
    devices = max(len(instruction.operands), group_size(instruction.attribute("replica_groups")) or 1)
    if devices > 1:
        _refuse(instruction, f"it exchanges the data of {devices} devices")


def _all_to_all(instruction: Instruction, *values: Any) -> Any:
    _refuse_exchange(instruction)
    return values[0] if instruction.attribute("dimensions") else values


def _refuse_in_place(instruction: Instruction) -> None:
    if _is_in_place(_operand_shapes(instruction)):
        _refuse(instruction, "its in-place form writes what another device sends")


def _permuted(instruction: Instruction, values: tuple[Any, ...]) -> Any:
    """Only data sent from device 0 to itself arrives; a device that receives nothing has zeros."""
    _refuse_in_place(instruction)
    arrives = (0, 0) in instruction.attribute("source_target_pairs")
    return _joined_values(values if arrives else tuple(np.zeros_like(value) for value in values))


def _check_pairs(instruction: Instruction) -> None:
    pairs = instruction.attribute("source_target_pairs")
    need(all(len(pair) == 2 for pair in pairs), "source_target_pairs must hold pairs")
    for what, devices in (("source", [s for s, _ in pairs]), ("target", [t for _, t in pairs])):
        need(len(set(devices)) == len(devices), f"source_target_pairs names a {what} twice")


def _is_in_place(shapes: Sequence[Shape]) -> bool:
    """The form (input, output, input offsets, output offsets), which writes a slice of its output operand."""
    return len(shapes) == 4 and shapes[2].is_tuple and shapes[3].is_tuple


def _permute_shape(*shapes: Shape, **_: Any) -> Shape:
    return shapes[1] if _is_in_place(shapes) else _joined(shapes)


def _check_permute_start(instruction: Instruction) -> None:
    _check_pairs(instruction)
    shapes = _operand_shapes(instruction)
    if _is_in_place(shapes):
        check_start(instruction, shapes[0], shapes[1])
    else:
        _check_start(instruction)


def _ragged_shape(x: Shape, output: Shape, *offsets_and_sizes: Shape, **_: Any) -> Shape:
    need_arrays((x, output, *offsets_and_sizes))
    need(x.rank > 0 and x.dtype is output.dtype and x.dims[1:] == output.dims[1:],
         f"input and output must agree but for their first dimension, they are {x} and {output}")
    for shape in offsets_and_sizes:
        need_integer(shape, "offset or size")
        need(shape.dims == offsets_and_sizes[0].dims, "offsets and sizes must have the same dimensions")
    return output


def _refuse_ragged(instruction: Instruction) -> None:
    if instruction.operands[2].shape.rank != 1 or (group_size(instruction.attribute("replica_groups")) or 1) > 1:
        _refuse(instruction, "it exchanges the data of several devices")


def _ragged(instruction: Instruction, x: Array, output: Array, input_offsets: Array, send_sizes: Array,
            output_offsets: Array, recv_sizes: Array) -> Array:
    """Rows that a slice has beyond either array are left out."""
    _refuse_ragged(instruction)
    result = np.array(output)
    for source, size, target in zip(input_offsets, send_sizes, output_offsets, strict=True):
        before = min(int(source), int(target), 0)
        last = min(int(size), len(x) - int(source), len(result) - int(target))
        if last > -before:
            result[int(target) - before:int(target) + last] = x[int(source) - before:int(source) + last]
    return result


operator("all-to-all", (1, None), attributes=(*_GROUPED, OPTIONAL_DIMENSIONS), shape=_all_to_all_shape,
         refuse=_refuse_exchange, evaluate=_all_to_all)
operator("collective-broadcast", (1, None), attributes=(*_GROUPED, HAS_DYNAMIC_ROOT),
         shape=lambda *shapes, **_: _joined(shapes), evaluate=lambda i, *values: _joined_values(values))
operator("collective-permute", (1, None), attributes=_PERMUTING, shape=_permute_shape,
         check=_check_pairs, refuse=_refuse_in_place, evaluate=lambda i, *values: _permuted(i, values))
operator("collective-permute-start", (1, None), attributes=_PERMUTING, check=_check_permute_start, refuse=_refuse_in_place,
         evaluate=lambda i, *values: _paired(i, values, _permuted(i, values)))
operator("collective-permute-done", 1, check=_check_done("collective-permute-start"), evaluate=_done)
operator("ragged-all-to-all", 6, attributes=_GROUPED, shape=_ragged_shape, refuse=_refuse_ragged, evaluate=_ragged)
operator("partition-id", 0, shape=lambda: array(U32), evaluate=lambda i: np.zeros((), np.uint32))
operator("replica-id", 0, shape=lambda: array(U32), evaluate=lambda i: np.zeros((), np.uint32))


# transfers to and from other devices and the host


def _need_token(shape: Shape) -> None:
    need(shape.is_token, f"the last operand must be a token, it is {shape}")


def _send_shape(x: Shape, token: Shape, **_: Any) -> Shape:
    _need_token(token)
    return tuple_of(x, array(U32), TOKEN_SHAPE)


def _check_recv(instruction: Instruction) -> None:
    _need_token(instruction.operands[0].shape)
    elements = instruction.shape.elements
    fits = len(elements) == 3 and compatible(elements[1], array(U32)) and elements[2].is_token
    need(fits, f"result must be (data, u32[], token[]), it is {instruction.shape}")


def _recv_done_shape(x: Shape, **_: Any) -> Shape:
    need(x.is_tuple and len(x.elements) == 3, f"operand must be the tuple of a recv, it is {x}")
    return tuple_of(x.elements[0], TOKEN_SHAPE)


def _send_done_shape(x: Shape, **_: Any) -> Shape:
    need(x.is_tuple and len(x.elements) == 3, f"operand must be the tuple of a send, it is {x}")
    return TOKEN_SHAPE


def _check_infeed(instruction: Instruction) -> None:
    _need_token(instruction.operands[0].shape)
    elements = instruction.shape.elements
    if len(elements) != 2 or not elements[1].is_token:
        raise ShapeError(f"result must be (data, token[]), it is {instruction.shape}")


def _outfeed_shape(x: Shape, token: Shape, **_: Any) -> Shape:
    _need_token(token)
    return TOKEN_SHAPE


def _no_data(instruction: Instruction, *values: Any) -> NoReturn:
    _refuse(instruction, "its data comes from outside the module")


operator("send", 2, attributes=_TRANSFER, side_effect=True, shape=_send_shape,
         evaluate=lambda i, x, token: (x, np.zeros((), np.uint32), None))
operator("send-done", 1, attributes=_TRANSFER, side_effect=True, shape=_send_done_shape, evaluate=lambda i, x: None)
operator("recv", 1, attributes=_TRANSFER, side_effect=True, check=_check_recv, refuse=_no_data, evaluate=_no_data)
operator("recv-done", 1, attributes=_TRANSFER, side_effect=True, shape=_recv_done_shape, refuse=_no_data, evaluate=_no_data)
operator("infeed", 1, attributes=(INFEED_CONFIG,), side_effect=True, check=_check_infeed, refuse=_no_data, evaluate=_no_data)
operator("outfeed", 2, attributes=(OUTFEED_SHAPE, OUTFEED_CONFIG), side_effect=True, shape=_outfeed_shape,
         evaluate=lambda i, x, token: None)
