"""Vector engine, and the forms that GpSimd shares with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from nxcc.backends.isa.instructions import vector as isa
from nxcc.backends.isa.instructions.vector import GPSIMD_OPS
from nxcc.backends.simulator.engines import alu
from nxcc.backends.simulator.memory import Array, View, invalid, merge, raw, refine, storage
from nxcc.backends.simulator.numerics import constant, immediate, narrow, widen
from nxcc.backends.simulator.operation import Kernel, Operation, Prepared, semantics
from nxcc.ir.dtypes import F32, DType


def _same(x: Array) -> Array:
    return x


@semantics(isa.TENSOR_TENSOR)
def tensor_tensor(op: Operation) -> Prepared:
    name = op.field("op")
    alu.check_engine(op, name)
    views = op.aligned("a", "b", "out")
    dtypes = tuple(op.pattern(n).dtype for n in ("a", "b", "out"))
    if alu.is_bitwise(name):
        alu.as_raw(views, dtypes)
        kernel: Kernel = alu.BITS[name]
    elif op.is_native_integer and name not in GPSIMD_OPS:
        views[1].dtype = views[2].dtype = views[0].dtype
        kernel = _integer_store(name)
    else:
        kernel = alu.binary_kernel(op, (dtypes[0], dtypes[1], dtypes[2]), views[0].shape, name)
    return Prepared(kernel, tuple(views))


def _integer_store(name: str) -> alu.Binary:
    function = alu.ARITHMETIC[name]
    return (lambda x, y, out: np.copyto(out, function(x, y, None))) if name in alu.TRUTH else function  # type: ignore[arg-type]


@semantics(isa.TENSOR_SCALAR)
def tensor_scalar(op: Operation) -> Prepared:
    op0, op1 = op.field("op0"), op.field("op1")
    alu.check_engine(op, op0, op1)
    data, out = op.aligned("data", "out")
    dtypes = [op.pattern("data").dtype, op.pattern("out").dtype]
    if alu.is_bitwise(op0, op1):
        alu.as_raw([data, out], dtypes)
        return _integer_tensor_scalar(op, data, out, alu.BITS)
    if op.is_native_integer and not {op0, op1} & {*GPSIMD_OPS}:
        out.dtype = data.dtype
        return _integer_tensor_scalar(op, data, out, alu.ARITHMETIC)
    return _float_tensor_scalar(op, data, out)


def _integer_tensor_scalar(op: Operation, data: View, out: View, table: dict[str, alu.Binary]) -> Prepared:
    first, second = (alu.ordered(table[op.field(f"op{i}")], op.field(f"reverse{i}")) for i in (0, 1))
    s0, s1 = alu.integer_scalar(op, 0, data), alu.integer_scalar(op, 1, data)
    value0, value1, work = s0.value, s1.value, op.scratch.array("result", data.shape, data.dtype)
    truth0, truth1 = op.field("op0") in alu.TRUTH, op.field("op1") in alu.TRUTH
    flags = op.scratch.array("flags", data.shape, np.bool_)

    def apply(function: alu.Binary, truth: bool, x: Array, y: Any, to: Array) -> None:
        function(x, y, flags if truth else to)
        if truth:
            np.copyto(to, flags)

    def kernel(x: Array, scalar0: Array | None, scalar1: Array | None, to: Array) -> None:
        apply(first, truth0, x, value0(scalar0), work)
        apply(second, truth1, work, value1(scalar1), to)
    return Prepared(kernel, (data, s0.view, s1.view, out))


def _float_tensor_scalar(op: Operation, data: View, out: View) -> Prepared:
    name0, name1 = op.field("op0"), op.field("op1")
    s0, s1 = alu.float_scalar(op, 0, data), alu.float_scalar(op, 1, data)
    load = widen(op.pattern("data").dtype, data.shape, op.scratch, "a") or _same
    out_dtype = op.pattern("out").dtype
    value0, value1 = s0.value, s1.value
    if name1 == "bypass" and not op.field("reverse1"):
        single = alu.ordered(alu.float_store(op, out_dtype, data.shape, name0), op.field("reverse0"))
        return Prepared(lambda x, a, b, to: single(load(x), value0(a), to), (data, s0.view, s1.view, out))
    first = alu.ordered(alu.ARITHMETIC[name0], op.field("reverse0"))
    last = alu.ordered(alu.float_store(op, out_dtype, data.shape, name1), op.field("reverse1"))
    work = op.scratch.array("first", data.shape)

    def kernel(x: Array, a: Array | None, b: Array | None, to: Array) -> None:
        first(load(x), value0(a), work)
        last(work, value1(b), to)
    return Prepared(kernel, (data, s0.view, s1.view, out))


@semantics(isa.SCALAR_TENSOR_TENSOR)
def scalar_tensor_tensor(op: Operation) -> Prepared:
    data, other, out = op.aligned("data", "b", "out")
    name0, name1 = op.field("op0"), op.field("op1")
    alu.check_engine(op, name0, name1)
    if alu.is_bitwise(name0, name1):
        raise invalid("scalar_tensor_tensor takes arithmetic operators only")
    s0 = alu.float_scalar(op, 0, data)
    load_a = widen(op.pattern("data").dtype, data.shape, op.scratch, "a") or _same
    load_b = widen(op.pattern("b").dtype, data.shape, op.scratch, "b") or _same
    first = alu.ordered(alu.ARITHMETIC[name0], op.field("reverse0"))
    last = alu.ordered(alu.float_store(op, op.pattern("out").dtype, data.shape, name1), op.field("reverse1"))
    work, value0 = op.scratch.array("first", data.shape), s0.value

    def kernel(x: Array, a: Array | None, b: Array, to: Array) -> None:
        first(load_a(x), value0(a), work)
        last(work, load_b(b), to)
    return Prepared(kernel, (data, s0.view, other, out))


@semantics(isa.TENSOR_REDUCE)
def tensor_reduce(op: Operation) -> Prepared:
    pattern, out_pattern, name = op.pattern("data"), op.pattern("out"), op.field("op")
    axes = op.field("axes")
    if not 0 < axes <= max(len(pattern.dims), 1):
        raise invalid(f"cannot reduce {axes} of {len(pattern.dims)} free dimensions")
    kept, reduced = pattern.dims[:-axes], pattern.dims[-axes:] or ((1, 1),)
    kept_dims, out_dims = refine([kept, out_pattern.dims])
    sizes, (strides,) = merge([size for _, size in reduced], [[stride for stride, _ in reduced]])
    reduced_dims = list(zip(strides, sizes, strict=True)) or [(1, 1)]
    data, out = op.view(pattern, [*kept_dims, *reduced_dims]), op.view(out_pattern, out_dims)
    axis = tuple(range(1 + len(kept_dims), len(data.shape)))
    if data.shape[0] != out.shape[0]:
        raise invalid("operands differ in their number of partitions")
    return Prepared(reduce_kernel(op, (data, out), name, axis), (data, out))


def reduce_kernel(op: Operation, views: tuple[View, View], name: str, axis: tuple[int, ...]) -> Kernel:
    """kernel(data, out) that reduces over `axis`, which `out` lacks; the views become raw or integer where it must be."""
    data, out = views
    shape = tuple(size for k, size in enumerate(data.shape) if k not in axis)
    dtype, out_dtype = op.pattern("data").dtype, op.pattern("out").dtype
    reduce = alu.REDUCTIONS[name]
    negate = op.instruction.fields.get("negate", False)
    if alu.is_bitwise(name):
        alu.as_raw(views, (dtype, out_dtype))
        return lambda x, to: reduce(x, axis, to)
    if op.is_native_integer:
        out.dtype = data.dtype
        return _integer_reduce(name, axis, negate)
    load = widen(dtype, data.shape, op.scratch, "a") or _same
    work, store = op.scratch.array("result", shape), narrow(out_dtype, shape, op.scratch)
    target = out_dtype is F32

    def kernel(x: Array, to: Array) -> None:
        result = to if target else work
        reduce(load(x), axis, result)
        if negate:
            np.negative(result, result)
        if not target:
            store(result, to)
    return kernel


def _integer_reduce(name: str, axis: tuple[int, ...], negate: bool) -> Kernel:
    reduce = alu.REDUCTIONS[name]

    def kernel(x: Array, to: Array) -> None:
        if name.startswith("logical"):
            np.copyto(to, reduce(x, axis, None))
        else:
            reduce(x, axis, to)
        if negate:
            np.negative(to, to)
    return kernel


@semantics(isa.TENSOR_TENSOR_SCAN)
def tensor_tensor_scan(op: Operation) -> Prepared:
    a, b, out = op.aligned("a", "b", "out")
    initial = op.per_partition("initial", a)
    name0, name1 = op.field("op0"), op.field("op1")
    alu.check_engine(op, name0, name1)
    if alu.is_bitwise(name0, name1):
        raise invalid("a scan takes arithmetic operators only")
    first, last = alu.ARITHMETIC[name0], alu.ARITHMETIC[name1]
    start = immediate(op.field("initial_value"))
    store = narrow(op.pattern("out").dtype, out.shape, op.scratch)
    partitions, count = a.shape[0], int(np.prod(a.shape[1:]))
    # One row a step, so that each step's values lie side by side.
    rows_a, rows_b, rows = (op.scratch.array(slot, (count, partitions)) for slot in ("a", "b", "result"))
    step = op.scratch.array("first", (partitions,))

    def kernel(x: Array, y: Array, at: Array | None, to: Array) -> None:
        np.copyto(rows_a.T, x.reshape(partitions, count), casting="unsafe")
        np.copyto(rows_b.T, y.reshape(partitions, count), casting="unsafe")
        previous: Array = start if at is None else at.reshape(partitions)
        for left, right, row in zip(rows_a, rows_b, rows, strict=True):
            first(left, previous, step)
            last(step, right, row)
            previous = row
        store(rows.T.reshape(to.shape), to)
    return Prepared(kernel, (a, b, initial, out))


def copy_kernel(op: Operation, source: DType, target: DType, views: tuple[View, View]) -> Kernel:
    """kernel(source, out): bit by bit if the dtypes are equal (the views become raw), else through f32."""
    if source is target:
        for view in views:
            view.dtype = raw(source)
        return lambda x, to: np.copyto(to, x)
    load = widen(source, views[0].shape, op.scratch, "a") or _same
    store = narrow(target, views[0].shape, op.scratch)
    return lambda x, to: store(load(x), to)


@semantics(isa.TENSOR_COPY)
def tensor_copy(op: Operation) -> Prepared:
    data, out = op.aligned("data", "out")
    return Prepared(copy_kernel(op, op.pattern("data").dtype, op.pattern("out").dtype, (data, out)), (data, out))


@semantics(isa.COPY_PREDICATED)
def copy_predicated(op: Operation) -> Prepared:
    views = op.aligned("data", "predicate", "out")
    dtype = op.pattern("out").dtype
    if op.pattern("data").dtype is not dtype:
        raise invalid("copy_predicated moves bits: data and out must have one dtype")
    views[0].dtype = views[2].dtype = raw(dtype)
    return Prepared(lambda x, where, to: np.copyto(to, x, where=where != 0), tuple(views))


@semantics(isa.MEMSET)
def memset(op: Operation) -> Prepared:
    (out,) = op.aligned("out")
    value = constant(op.field("value"), op.pattern("out").dtype)
    return Prepared(lambda to: np.copyto(to, value), (out,))


@semantics(isa.RECIPROCAL)
def reciprocal(op: Operation) -> Prepared:
    data, out = op.aligned("data", "out")
    load = widen(op.pattern("data").dtype, data.shape, op.scratch, "a") or _same
    work, store = op.scratch.array("result", data.shape), narrow(op.pattern("out").dtype, data.shape, op.scratch)

    def kernel(x: Array, to: Array) -> None:
        np.reciprocal(load(x), work)
        store(work, to)
    return Prepared(kernel, (data, out))


@semantics(isa.SELECT)
def select(op: Operation) -> Prepared:
    names = ("predicate", "a", "b", "out") if op.has("b") else ("predicate", "a", "out")
    predicate, a, *b, out = op.aligned(*names)
    dtypes = {op.pattern(name).dtype for name in names[1:]}
    target = op.pattern("out").dtype
    if len(dtypes) == 1 and b:
        for view in (a, *b, out):
            view.dtype = raw(target)

        def move(where: Array, x: Array, y: Array, to: Array) -> None:
            np.copyto(to, np.where(where != 0, x, y))
        return Prepared(move, (predicate, a, b[0], out))
    load_a = widen(op.pattern("a").dtype, a.shape, op.scratch, "a") or _same
    load_b = (widen(op.pattern("b").dtype, a.shape, op.scratch, "b") or _same) if b else None
    other = immediate(op.field("immediate"))
    store = narrow(target, a.shape, op.scratch)

    def kernel(where: Array, x: Array, y: Array | None, to: Array) -> None:
        second = other if load_b is None or y is None else load_b(y)
        store(np.where(where != 0, load_a(x), second), to)
    return Prepared(kernel, (predicate, a, b[0] if b else None, out))


def _flat(op: Operation, name: str) -> tuple[View, int]:
    """A view of an operand as it is, and its number of free elements."""
    pattern = op.pattern(name)
    return op.view(pattern, pattern.dims or ((1, 1),)), pattern.free_elements


@semantics(isa.BN_STATS)
def bn_stats(op: Operation) -> Prepared:
    (data, count), (out, outputs) = _flat(op, "data"), _flat(op, "out")
    if outputs != 6 or count > 512:
        raise invalid("bn_stats takes up to 512 elements and writes 6")
    load = widen(op.pattern("data").dtype, data.shape, op.scratch, "a") or _same

    def kernel(x: Array, to: Array) -> None:
        flat = load(x).reshape(x.shape[0], count)
        result = np.zeros((x.shape[0], 6), np.float32)
        for column, part in ((0, flat[:, 0::2]), (3, flat[:, 1::2])):
            if part.shape[1]:
                mean = part.mean(axis=1, dtype=np.float32)
                result[:, column], result[:, column + 1] = part.shape[1], mean
                result[:, column + 2] = np.square(part - mean[:, None]).sum(axis=1)
        to[...] = result.reshape(to.shape)
    return Prepared(kernel, (data, out))


@semantics(isa.BN_AGGR)
def bn_aggr(op: Operation) -> Prepared:
    (data, count), (out, outputs) = _flat(op, "data"), _flat(op, "out")
    if outputs != 2 or count % 3:
        raise invalid("bn_aggr takes triples and writes 2 elements")

    def kernel(x: Array, to: Array) -> None:
        number, mean, squares = np.moveaxis(x.reshape(x.shape[0], -1, 3), 2, 0)
        total = number.sum(axis=1)
        middle = (number * mean).sum(axis=1) / total
        spread = squares + number * np.square(mean - middle[:, None])
        to[...] = np.stack([middle, spread.sum(axis=1) / total], axis=1).reshape(to.shape)
    return Prepared(kernel, (data, out))


@semantics(isa.VECTOR_TRANSPOSE)
def vector_transpose(op: Operation) -> Prepared:
    (data, rows), (out, columns) = _flat(op, "data"), _flat(op, "out")
    partitions, out_partitions = data.shape[0], out.shape[0]
    if op.pattern("data").dtype is not op.pattern("out").dtype:
        raise invalid("a transpose keeps the dtype")
    data.dtype = out.dtype = raw(op.pattern("data").dtype)
    if partitions <= 32 and rows <= 32:
        if (out_partitions, columns) != (rows, partitions):
            raise invalid("out must be [f, p] for data [p, f]")
        return Prepared(lambda x, to: np.copyto(to, x.reshape(partitions, rows).T.reshape(to.shape)), (data, out))
    if partitions % 32 or rows % 32 or (out_partitions, columns) != (partitions, rows):
        raise invalid("beyond 32 x 32 a transpose takes whole blocks and keeps the shape")
    blocks = (partitions // 32, 32, rows // 32, 32)
    return Prepared(lambda x, to: np.copyto(to, x.reshape(blocks).transpose(0, 3, 2, 1).reshape(to.shape)), (data, out))


def _eight(op: Operation, name: str) -> View:
    view, count = _flat(op, name)
    if count != 8 or view.shape[0] != op.pattern("data").partitions:
        raise invalid(f"{name} must hold 8 elements in each partition of the data")
    return view


@semantics(isa.MAX8)
def max8(op: Operation) -> Prepared:
    data, count = _flat(op, "data")
    out = _eight(op, "out")
    if not 8 <= count <= 16384:
        raise invalid("max8 takes 8 to 16384 elements")
    load = widen(op.pattern("data").dtype, data.shape, op.scratch, "a") or _same
    store = narrow(op.pattern("out").dtype, out.shape, op.scratch)

    def kernel(x: Array, to: Array) -> None:
        flat = load(x).reshape(x.shape[0], count)
        largest = np.sort(np.partition(flat, count - 8, axis=1)[:, count - 8:], axis=1)[:, ::-1]
        store(largest.reshape(to.shape), to)
    return Prepared(kernel, (data, out))


def first_occurrences(data: Array, values: Array) -> Array:
    """[P, 8] positions of each value in data [P, N], repeated values taking successive ones; -1 where there is none."""
    positions = np.full(values.shape, -1, np.int64)
    free = np.ones(data.shape, np.bool_)
    rows = np.arange(data.shape[0])
    for k in range(values.shape[1]):
        matches = (data == values[:, k, None]) & free
        place = matches.argmax(axis=1)
        found = matches[rows, place]
        positions[found, k] = place[found]
        free[rows[found], place[found]] = False
    return positions


@semantics(isa.FIND_INDEX8)
def find_index8(op: Operation) -> Prepared:
    data, count = _flat(op, "data")
    values, out = _eight(op, "values"), _eight(op, "out")
    load = widen(op.pattern("data").dtype, data.shape, op.scratch, "a") or _same
    load_values = widen(op.pattern("values").dtype, values.shape, op.scratch, "b") or _same
    out_type = storage(op.pattern("out").dtype)

    def kernel(x: Array, wanted: Array, to: Array) -> None:
        positions = first_occurrences(load(x).reshape(x.shape[0], count), load_values(wanted).reshape(-1, 8))
        to[...] = positions.astype(out_type).reshape(to.shape)
    return Prepared(kernel, (data, values, out))


@semantics(isa.MATCH_REPLACE8)
def match_replace8(op: Operation) -> Prepared:
    data, out = op.aligned("data", "out")
    values = _eight(op, "values")
    load = widen(op.pattern("data").dtype, data.shape, op.scratch, "a") or _same
    load_values = widen(op.pattern("values").dtype, values.shape, op.scratch, "b") or _same
    store = narrow(op.pattern("out").dtype, out.shape, op.scratch)
    value = immediate(op.field("value"))

    def kernel(x: Array, wanted: Array, to: Array) -> None:
        flat = load(x).reshape(x.shape[0], -1).copy()
        positions = first_occurrences(flat, load_values(wanted).reshape(-1, 8))
        rows, columns = np.nonzero(positions >= 0)
        flat[rows, positions[rows, columns]] = value
        store(flat.reshape(to.shape), to)
    return Prepared(kernel, (data, values, out))
