"""Named arrays from npz and safetensors files, sound and damaged."""

import io
import json
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from nxcc.compiler.files.arrays import read_arrays, write_npz
from nxcc.ir.diagnostics import ARRAYS_UNREADABLE, EMPTY_INPUT, FILE_UNREADABLE, CompileError

SAMPLES = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.float32(2.5).reshape(()), "c": np.zeros((0, 4), np.int8),
           "f": np.asfortranarray(np.arange(6.0).reshape(2, 3))}


def safetensors_bytes(header: dict, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_numpy_is_read(tmp_path, save) -> None:
    path = tmp_path / "x.npz"
    save(path, **SAMPLES)
    arrays = read_arrays(str(path))
    assert set(arrays) == set(SAMPLES)
    for name, expected in SAMPLES.items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == expected.dtype


def test_stored_npz_is_mapped_and_read_only(tmp_path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(1000))
    array = read_arrays(str(path))["a"]
    assert not array.flags.owndata and not array.flags.writeable


def test_safetensors_keeps_bf16(tmp_path) -> None:
    values = np.array([1.0, -2.5], ml_dtypes.bfloat16)
    path = tmp_path / "w"
    header = {"__metadata__": {"x": "y"}, "w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    path.write_bytes(safetensors_bytes(header, values.tobytes()))
    arrays = read_arrays(str(path))
    assert list(arrays) == ["w"]
    np.testing.assert_array_equal(arrays["w"], values)


def test_pickles_are_refused(tmp_path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.array([{"x": 1}], object))
    with pytest.raises(CompileError, match="pickled Python objects") as caught:
        read_arrays(str(path))["a"]
    assert caught.value.code is ARRAYS_UNREADABLE


def test_a_bare_pickle_is_no_array_file(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(CompileError) as caught:
        read_arrays(str(path))
    assert caught.value.code is ARRAYS_UNREADABLE


def test_member_smaller_than_its_header_says_is_an_error(tmp_path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", stream.getvalue())
    with pytest.raises(CompileError, match="promises"):
        read_arrays(str(path))["a"]


@pytest.mark.parametrize("entry", [
    {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
    {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
    {"dtype": "F32", "shape": "x", "data_offsets": [0, 8]},
    {"dtype": "F32", "shape": [2]},
    7,
])
def test_malformed_safetensors_entries_are_errors(tmp_path, entry) -> None:
    path = tmp_path / "w"
    path.write_bytes(safetensors_bytes({"w": entry}, bytes(8)))
    with pytest.raises(CompileError) as caught:
        dict(read_arrays(str(path)))
    assert caught.value.code is ARRAYS_UNREADABLE


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_every_truncation_is_one_kind_of_error(tmp_path, suffix) -> None:
    path = tmp_path / "x"
    if suffix == "npz":
        np.savez_compressed(path, **SAMPLES)
        whole = (tmp_path / "x.npz").read_bytes()
    else:
        whole = safetensors_bytes({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))
    for length in range(1, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CompileError) as caught:
            dict(read_arrays(str(path)))
        assert caught.value.code is ARRAYS_UNREADABLE


def test_missing_and_empty_files_have_their_own_codes(tmp_path) -> None:
    with pytest.raises(CompileError) as caught:
        read_arrays(str(tmp_path / "none"))
    assert caught.value.code is FILE_UNREADABLE
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(CompileError) as caught:
        read_arrays(str(tmp_path / "empty"))
    assert caught.value.code is EMPTY_INPUT


def test_written_npz_is_reproducible_and_holds_bit_patterns(tmp_path) -> None:
    values = {"output0": np.array([1.0, 2.0], ml_dtypes.bfloat16), "output1": np.array([[True]])}
    first, second = io.BytesIO(), io.BytesIO()
    write_npz(first, values)
    write_npz(second, values)
    assert first.getvalue() == second.getvalue()
    back = np.load(io.BytesIO(first.getvalue()))
    assert back["output0"].dtype == np.uint16
    np.testing.assert_array_equal(back["output0"].view(ml_dtypes.bfloat16), values["output0"])
    np.testing.assert_array_equal(back["output1"], values["output1"])


@pytest.mark.parametrize("shape", [b"(" * 40, b"(1," * 20, b"(99999999999999999999,)", b"(-1,)"])
def test_npy_header_is_matched_and_not_evaluated(tmp_path, shape) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + b", }\n"
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(CompileError) as caught:
        _ = read_arrays(str(path))["a"]
    assert caught.value.code is ARRAYS_UNREADABLE


def test_a_flipped_byte_of_stored_data_is_found(tmp_path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(1000))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(CompileError) as caught:
        read_arrays(str(path))["a"]
    assert caught.value.code is ARRAYS_UNREADABLE and "checksum" in str(caught.value)
