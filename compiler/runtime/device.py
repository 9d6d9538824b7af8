"""The device side of a loaded NEFF: members handed to the decoder, the machine verifier and the simulator."""

from __future__ import annotations

import numpy as np

from nxcc.backends.isa.decode import decode
from nxcc.backends.isa.layout import EngineImage
from nxcc.backends.isa.program import Engine, Program
from nxcc.backends.isa.verifier import verify_program
from nxcc.backends.simulator.functional import Machine
from nxcc.backends.target import Target, load_target
from nxcc.compiler.runtime.places import Place, places_of
from nxcc.ir.diagnostics import NEFF_INVALID, CompileError
from nxcc.ir.literals import Array
from nxcc.neff.reader import LoadedSubgraph, Neff


def engine_of_key(target: Target) -> dict[str, Engine]:
    """The engine behind each engine key of def.json."""
    return {facts.definition_key: engine for engine, facts in target.engines.items()}


def decode_subgraph(subgraph: LoadedSubgraph, target: Target) -> Program:
    """The machine program of a subgraph; CompileError for anything that does not decode."""
    engines = engine_of_key(target)
    images = {engines[key]: EngineImage(subgraph.engine_json(key), bytes(subgraph.engine_binary(key)))
              for key in subgraph.engines if key in engines}
    return decode(images, subgraph.definition.nxcc, target.members)


def load_program(neff: Neff, target: Target, core: int = 0) -> Program:
    """The decoded program of a core, its sizes checked against the target."""
    subgraph = neff.subgraphs[core]
    program = decode_subgraph(subgraph, target)
    if program.hbm_bytes > target.hbm.bytes:
        raise CompileError(NEFF_INVALID, f"the program wants {program.hbm_bytes} bytes of HBM", neff.path,
                           why=f"{target.name} has {target.hbm.bytes}")
    for name, place in places_of(subgraph).items():
        if max(place.address, place.second or 0) + place.byte_size > program.hbm_bytes:
            raise CompileError(NEFF_INVALID, f"variable {name!r} lies outside the arena", neff.path,
                               why=f"the arena has {program.hbm_bytes} bytes")
    return program


def load_programs(neff: Neff, target: Target) -> list[Program]:
    """The programs of all cores; CompileError(NEFF_INVALID) if there are more than the target pipelines over."""
    most = target.cores.pipeline_max
    if len(neff.subgraphs) > most:
        raise CompileError(NEFF_INVALID, f"{len(neff.subgraphs)} subgraphs", neff.path,
                           why=f"{target.name} files have at most {most}")
    return [load_program(neff, target, core) for core in range(len(neff.subgraphs))]


def entry_number(program: Program, name: str) -> int:
    """The number of the entry of this name; CompileError(NEFF_INVALID) if the program has none."""
    for number, entry in enumerate(program.entries):
        if entry.name == name:
            return number
    raise CompileError(NEFF_INVALID, f"the program has no entry {name!r}")


class Device:
    """One simulated core with its program and its constants.

    places: where its values lie. strict: poisoned memory, race detection, and one legal order of the engines that depends on
    the seed.
    """

    def __init__(self, neff: Neff, core: int, strict: bool = False, seed: int = 0) -> None:
        assert neff.graph is not None
        target = load_target(neff.graph.nxcc.target)
        self.program = load_program(neff, target, core)
        verify_program(self.program, target, hbm_bytes=self.program.hbm_bytes)
        self.machine = _machine(self.program, target, strict, seed)
        self.entries = {entry.name: number for number, entry in enumerate(self.program.entries)}
        self.path = neff.path
        subgraph = neff.subgraphs[core]
        self.places = places_of(subgraph)
        for name, variable in subgraph.definition.var.items():
            if variable.type == "file":
                data = subgraph.file(variable.file_name)
                self.machine.write(self.places[name].address, np.frombuffer(data, np.uint8))
        self.machine.prepare()

    def fill(self) -> None:
        """Bring on chip what stays there; all weights are in their places."""
        if self.program.resident is not None:
            self.run(self.program.resident.entry)

    def write(self, place: Place, array: Array) -> None:
        """Put a value where its variable lies."""
        self.machine.write(place.address, array)

    def read(self, place: Place) -> Array:
        """A copy of the value that lies there."""
        return self.machine.read(place.address, place.dtype, place.dims)

    def run(self, entry: str) -> None:
        """Run one entry; CompileError(NEFF_INVALID) if the program has none of this name."""
        if entry not in self.entries:
            raise CompileError(NEFF_INVALID, f"the program has no entry {entry!r}", self.path)
        self.machine.run(self.entries[entry])

    @property
    def has_spread(self) -> bool:
        """Whether the tensor engine met what is not finite in the last run, and may have made NaN of finite values."""
        return self.machine.alerts.spread


def _machine(program: Program, target: Target, strict: bool, seed: int) -> Machine:
    sizes = {"sbuf_bytes_per_partition": target.sbuf.partition_bytes, "psum_bytes_per_partition": target.psum.partition_bytes,
             "partitions": target.partitions}
    if strict:
        from nxcc.backends.simulator.strict.machine import StrictMachine
        return StrictMachine(program, program.hbm_bytes, seed=seed, dma_engines=target.dma.engines, **sizes)
    return Machine(program, program.hbm_bytes, **sizes)
