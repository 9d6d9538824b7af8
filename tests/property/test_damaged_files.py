"""Whatever happens to a file's bytes, reading it ends in a result or in one CompileError; never in another exception."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.files.arrays import read_arrays
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.runtime.loaded import Loaded
from nxcc.ir.diagnostics import CompileError
from nxcc.neff.reader import read_neff

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = """HloModule m
ENTRY main {
  x = f32[4] parameter(0)
  w = f32[4] parameter(1)
  a = f32[4] add(x, w)
  h = f32[4] sine(a)
  ROOT r = f32[4] multiply(h, x)
}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A file of each kind, whole."""
    folder = tmp_path_factory.mktemp("whole")
    values = np.arange(4, dtype=np.float32)
    np.savez(folder / "stored.npz", **{"1": values})
    np.savez_compressed(folder / "packed.npz", **{"1": values})
    header = b'{"1":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    (folder / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())
    (folder / "m.hlo").write_text(TEXT)
    compile_file(Request(str(folder / "m.hlo"), CompileOptions(output=str(folder / "m.neff"), keep_on_host="^h$")))
    names = ("stored.npz", "packed.npz", "w.safetensors", "m.neff")
    return {name: (folder / name).read_bytes() for name in names}


def damaged(content: bytes, flips: list[tuple[float, int]], keep: float) -> bytes:
    data = bytearray(content)
    for place, value in flips:
        data[int(place * (len(data) - 1))] ^= value
    return bytes(data[:int(len(data) * keep)])


FLIPS = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4)
KEEP = st.one_of(st.just(1.0), st.floats(0, 1))


@QUICK
@given(name=st.sampled_from(["stored.npz", "packed.npz", "w.safetensors"]), flips=FLIPS, keep=KEEP)
def test_damaged_arrays_are_read_or_refused(files: dict[str, bytes], tmp_path: Path, name: str, flips: list[tuple[float, int]],
                                            keep: float) -> None:
    path = tmp_path / "f"
    path.write_bytes(damaged(files[name], flips, keep))
    with contextlib.suppress(CompileError):
        assert all(isinstance(array, np.ndarray) for array in dict(read_arrays(str(path))).values())


@QUICK
@given(flips=FLIPS, keep=KEEP)
def test_a_damaged_neff_is_run_or_refused(files: dict[str, bytes], flips: list[tuple[float, int]], keep: float) -> None:
    """Digests are not looked at, so that the damage reaches what lies behind them."""
    try:
        neff = read_neff(damaged(files["m.neff"], flips, keep), "f", verify_hash=False)
        assert len(Loaded(neff).run()) == 1
    except CompileError:
        pass
