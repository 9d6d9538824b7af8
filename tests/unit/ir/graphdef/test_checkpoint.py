"""The checkpoint reader, on a table written here by the published layout."""

from pathlib import Path

import numpy as np
import pytest

from nxcc.ir.diagnostics import CHECKPOINT, CompileError
from nxcc.ir.graphdef.checkpoint import Bundle, crc32c
from nxcc.ir.graphdef.schema import message_type

from harness.checkpoint import masked, write_checkpoint, write_index

VALUES = np.arange(300_000, dtype=np.float32)


def write(folder: Path, **changes: object) -> str:
    entry = message_type("BundleEntryProto")(dtype=1, offset=8, size=VALUES.nbytes, crc32c=masked(VALUES.tobytes()))
    entry.shape.dim.add(size=VALUES.size)
    for key, value in changes.items():
        setattr(entry, key, value)
    write_index(folder / "v.index", [(b"net/bias", entry.SerializeToString()), (b"net/kernel", entry.SerializeToString())])
    (folder / "v.data-00000-of-00001").write_bytes(bytes(8) + VALUES.tobytes())
    return str(folder / "v")


def test_checksum_is_castagnoli() -> None:
    assert crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283


def test_checksum_in_stretches_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    content = np.random.default_rng(1).integers(0, 256, 100_003, dtype=np.uint8)
    monkeypatch.setattr("nxcc.ir.graphdef.checkpoint._LANES", 1000)
    in_stretches = crc32c(content)
    monkeypatch.setattr("nxcc.ir.graphdef.checkpoint._LANES", 1 << 40)
    assert in_stretches == crc32c(content)


def test_values_are_views_of_the_shard(tmp_path: Path) -> None:
    bundle = Bundle(write(tmp_path))
    assert list(bundle.entries) == ["net/bias", "net/kernel"]
    array = bundle.value("net/kernel").array
    assert np.array_equal(array, VALUES) and not array.flags.owndata


@pytest.mark.parametrize("changes", [{"offset": 9}, {"size": 12}, {"shard_id": 3}, {"dtype": 7}, {"crc32c": 5}],
                         ids=["offset", "size", "shard", "dtype", "checksum"])
def test_entry_that_does_not_fit_is_refused(changes: dict, tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        _ = Bundle(write(tmp_path, **changes)).value("net/bias").array
    assert caught.value.code is CHECKPOINT


def test_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="'net/none'"):
        Bundle(write(tmp_path)).value("net/none")


def test_any_cut_or_flip_of_the_index_is_noticed(tmp_path: Path) -> None:
    path = Path(write(tmp_path) + ".index")
    good = path.read_bytes()
    damaged = [good[:k] for k in range(0, len(good), 7)] + [
        good[:k] + bytes((good[k] ^ 0x10,)) + good[k + 1:] for k in range(0, len(good) - 48, 3)]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(CompileError):
            Bundle(str(tmp_path / "v"))


def part_key(name: bytes, rows: tuple[int, int]) -> bytes:
    """The ordered code of a part that has all columns of two: numbers below 64 take one byte."""
    return b"\x00" + name + b"\x00\x01\x01\x02" + bytes([0x80 + rows[0], 0x80 + rows[1], 0x80, 0x82])


def test_partitioned_variable_is_read_in_parts_and_whole(tmp_path: Path) -> None:
    values = np.arange(14, dtype=np.float32).reshape(7, 2)
    write_checkpoint(tmp_path / "v", {
        b"w": ((7, 2), [((0, 4), (0, 2)), ((4, 3), (0, 2))]),
        part_key(b"w", (0, 4)): values[:4], part_key(b"w", (4, 3)): values[4:]})
    bundle = Bundle(str(tmp_path / "v"))
    assert (bundle.value("w", ((4, 3), (0, 2))).array == values[4:]).all()
    assert (bundle.value("w").array == values).all()
    assert (bundle.value("w", ((3, 2), (1, 1))).array == values[3:5, 1:]).all()


def test_long_parts_are_found(tmp_path: Path) -> None:
    """Above 63 a number of the key takes two bytes, the first with two leading ones."""
    values = np.arange(130, dtype=np.float32)
    key = b"\x00w\x00\x01\x01\x01"
    write_checkpoint(tmp_path / "v", {b"w": ((130,), [((0, 65),), ((65, 65),)]), key + b"\x80\xc0\x41": values[:65],
                                      key + b"\xc0\x41\xc0\x41": values[65:]})
    assert (Bundle(str(tmp_path / "v")).value("w").array == values).all()


@pytest.mark.parametrize("regions", [[((0, 4),)], [((0, 4),), ((4, 4),)], [((-1, 4),)]], ids=str)
def test_parts_that_do_not_fit_are_refused(regions: list, tmp_path: Path) -> None:
    key = b"\x00w\x00\x01\x01\x01"
    write_checkpoint(tmp_path / "v", {b"w": ((7,), regions), key + b"\x80\x84": np.zeros(4)})
    with pytest.raises(CompileError) as caught:
        Bundle(str(tmp_path / "v")).value("w")
    assert caught.value.code is CHECKPOINT


def test_parts_that_overlap_are_refused(tmp_path: Path) -> None:
    """Together they have as many elements as the whole, but leave some of it out."""
    key = b"\x00w\x00\x01\x01\x01"
    write_checkpoint(tmp_path / "v", {b"w": ((7,), [((0, 4),), ((1, 3),)]), key + b"\x80\x84": np.zeros(4, np.float32),
                                      key + b"\x81\x83": np.zeros(3, np.float32)})
    with pytest.raises(CompileError) as caught:
        _ = Bundle(str(tmp_path / "v")).value("w").array
    assert caught.value.code is CHECKPOINT
