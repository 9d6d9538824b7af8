"""A child process that runs HLO modules with XLA for this CPU, one after another. Needs jax; nothing of nxcc.

A line on stdin names a folder with module.pb and inputs.json, the rows [dtype, dims, file] of the parameter leaves; arrays are
raw bytes. The answer is a line: "ok" (then outputs.json and its files lie in the folder), or what XLA says.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jaxlib import _jax

NUMPY = {"pred": "bool", "s8": "int8", "s16": "int16", "s32": "int32", "s64": "int64", "u8": "uint8", "u16": "uint16",
         "u32": "uint32", "u64": "uint64", "f16": "float16", "f32": "float32", "f64": "float64", "c64": "complex64",
         "c128": "complex128"}
OURS = {"bf16": "bfloat16", "s4": "int4", "u4": "uint4", "s2": "int2", "u2": "uint2"}


def numpy_type(name: str) -> Any:
    """The numpy dtype of an HLO element type."""
    if name in NUMPY:
        return np.dtype(NUMPY[name])
    return np.dtype(getattr(ml_dtypes, OURS.get(name, "float8_" + name[2:] if name.startswith("f8") else name)))


def answer(folder: str) -> str:
    """Compile and run what lies in a folder; one line."""
    with open(os.path.join(folder, "module.pb"), "rb") as file:
        code = _jax.mlir.hlo_to_stablehlo(file.read())
    with open(os.path.join(folder, "inputs.json"), encoding="utf-8") as file:
        rows = json.load(file)
    device = jax.devices("cpu")[0]
    try:
        program = device.client.compile_and_load(code, [device], _jax.CompileOptions())
    except (TypeError, AttributeError):
        program = device.client.compile_and_load(code, _jax.DeviceList((device,)), _jax.CompileOptions())
    buffers = [jax.device_put(_read(folder, *row), device) for row in rows]
    found = [np.asarray(row[0]) for row in program.execute_sharded(buffers).disassemble_into_single_device_arrays()]
    for number, array in enumerate(found):
        np.ascontiguousarray(array).tofile(os.path.join(folder, f"output{number}"))
    with open(os.path.join(folder, "outputs.json"), "w", encoding="utf-8") as file:
        json.dump([list(array.shape) for array in found], file)
    return "ok"


def _read(folder: str, dtype: str, dims: list[int], name: str) -> Any:
    return np.fromfile(os.path.join(folder, name), numpy_type(dtype)).reshape(dims)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    for line in sys.stdin:
        try:
            words = answer(line.strip())
        except Exception as error:  # noqa: BLE001  whatever XLA says is the answer
            words = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        sys.stdout.write(words + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
