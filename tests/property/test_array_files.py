"""Whatever the bytes of a weights file are, opening and reading it gives arrays or one CompileError."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from nxcc.compiler.files.arrays import read_arrays
from nxcc.ir.diagnostics import CompileError


def npz(compress: bool) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(out, a=np.arange(6.0).reshape(2, 3), b=np.array(3))
    return out.getvalue()


FILES = {"stored": npz(False), "compressed": npz(True), "safetensors": save({"x": np.ones((2, 3), np.float32)})}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), max_size=8), st.integers(0, 10**4))
def test_edited_and_cut_files(name: str, edits: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(FILES[name])
    for at, value in edits:
        content[at % len(content)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content[:cut] if cut % 3 == 0 else content)
        try:
            for array in read_arrays(str(path)).values():
                assert array.size >= 0
        except CompileError as error:
            assert error.why or error.what
