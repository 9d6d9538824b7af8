"""Tensor engine: products and transposes of up to 128 x 128 x 512 elements."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import numpy as np

from nxcc.backends.isa.instructions import pe as isa
from nxcc.backends.isa.program import Affine
from nxcc.backends.simulator.memory import Array, View, invalid, raw
from nxcc.backends.simulator.numerics import widen
from nxcc.backends.simulator.operation import Kernel, Operation, Prepared, semantics
from nxcc.ir.dtypes import F32

BANK_BYTES = 2048
"""A PSUM bank of one partition: 512 values of f32 (documented, architecture guide)."""

TF32_DROPPED_BITS = 13


def round_to_tf32(x: Array, out: Array) -> None:
    """f32 rounded to 10 mantissa bits, nearest even; infinities and NaN stay."""
    bits, result = x.view(np.uint32), out.view(np.uint32)
    np.right_shift(bits, TF32_DROPPED_BITS, result)
    np.bitwise_and(result, 1, result)
    np.add(result, (1 << (TF32_DROPPED_BITS - 1)) - 1, result)
    np.add(result, bits, result)
    np.bitwise_and(result, 0xFFFFFFFF ^ ((1 << TF32_DROPPED_BITS) - 1), result)
    np.copyto(out, x, where=np.isnan(x))


def _operand(op: Operation, name: str) -> tuple[View, Callable[[Array], Array]]:
    """The view [k, n] of an input, and the function that yields its values in f32 in a form that BLAS takes as it is."""
    (view,) = op.aligned(name)
    dtype = op.pattern(name).dtype
    flat = (view.shape[0], int(np.prod(view.shape[1:])))
    is_blas_ready = len(view.shape) == 2 and (view.shape[1] == 1 or view.strides[1] == view.dtype.itemsize)
    load = widen(dtype, view.shape, op.scratch, name)
    if load is not None and len(view.shape) > 2:
        convert = load
        return view, lambda x: convert(x).reshape(flat)
    if load is not None:
        return view, load
    if op.field("tf32"):
        rounded = op.scratch.array(name, view.shape)

        def entry(x: Array) -> Array:
            round_to_tf32(x, rounded)
            return rounded.reshape(flat)
        return view, entry
    if is_blas_ready:
        return view, lambda x: x
    packed = op.scratch.array(name, view.shape)

    def pack(x: Array) -> Array:
        np.copyto(packed, x)
        return packed.reshape(flat)
    return view, pack


@semantics(isa.MATMUL)
def matmul(op: Operation) -> Prepared:
    stationary, load_stationary = _operand(op, "stationary")
    moving, load_moving = _operand(op, "moving")
    (out,) = op.aligned("out")
    dtypes = {op.pattern("stationary").dtype, op.pattern("moving").dtype}
    if F32 in dtypes and len(dtypes) > 1:
        raise invalid("f32 pairs only with f32")
    rows, columns = (int(np.prod(view.shape[1:])) for view in (stationary, moving))
    if stationary.shape[0] != moving.shape[0] or out.shape[0] != rows or int(np.prod(out.shape[1:])) != columns:
        raise invalid("shapes of matmul do not fit: stationary [k, m], moving [k, n], out [m, n]")
    if rows > 128 or columns > 512:
        raise invalid(f"matmul takes at most 128 stationary and 512 moving elements a partition, not {rows} and {columns}")
    is_direct = len(out.shape) == 2 and out.strides[1] == 4 and not op.field("accumulate")
    store = _store(op, (rows, columns), out.shape)
    watch = _watch(op)
    turn: Affine = op.field("turn")
    if op.field("accumulate") and turn != ADDS:
        overwrite = _overwrite(op, (rows, columns), out.shape)

        def opening(s: Array, m: Array, to: Array, turn: int) -> None:
            (store if turn else overwrite)(load_stationary(s), load_moving(m), to)
        return Prepared(opening, (stationary, moving, out), (turn,))
    if is_direct:
        def kernel(s: Array, m: Array, to: Array) -> None:
            np.matmul(load_stationary(s).T, load_moving(m), out=to)
            watch(to)
    else:
        def kernel(s: Array, m: Array, to: Array) -> None:
            store(load_stationary(s), load_moving(m), to)
    return Prepared(kernel, (stationary, moving, out))


ADDS = Affine(1)


def _watch(op: Operation) -> Callable[[Array], None]:
    """What tells the host of a product that is not finite, as it is wherever a factor is not."""
    alerts = op.settings.alerts

    def watch(product: Array) -> None:
        if product.flags.c_contiguous:
            flat = product.reshape(-1)
            if isfinite(np.dot(flat, flat)):  # squares may be too large where numbers are not
                return
        if not np.isfinite(product).all():
            alerts.spread = True
    return watch


def _overwrite(op: Operation, flat: tuple[int, int], shape: tuple[int, ...]) -> Kernel:
    """A function (stationary, moving, out) for a product that opens its sums."""
    product = op.scratch.array("result", flat)
    shaped = product.reshape(shape)
    watch = _watch(op)

    def kernel(s: Array, m: Array, to: Array) -> None:
        np.matmul(s.T, m, out=product)
        watch(product)
        np.copyto(to, shaped)
    return kernel


def _store(op: Operation, flat: tuple[int, int], shape: tuple[int, ...]) -> Kernel:
    """A function (stationary, moving, out) for an accumulating product or one whose output is not rows side by side."""
    product = op.scratch.array("result", flat)
    shaped = product.reshape(shape)
    accumulate = op.field("accumulate")
    watch = _watch(op)

    def kernel(s: Array, m: Array, to: Array) -> None:
        np.matmul(s.T, m, out=product)
        watch(product)
        if accumulate:
            np.add(to, shaped, to)
        else:
            np.copyto(to, shaped)
    return kernel


@semantics(isa.PE_TRANSPOSE)
def pe_transpose(op: Operation) -> Prepared:
    (data,), (out,) = op.aligned("data"), op.aligned("out")
    dtype = op.pattern("data").dtype
    rows, columns = data.shape[0], int(np.prod(data.shape[1:]))
    if dtype is not op.pattern("out").dtype:
        raise invalid("a transpose keeps the dtype")
    if out.shape[0] != columns or int(np.prod(out.shape[1:])) != rows or columns > 128:
        raise invalid("shapes of pe_transpose do not fit: data [p, f], out [f, p], at most 128 x 128")
    load = widen(dtype, data.shape, op.scratch, "a")
    move, numpy_type = raw(dtype), data.dtype
    data.dtype = out.dtype = move
    alerts = op.settings.alerts

    def kernel(x: Array, to: Array) -> None:
        flat = x.reshape(rows, columns)
        values = x.view(numpy_type)
        finite = np.isfinite(values if load is None else load(values)).reshape(rows, columns)
        if not finite.all():
            alerts.spread = True
            flat = _spoil(flat.view(numpy_type), finite).view(move)
        np.copyto(to, flat.T.reshape(to.shape))
    return Prepared(kernel, (data, out))


def _spoil(data: Array, finite: Array) -> Array:
    """data [p, f] as the product with the identity sees it: in a column with a value v that is not finite, 0 * v is NaN.

    The place of v itself keeps v if the rest of the column is finite.
    """
    result = data.copy()
    bad = (~finite).sum(axis=0)
    result[(bad == 1)[None, :] & finite] = np.nan
    result[:, bad > 1] = np.nan
    return result
