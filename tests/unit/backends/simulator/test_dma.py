"""DMA: addresses over partitions, casts, accumulation, gathers, scatters."""

import ml_dtypes
import numpy as np
import pytest

from nxcc.backends.isa.program import DMA_PARTITION_STRIDE as STRIDE
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import BF16, F32, S32, S64, U8, U32

from harness.one_core import array_of, hbm, machine, make, pattern, register, sbuf

VALUES = np.arange(24, dtype=np.float32).reshape(4, 6)


def run(*instructions, writes=((0, VALUES),), engine="sync"):
    core = machine(**{engine: list(instructions)})
    for address, array in writes:
        core.write(address, array)
    core.run()
    return core


def test_rows_to_partitions_and_back():
    core = run(make("dma_copy", source=hbm(F32, 0, 24, 4), destination=sbuf(F32, 2 * STRIDE + 64, STRIDE, 4), sizes=(4, 6)),
               make("dma_copy", source=sbuf(F32, 2 * STRIDE + 64, 4, STRIDE), destination=hbm(F32, 4096, 16, 4), sizes=(6, 4)))
    assert (array_of(core, pattern(F32, 4, 6, at=64, partition=2)) == VALUES).all()
    assert (core.read(4096, F32, (6, 4)) == VALUES.T).all()


def test_a_stride_over_partitions_and_bytes_at_once():
    core = run(make("dma_copy", source=hbm(F32, 0, 4), destination=sbuf(F32, 1024, STRIDE - 4), sizes=(4,)))
    assert [array_of(core, pattern(F32, 1, at=1024 - 4 * p, partition=p)).item() for p in range(4)] == [0, 1, 2, 3]


def test_a_stride_of_most_of_a_partition():
    core = run(make("dma_copy", source=hbm(F32, 0, 4), destination=sbuf(F32, 0, 150000), sizes=(2,)))
    assert array_of(core, pattern(F32, 1, at=150000)).item() == 1


def test_broadcast_and_backwards():
    core = run(make("dma_copy", source=hbm(F32, 20, 0, -4), destination=sbuf(F32, 0, STRIDE, 4), sizes=(3, 6)))
    assert array_of(core, pattern(F32, 3, 6)).tolist() == [[5, 4, 3, 2, 1, 0]] * 3


def test_casts():
    core = run(make("dma_copy", source=hbm(F32, 0, 4), destination=hbm(BF16, 1024, 2), sizes=(24,)),
               make("dma_copy", source=hbm(F32, 0, 4), destination=hbm(U8, 2048, 1), sizes=(24,)))
    assert core.read(1024, BF16, (24,)).dtype == ml_dtypes.bfloat16
    assert (core.read(1024, BF16, (24,)).astype(np.float32) == VALUES.ravel()).all()
    assert (core.read(2048, U8, (24,)) == VALUES.ravel()).all()


def test_eight_byte_elements_move_as_bits():
    numbers = np.array([2 ** 62 + 1, -3], np.int64)
    core = run(make("dma_copy", source=hbm(S64, 0, 8), destination=hbm(S64, 64, 8), sizes=(2,)),
               make("dma_copy", source=hbm(S32, 0, 8), destination=sbuf(S32, 0, STRIDE), sizes=(2,)), writes=((0, numbers),))
    assert core.read(64, S64, (2,)).tolist() == numbers.tolist()
    assert array_of(core, pattern(S32, 2)).tolist() == [1, -3]


def test_accumulate():
    ones = np.ones(3, ml_dtypes.bfloat16)
    core = run(make("dma_copy", source=hbm(F32, 0, 4), destination=hbm(BF16, 1024, 2), sizes=(3,), accumulate="add"),
               writes=((0, VALUES), (1024, ones)))
    assert core.read(1024, BF16, (3,)).astype(int).tolist() == [1, 2, 3]


def test_transpose_mode():
    numbers = np.arange(6, dtype=np.uint16).reshape(2, 3)
    core = run(make("dma_transpose", source=hbm(BF16, 0, 2, 6), destination=hbm(BF16, 256, 4, 2), sizes=(3, 2)),
               writes=((0, numbers),))
    assert (core.read(256, BF16, (3, 2)).view(np.uint16) == numbers.T).all()


def test_addresses_in_loops():
    body = make("dma_copy", source=hbm(F32, register(0, 24), 4), destination=sbuf(F32, register(0, STRIDE), 4), sizes=(6,))
    core = run(make("loop", register=0, count=4), body, make("end"))
    assert (array_of(core, pattern(F32, 4, 6)) == VALUES).all()


@pytest.mark.parametrize("source, destination", [
    (hbm(F32, (1 << 16) - 4, 4), sbuf(F32, 0, 4)), (hbm(F32, 0, -4), sbuf(F32, 0, 4)), (hbm(F32, 0, 4), sbuf(F32, 196606, 4)),
    (hbm(F32, 0, 4), sbuf(F32, 127 * STRIDE, STRIDE)), (hbm(F32, 0, 4), sbuf(F32, -STRIDE, 4)),
])
def test_outside_of_memory(source, destination):
    with pytest.raises(CompileError, match="main, SP instruction 0 dma_copy"):
        run(make("dma_copy", source=source, destination=destination, sizes=(2,)))


def put_indices(values, partitions):
    """Instructions that place an index vector at the start of SBUF from HBM address 32768."""
    stride = STRIDE if partitions else 4
    return make("dma_copy", source=hbm(S32, 32768, 4), destination=sbuf(S32, 0, stride), sizes=(len(values),))


def indices(values, partitions):
    return pattern(S32, len(values)) if partitions else pattern(S32, 1, len(values))


@pytest.mark.parametrize("partitions", [True, False])
def test_gather(partitions):
    rows = [3, 0, 3]
    gather = make("dma_gather", source=hbm(F32, 0, 0, 4), indices=indices(rows, partitions),
                  destination=sbuf(F32, 1024, STRIDE, 4), sizes=(3, 6), index_stride=24, limit=4)
    core = run(put_indices(rows, partitions), gather, writes=((0, VALUES), (32768, np.array(rows, np.int32))), engine="gpsimd")
    assert (array_of(core, pattern(F32, 3, 6, at=1024)) == VALUES[rows]).all()


@pytest.mark.parametrize("row", [4, -1])
def test_gather_of_a_row_that_does_not_exist(row):
    gather = make("dma_gather", source=hbm(F32, 0, 0, 4), indices=indices([row], True), destination=sbuf(F32, 1024, STRIDE, 4),
                  sizes=(1, 6), index_stride=24, limit=4)
    with pytest.raises(CompileError, match="0..3"):
        run(put_indices([row], True), gather, writes=((32768, np.array([row], np.int32)),), engine="gpsimd")


def test_scatter_skips_the_limit():
    rows = [2, 4, 0]
    scatter = make("dma_scatter", source=hbm(F32, 0, 24, 4), indices=indices(rows, True), destination=hbm(F32, 4096, 0, 4),
                   sizes=(3, 6), index_stride=24, limit=4)
    core = run(put_indices(rows, True), scatter, scatter_again := make(
        "dma_scatter", source=hbm(F32, 0, 24, 4), indices=indices(rows, True), destination=hbm(F32, 4096, 0, 4), sizes=(3, 6),
        index_stride=24, limit=4, accumulate="add"), writes=((0, VALUES), (32768, np.array(rows, np.int32))), engine="gpsimd")
    assert scatter_again.fields["accumulate"] == "add"
    result = core.read(4096, F32, (4, 6))
    assert (result[2] == 2 * VALUES[0]).all() and (result[0] == 2 * VALUES[2]).all() and not result[[1, 3]].any()


def test_registers_and_memory():
    core = run(make("register_load", source=hbm(U32, 0), register=1), make("register_load", source=hbm(F32, 4), register=2),
               make("register_load", source=hbm(U8, 8), register=3),
               *[make("register_store", destination=hbm(S32, 64 + 4 * r), register=r) for r in (1, 2, 3)],
               writes=((0, np.array([2 ** 31 + 5], np.uint32)), (4, np.array([-1.0], np.float32)), (8, np.array([200],
                   np.uint8))))
    assert core.read(68, S32, (3,)).tolist() == [2 ** 31 - 1, np.array(-1.0, np.float32).view(np.int32), 200]
