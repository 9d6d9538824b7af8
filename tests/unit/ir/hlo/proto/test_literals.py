"""Payloads of every type become arrays, without a copy where the wire format allows it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.diagnostics import LIMIT_EXCEEDED, PROTO_CORRUPT, CompileError
from nxcc.ir.hlo.proto.literals import literal_pieces, read_literal
from nxcc.ir.hlo.proto.reader import read_module
from nxcc.ir.hlo.proto.schema import message_type
from nxcc.ir.hlo.proto.shapes import shape_from_proto
from nxcc.ir.hlo.proto.wire import write_record, write_varint
from nxcc.ir.literals import Literal, splat, tuple_literal
from nxcc.ir.shapes import Layout, Shape, array


def read(content: bytes | memoryview) -> Literal:
    def shape_of(ranges: list[tuple[int, int]]) -> Shape:
        return shape_from_proto(message_type("ShapeProto").FromString(b"".join(content[s:e] for s, e in ranges)))
    return read_literal(content, [(0, len(content))], shape_of, "test")


def proto(dtype: dtypes.DType, dims: tuple[int, ...], order: tuple[int, ...] | None = None, **payload: Any) -> Any:
    message = message_type("LiteralProto")()
    message.shape.element_type = dtype.number
    message.shape.dimensions.extend(dims)
    message.shape.layout.minor_to_major.extend(order if order is not None else range(len(dims) - 1, -1, -1))
    for name, values in payload.items():
        if isinstance(values, bytes):
            setattr(message, name, values)
        else:
            getattr(message, name).extend(values)
    return message


def written(literal: Literal) -> bytes:
    return b"".join(piece if isinstance(piece, bytes) else b"".join(piece[1]()) for piece in literal_pieces(literal))


@pytest.mark.parametrize(("dtype", "payload", "values"), [
    (dtypes.PRED, {"preds": [True, False, True]}, [1, 0, 1]),
    (dtypes.S8, {"s8s": b"\xff\x7f\x00"}, [-1, 127, 0]),
    (dtypes.U8, {"u8s": b"\xff\x7f\x00"}, [255, 127, 0]),
    (dtypes.S16, {"s16s": b"\xff\xff\x01\x00\x00\x80"}, [-1, 1, -32768]),
    (dtypes.S32, {"s32s": [-1, 300, -2**31]}, [-1, 300, -2**31]),
    (dtypes.S64, {"s64s": [-1, 2**62, -2**63]}, [-1, 2**62, -2**63]),
    (dtypes.U32, {"u32s": [2**32 - 1, 0, 128]}, [2**32 - 1, 0, 128]),
    (dtypes.U64, {"u64s": [2**64 - 1, 0, 128]}, [2**64 - 1, 0, 128]),
    (dtypes.F16, {"f16s": b"\x00\x3c\x00\xc0\x00\x00"}, [1, -2, 0]),
    (dtypes.BF16, {"bf16s": b"\x80\x3f\x00\xc0\x00\x00"}, [1, -2, 0]),
    (dtypes.F32, {"f32s": [1, -2.5, 0]}, [1, -2.5, 0]),
    (dtypes.F64, {"f64s": [1, -2.5, 1e300]}, [1, -2.5, 1e300]),
    (dtypes.F8E4M3FN, {"f8e4m3fns": b"\x38\xc0\x00"}, [1, -2, 0]),
    (dtypes.S4, {"s4s": b"\x08\x0f\x07"}, [-8, -1, 7]),
    (dtypes.U4, {"u4s": b"\x08\x0f\x07"}, [8, 15, 7]),
    (dtypes.F4E2M1FN, {"f4e2m1fns": b"\x02\x0c\x00"}, [1, -2, 0]),
    (dtypes.C64, {"c64s": [1, 2, -1, 0.5, 0, 0]}, [1 + 2j, -1 + 0.5j, 0]),
    (dtypes.C128, {"c128s": [1, 2, -1, 0.5, 0, 0]}, [1 + 2j, -1 + 0.5j, 0]),
], ids=lambda value: value.name if isinstance(value, dtypes.DType) else "")
def test_payload_of_each_type(dtype: dtypes.DType, payload: dict[str, Any], values: list[Any]) -> None:
    message = proto(dtype, (3,), **payload)
    literal = read(message.SerializeToString())
    assert literal.array.dtype == dtype.numpy
    wide = np.complex128 if dtype.is_complex else np.float64 if dtype.is_float else object
    assert literal.array.astype(wide).tolist() == values
    again = message_type("LiteralProto").FromString(written(literal))
    assert getattr(again, dtype.literal_field) == getattr(message, dtype.literal_field)


def test_payload_is_in_the_order_of_the_layout() -> None:
    literal = read(proto(dtypes.F32, (2, 3), (0, 1), f32s=[1, 4, 2, 5, 3, 6]).SerializeToString())
    assert literal.array.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert list(message_type("LiteralProto").FromString(written(literal)).f32s) == [1, 4, 2, 5, 3, 6]


def test_permuted_layout_of_rank_three_comes_back() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    literal = Literal(array(dtypes.F32, 2, 3, 4, layout=Layout((1, 2, 0))), values)
    np.testing.assert_array_equal(read(written(literal)).array, values)


def test_fixed_width_payload_is_a_view_of_the_buffer() -> None:
    content = bytearray(proto(dtypes.F32, (2,), f32s=[1, 2]).SerializeToString())
    literal = read(memoryview(content))
    content[-4:] = np.float32(7).tobytes()
    assert literal.array.tolist() == [1, 7]
    assert not literal.array.flags.writeable


def test_elements_that_are_not_packed_and_several_records_are_joined() -> None:
    shape = proto(dtypes.S32, (5,)).SerializeToString()
    content = shape + b"\x20\x05" + write_record(4, 2) + b"\x06\x07" + b"\x20" + write_varint(-1) + b"\x20\x09"
    assert read(content).array.tolist() == [5, 6, 7, -1, 9]


def test_last_of_two_bytes_payloads_wins() -> None:
    content = proto(dtypes.U8, (2,), u8s=b"ab").SerializeToString() + write_record(3, 2) + b"cd"
    assert read(content).array.tolist() == [99, 100]


def test_pred_beyond_one_is_true() -> None:
    content = proto(dtypes.PRED, (3,)).SerializeToString() + write_record(2, 4) + b"\x02\x00\x81\x01"
    assert read(content).array.tolist() == [True, False, True]


def test_varints_across_chunks_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).integers(-2**40, 2**40, 500)
    message = proto(dtypes.S64, (500,), s64s=values.tolist())
    monkeypatch.setattr("nxcc.ir.hlo.proto.literals.CHUNK_BYTES", 64)
    literal = read(message.SerializeToString())
    np.testing.assert_array_equal(literal.array, values)
    assert list(message_type("LiteralProto").FromString(written(literal)).s64s) == values.tolist()


def test_splat_is_written_in_full() -> None:
    literal = read(written(splat(dtypes.BF16, (100, 3), 1.5)))
    assert literal.array.astype(np.float32).tolist() == [[1.5] * 3] * 100


def test_tuple_and_empty_literals_come_back() -> None:
    literal = read(written(tuple_literal(splat(dtypes.S32, (), -3), splat(dtypes.F32, (0, 2), 0), tuple_literal())))
    assert literal.elements[0].array == -3
    assert literal.elements[1].array.shape == (0, 2)
    assert literal.elements[2].elements == ()


@pytest.mark.parametrize(("message", "why"), [
    (proto(dtypes.F32, (3,), f32s=[1, 2]), "8 bytes instead of 12"),
    (proto(dtypes.F32, (2**40,), f32s=[1, 2]), "8 bytes instead of"),
    (proto(dtypes.S32, (3,), s32s=[1, 2]), "2 bytes of varints"),
    (proto(dtypes.S32, (2,), s32s=[1, 2, 3]), "3 bytes of varints"),
    (proto(dtypes.F16, (2,), f32s=[1]), "0 bytes instead of 4"),
])
def test_payload_that_does_not_fill_the_shape_is_an_error(message: Any, why: str) -> None:
    with pytest.raises(CompileError, match=why) as caught:
        read(message.SerializeToString())
    assert caught.value.code is PROTO_CORRUPT


@pytest.mark.parametrize("dims", [(0, 2**62), (2**30, 2**30), (1,) * 65, (0, -2**63)])
def test_impossible_shape_is_an_error(dims: tuple[int, ...]) -> None:
    with pytest.raises(CompileError) as caught:
        read(proto(dtypes.F32, dims).SerializeToString())
    assert caught.value.code is LIMIT_EXCEEDED


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    pytest.fail("no RssAnon in /proc/self/status")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is counted through /proc")
def test_constant_beyond_two_gibibytes_is_mapped(tmp_path: Path) -> None:
    """A sparse file: 3 GiB of zeros are a hole, only the ends hold values."""
    count = 3 << 28
    literal_head = proto(dtypes.F32, (count,)).SerializeToString() + write_record(8, 4 * count)
    shape = message_type("ShapeProto")(element_type=dtypes.F32.number, dimensions=[count])
    instruction = message_type("HloInstructionProto")(name="c", opcode="constant", id=1, shape=shape).SerializeToString()
    instruction += write_record(8, len(literal_head) + 4 * count) + literal_head
    body = message_type("HloComputationProto")(name="main", id=1, root_id=1).SerializeToString()
    body += write_record(2, len(instruction) + 4 * count) + instruction
    head = message_type("HloModuleProto")(name="m", entry_computation_name="main", entry_computation_id=1).SerializeToString()
    head += write_record(3, len(body) + 4 * count) + body
    path = tmp_path / "huge.pb"
    with open(path, "wb") as file:
        file.write(head)
        file.write(np.float32(1).tobytes())
        file.seek(len(head) + 4 * (count - 1))
        file.write(np.float32(2).tobytes())
    before = anonymous_bytes()
    values = read_module(path).entry.root.attributes["literal"].array
    assert (values.shape, values[0], values[count // 2], values[-1]) == ((count,), 1, 0, 2)
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
    assert anonymous_bytes() - before < 32 << 20
