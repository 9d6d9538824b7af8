"""The checkpoint reader, on a table written here by the published layout."""

from pathlib import Path

import numpy as np
import pytest

from nxcc.ir.diagnostics import CHECKPOINT, CompileError
from nxcc.ir.graphdef.checkpoint import MAGIC, Bundle, crc32c
from nxcc.ir.graphdef.schema import message_type
from nxcc.ir.hlo.proto.wire import write_varint

VALUES = np.arange(300_000, dtype=np.float32)


def masked(content: bytes) -> int:
    crc = crc32c(np.frombuffer(content, np.uint8))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def block(rows: list[tuple[bytes, bytes]]) -> bytes:
    """Entries with prefix compression, one restart, type and checksum."""
    out, last = b"", b""
    for key, value in rows:
        shared = len([1 for a, b in zip(key, last, strict=False) if a == b]) if last and key[:2] == last[:2] else 0
        out += write_varint(shared) + write_varint(len(key) - shared) + write_varint(len(value)) + key[shared:] + value
        last = key
    out += bytes(4) + (1).to_bytes(4, "little") + b"\0"
    return out + masked(out).to_bytes(4, "little")


def write(folder: Path, **changes: object) -> str:
    entry = message_type("BundleEntryProto")(dtype=1, offset=8, size=VALUES.nbytes, crc32c=masked(VALUES.tobytes()))
    entry.shape.dim.add(size=VALUES.size)
    for key, value in changes.items():
        setattr(entry, key, value)
    header = message_type("BundleHeaderProto")(num_shards=1)
    data = block([(b"", header.SerializeToString()), (b"net/bias", entry.SerializeToString()),
                  (b"net/kernel", entry.SerializeToString())])
    index = block([(b"net/kernel", write_varint(0) + write_varint(len(data) - 5))])
    footer = write_varint(0) * 2 + write_varint(len(data)) + write_varint(len(index) - 5)
    (folder / "v.index").write_bytes(data + index + footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little"))
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
