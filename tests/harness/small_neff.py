"""A small package with every kind of member: two nodes, device and host, constants, debug map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nxcc.ir.dtypes import F32
from nxcc.neff.members import (
    CPU,
    NEURON_CORE,
    Alias,
    DebugMap,
    HostConstant,
    InputTensor,
    InstructionRange,
    Node,
    OutputTensor,
    QueueSet,
    SourceEntry,
    Statistics,
    Variable,
)
from nxcc.neff.package import EngineCode, HostModule, Package, RawMember, Subgraph
from nxcc.neff.writer import write_neff

INPUT = InputTensor("input0", F32, (2, 3), 24, "input0", 0, "p.1", "input")
STATE = InputTensor("input1", F32, (2, 3), 24, "input1", 1, "p.2", "state")
BETWEEN = OutputTensor("dot.3", F32, (2, 3), 24, "dot3")
RESULT = OutputTensor("output0", F32, (2, 3), 24, "", (0,), 1)
WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)
DMA = {
    "id": 1, "queue": "qIn", "semaphore": 2,
    "desc": [{"from": "input0", "to": "sb0", "from_sizes": [24], "from_steps": [1], "to_sizes": [12, 2],
              "to_steps": [1, 64], "nxcc": {"loop": [3, 24]}},
             {"op": "fma", "from_arr": [{"from": "w2"}, {"from": "input1"}], "to": "sb0", "scale": 0.5}],
}
VARIABLES = {
    "input0": Variable("input", 0, 24), "input1": Variable("input", 1, 24), "dot3": Variable("output", 2, 24),
    "sb0": Variable("state-buffer", 3), "w2": Variable("file", 4, 24, alignment=64, file_name="w4.bin"),
    "w1": Variable("file", 5, 5, file_name="a5.bin"),
    "scratch": Variable("virtual", 6, 64, backing_variable_off=128),
}


def small_package() -> Package:
    """Device node `sg00` makes dot.3 from input0; host node `host1` makes output0 from it and input1."""
    device = Subgraph(
        VARIABLES, {"qIn": QueueSet("in", num_queues=16, owner="sp", semaphore_set=(2,))},
        {"sp": EngineCode({"dma": [DMA]}, b"\x01\x02\x03"), "pe": EngineCode({"dma": []}, memoryview(b"\x07" * 600))},
        (RawMember("a5.bin", b"hello"), RawMember("w4.bin", WEIGHTS)), nxcc={"functions": ["main"], "psum_banks": 3},
    )
    between = InputTensor(BETWEEN.name, BETWEEN.dtype, BETWEEN.shape, BETWEEN.size)
    host_input = replace(STATE, var="")
    nodes = (
        Node(0, NEURON_CORE, "sg00", (INPUT,), (BETWEEN,), kelf="kelf-0.json", entry="main"),
        Node(1, CPU, "host1", (between, host_input), (RESULT,), hlo="host/1.hlo",
             constants=(HostConstant("c.9", "host/1.c9.bin", F32, (2, 3)),), nxcc={"reason": "fft"}),
    )
    return Package(
        name="jit_modèle", target="v2", version="0.1.0", nodes=nodes, inputs=(INPUT, STATE), outputs=(RESULT,),
        subgraphs=(device,), host_modules=(HostModule("1", "HloModule host", (RawMember("1.c9.bin", WEIGHTS),)),),
        aliases=(Alias((0,), 1),), hlo_sha256="ab" * 32, flags=("--auto-cast", "none"), options={"optlevel": 1},
        statistics=Statistics(macs=18, flops=36), nxcc={"arena_bytes": 24},
        debug_map=DebugMap((SourceEntry("dot.3", "jit(f)/dot", "m.py:4", "layer/0"),),
                           (InstructionRange("pe", 0, 3, 0),)),
    )


def small_neff(path: Path, package: Package | None = None, compress: bool = False) -> bytes:
    """The bytes of a package written to path."""
    write_neff(path, package or small_package(), compress)
    return path.read_bytes()
