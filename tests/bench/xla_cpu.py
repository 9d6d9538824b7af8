"""A child process that compiles a serialized HLO module with XLA for this CPU, and runs it if asked to.

Usage: xla_cpu.py MODULE [REPEAT SHAPES.json]; SHAPES holds [numpy dtype, dims] of each parameter. Prints the CPU
milliseconds of one call. Needs jax; nothing of nxcc.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jaxlib import _jax


def main(path: str, repeat: int = 0, shapes: str = "") -> None:
    client = jax.devices("cpu")[0].client
    devices = jax.devices("cpu")[:1]
    with open(path, "rb") as file:
        data = file.read()
    code = _jax.mlir.hlo_to_stablehlo(data)
    try:
        program = client.compile_and_load(code, devices, _jax.CompileOptions())
    except (TypeError, AttributeError):
        program = client.compile_and_load(code, _jax.DeviceList(tuple(devices)), _jax.CompileOptions())
    if repeat:
        with open(shapes, encoding="utf-8") as file:
            values = [_random(dtype, dims) for dtype, dims in json.load(file)]
        sys.stdout.write(f"{1e3 * _run(program, values, devices[0], repeat):.3f}\n")


def _random(name: str, dims: list[int]) -> Any:
    """Ones for integers, which are valid indices, small normal numbers for the rest."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    if dtype.kind in "iub":
        return np.ones(dims, dtype)
    return (np.random.default_rng(0).standard_normal(dims, np.float32) * 0.02).astype(dtype)


def _run(program: Any, values: list[Any], device: Any, repeat: int) -> float:
    """CPU seconds of one call, all threads together; the median. Buffers are fresh, since a module may take them over."""
    times = []
    for _ in range(repeat + 1):
        buffers = [jax.device_put(value, device) for value in values]
        for buffer in buffers:
            buffer.block_until_ready()
        start = time.process_time()
        for row in program.execute_sharded(buffers).disassemble_into_single_device_arrays():
            row[0].block_until_ready()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1], *(() if len(sys.argv) < 4 else (int(sys.argv[2]), sys.argv[3])))
