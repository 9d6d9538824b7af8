"""Compile: one pure function of module, options and weights, and around it what reads files, shows progress and writes.

The order of the stages is the list in `_Compilation._steps`. Stages are timed and dumped here; they know nothing of it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from functools import partial

from nxcc.backends.capability.images import TargetImageCapacity
from nxcc.backends.capability.rows import TargetRowCapacity
from nxcc.backends.capability.support import device_dtypes, unsupported
from nxcc.backends.codegen.code import DeviceCode
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.window_body import CELLS
from nxcc.backends.target import Target, load_target
from nxcc.compiler.cache.findings import findings_of
from nxcc.compiler.choices.casting import notices, resolved
from nxcc.compiler.choices.pipelining import Lowering, piece_bytes, pipelined
from nxcc.compiler.choices.placing import HostAndDevice
from nxcc.compiler.choices.relayout import exact_up_to, spreading, turns_bits
from nxcc.compiler.console.progress import INFO, WARNING, Journal
from nxcc.compiler.dumps import Dumps, module_text, plan_text
from nxcc.compiler.files.arrays import ArrayFile, read_arrays
from nxcc.compiler.files.inputs import GraphRequest, read_model, recorded_io_config
from nxcc.compiler.files.outputs import check_outputs, check_unchanged, default_output, dependencies, stamps_of, write_depfile
from nxcc.compiler.interface.counted_outputs import counted_words
from nxcc.compiler.interface.fixed_outputs import fixed_outputs
from nxcc.compiler.interface.left_over import left_over
from nxcc.compiler.interface.other_devices import absent_devices
from nxcc.compiler.interface.parameters import WEIGHT, Signature, Tensor
from nxcc.compiler.interface.weights import bind_weights, declare_weights, keep_weights
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.packaging import Labels, package
from nxcc.compiler.problems import raise_problems
from nxcc.compiler.version import VERSION
from nxcc.ir.diagnostics import UNSUPPORTED, UNSUPPORTED_MODULE, USAGE, CompileError, one_of
from nxcc.ir.facts import dataclass
from nxcc.ir.files import map_file
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.literals import Array
from nxcc.ir.shapes import UNBOUNDED, Shape
from nxcc.neff.package import Package
from nxcc.neff.writer import write_neff
from nxcc.passes.notes import Note
from nxcc.passes.partitioning.partition import Plan, is_kept, mark_kept, partition
from nxcc.passes.partitioning.placement import Placement
from nxcc.passes.pipeline import PASS_NAMES, Settings, run_pipeline

MAX_HASHED_BYTES = 64 << 20
"""Inputs above this go into the NEFF without their digest: they are constants, which the payload's digest covers."""

STAGES = ("read", "verify", "bind", "passes", "partition", "lower", "package", "write")


def stage_names() -> tuple[str, ...]:
    """Names that --stop-after and --dump-after understand, passes in their place."""
    index = STAGES.index("passes") + 1
    return (*STAGES[:index], *PASS_NAMES, *STAGES[index:])


@dataclass()
class Build:
    """What a compile found out, as far as it went; package is None if it stopped before.

    tensors: parameter leaves in order. bound: parameters that have become constants. options: that it was made with. codes: one
    a core.
    """

    options: CompileOptions
    target: Target
    module: Module
    tensors: tuple[Tensor, ...] = ()
    plan: Plan | None = None
    codes: tuple[DeviceCode, ...] = ()
    package: Package | None = None
    bound: int = 0
    neff_bytes: int = 0
    output: str = ""

    @property
    def code(self) -> DeviceCode | None:
        """The code of the first core."""
        return self.codes[0] if self.codes else None


@dataclass()
class Source:
    """Where a module came from: for messages, the recorded digest, and the weights that are bound."""

    sha256: str = ""
    weights: Mapping[str, Array] | None = None
    weights_path: str = "weights"


def compile_module(module: Module, options: CompileOptions, source: Source | None = None,
                   journal: Journal | None = None) -> Build:
    """Compile a module; a pure function of its arguments, except that it takes the module over and rewrites it.

    Raises CompileError with all problems of the stage that failed.
    """
    return _Compilation(module, options, source or Source(), journal or Journal(quiet=True)).run()


class _Compilation:
    def __init__(self, module: Module, options: CompileOptions, source: Source, journal: Journal) -> None:
        target = load_target(options.target)
        asked, options = options, resolved(options, target)
        self.options = options
        self.flags = asked.flags()
        self.source = source
        self.journal = journal
        for is_warning, text in notices(asked, options, target):
            journal.note(text, WARNING if is_warning else INFO)
        self.dumps = Dumps(options.workdir, options.dump_after)
        self.build = Build(options, target, module)
        self.signature = Signature([], frozenset())
        self.stopped = False
        _check_stage_names(options)
        _check_numbers(options, target)

    def run(self) -> Build:
        self.dumps.keep("read", "hlo", lambda: module_text(self.build.module))
        if self.options.stop_after != "read":
            self._steps()
        for name in self.dumps.missing:
            self.journal.note(f"--dump-after {name} wrote nothing: the stage was not reached, or has no text of its own")
        return self.build

    def _steps(self) -> None:
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("verify", self._verify), ("bind", self._bind), ("passes", self._passes), ("partition", self._partition),
            ("lower", self._lower), ("package", self._package))
        for name, step in steps:
            with self.journal.stage(name):
                step()
            if self.stopped or self.options.stop_after == name:
                break

    def _verify(self) -> None:
        module = self.build.module
        verify(module)
        problems = []
        for what, count in (("replica_count", module.replica_count), ("num_partitions", module.num_partitions)):
            if count > 1:
                problems.append(CompileError(UNSUPPORTED_MODULE, f"{what} is {count}", module.name,
                                             why="this version compiles for one core"))
        # a module has few shapes, however many instructions
        unbounded = {id(shape) for shape in {id(i.shape): i.shape for i in module.entry.instructions}.values()
                     if _is_unbounded(shape)}
        problems += [CompileError(UNSUPPORTED_MODULE, f"{instruction.shape} has a dimension without a bound", instruction.name,
                                  str(instruction.location), remedy="export the model with a fixed or a bounded size there")
                     for instruction in module.entry.instructions if id(instruction.shape) in unbounded]
        raise_problems(problems)
        if words := absent_devices(module):
            self.journal.note(words)
        if self.options.keep_on_host and not mark_kept(module, host_pattern(self.options)):
            self.journal.note(f"--keep-on-host {self.options.keep_on_host} has no effect: no instruction matches")

    def _bind(self) -> None:
        module = self.build.module
        count = len(module.entry.parameters)
        declared = declare_weights(module, self.options.weight_params) if self.options.weight_params else frozenset()
        for text in keep_weights(module, declared):
            self.journal.note(text)
        self.signature = Signature(list(range(count)), declared)
        if self.source.weights is not None:
            before = self.signature.tensors(module)
            raise_problems(bind_weights(module, self.signature, self.source.weights, self.source.weights_path))
            left, numbers = self.signature.tensors(module), set(self.signature.numbers)
            self.build.bound = count - len(numbers)
            if words := left_over([t for t in before if t.number not in numbers], left, self.source.weights_path):
                self.journal.note(words)
        inputs = [n for n, number in enumerate(self.signature.numbers) if number not in self.signature.weights]
        for k in fixed_outputs(module, inputs):
            self.journal.note(f"output{k} depends on no input: its value is fixed")
        for text in counted_words(module):
            self.journal.note(text)
        self.dumps.keep("bind", "hlo", lambda: module_text(module))

    def _passes(self) -> None:
        def observe(name: str, module: Module, changed: bool) -> bool:
            self.journal.note(f"pass {name}: {'changed the module' if changed else 'nothing to do'}", INFO)
            self.dumps.keep(name, "hlo", lambda: module_text(module))
            self.stopped = self.options.stop_after == name
            return not self.stopped

        def report(note: Note) -> None:
            self.journal.note(str(note), WARNING if note.is_warning else INFO)

        weights = frozenset(n for n, number in enumerate(self.signature.numbers) if number in self.signature.weights)
        piece = piece_bytes(self.build.module, weights, self.build.target, self.options.neuroncore_pipeline_cores)
        settings = replace(pass_settings(self.options, self.build.target, piece), report=report, weights=weights)
        # --keep-on-host goes by names, which are each layer's own
        watched = bool(self.dumps.folder or self.options.stop_after or self.options.keep_on_host or self.journal.hears_all)
        run_pipeline(self.build.module, settings, disabled=self.options.disable_pass, observe=observe, watched=watched)

    def _partition(self) -> None:
        build = self.build
        build.tensors = self.signature.tensors(build.module)
        predicate = partial(unsupported, target=build.target)
        kept = host_pattern(self.options).pattern if self.options.keep_on_host else ""
        plan = partition(build.module, predicate, kept, [t.name for t in build.tensors], _placement(build, self.options))
        if self.options.host_fallback == "forbid":
            raise_problems([CompileError(UNSUPPORTED, f"{row.opcode} cannot run on {build.target.name}", row.instruction,
                                         row.source, row.reason, "--host-fallback allow would run it on the host")
                            for row in plan.host])
        raise_problems(list(_refusals(plan)))
        build.plan = plan
        self.dumps.keep("partition", "txt", lambda: plan_text(plan))

    def _lower(self) -> None:
        build = self.build
        assert build.plan is not None
        lowering = lowering_of(build)
        cores = self.options.neuroncore_pipeline_cores
        if cores == 1:
            codes = [lowering.whole(build.plan)]
        else:
            build.plan, codes = pipelined(build.module, build.plan, lowering, cores)
        build.codes = tuple(codes)
        self.dumps.keep("lower", "txt", lambda: "\n".join(_machine_text(code) for code in codes))

    def _package(self) -> None:
        build = self.build
        assert build.plan is not None and build.codes
        labels = Labels(VERSION, build.options.effective(), self.flags, self.source.sha256, build.options.strip,
                        spreading(build.options, build.plan))
        build.package = package(build.module, build.tensors, build.plan, build.codes, build.target, labels)


def _refusals(plan: Plan) -> Iterator[CompileError]:
    """Why instructions that the device cannot run cannot be run by the host either."""
    for node in plan.nodes:
        for instruction in node.module.instructions() if not node.on_device else ():
            refuse = instruction.operator.refuse
            try:
                if refuse is not None:
                    refuse(instruction)
            except CompileError as error:
                yield error


def lowering_of(build: Build) -> Lowering:
    """How the device nodes of a build become code."""
    weights = frozenset(tensor.name for tensor in build.tensors if tensor.role == WEIGHT)
    assert build.plan is not None
    return Lowering(build.target, int(build.options.optlevel), weights, turns_bits(build.options, build.plan),
                    build.options.jobs, findings_of(build.options))


def _is_unbounded(shape: Shape) -> bool:
    return any(UNBOUNDED in leaf.dims for leaf in shape.leaves())


def pass_settings(options: CompileOptions, target: Target, piece_bytes: int = 0) -> Settings:
    """What the passes need to know of options and target. piece_bytes: see Settings."""
    options = resolved(options, target)
    # where streams are straight, code is written for each call, so equal blocks need not be equal regions; stages of a pipeline
    # are cut between regions
    spans = not target.features.registers and options.neuroncore_pipeline_cores == 1
    rows, images = TargetRowCapacity(target, matrix_bytes=piece_bytes), TargetImageCapacity(target, spans)
    if options.keep_on_host:
        rows = _RowsWithoutKept(target, matrix_bytes=piece_bytes, pattern=host_pattern(options))
        images = _ImagesWithoutKept(target, spans, pattern=host_pattern(options))
    return Settings(int(options.optlevel), options.auto_cast, options.auto_cast_type, rows, images,
                    is_straight=not target.features.control_flow, multiply_f8e4m3fn=options.multiply_f8e4m3fn,
                    exact_up_to=exact_up_to(options), dtypes=frozenset(device_dtypes(target)),
                    product_dtypes=frozenset(target.engines[Engine.PE].dtypes), window_cells=CELLS, piece_bytes=piece_bytes)


def host_pattern(options: CompileOptions) -> re.Pattern[str]:
    """The expression of --keep-on-host; CompileError(USAGE) if it is none."""
    try:
        return re.compile(options.keep_on_host)
    except re.error as error:
        raise CompileError(USAGE, f"--keep-on-host {options.keep_on_host!r} is no regular expression", why=str(error)) from None


@dataclass(frozen=True)
class _ImagesWithoutKept(TargetImageCapacity):
    """As _RowsWithoutKept, of image programs."""

    pattern: re.Pattern[str] = re.compile("")

    def supported(self, instruction: Instruction) -> bool:
        return not is_kept(self.pattern, instruction) and super().supported(instruction)


@dataclass(frozen=True)
class _RowsWithoutKept(TargetRowCapacity):
    """A row capacity that leaves out what the user keeps on the host, so that no region takes it along."""

    pattern: re.Pattern[str] = re.compile("")

    def supported(self, instruction: Instruction) -> bool:
        return not is_kept(self.pattern, instruction) and super().supported(instruction)


def _machine_text(code: DeviceCode) -> str:
    from nxcc.backends.isa.text import program_text
    return program_text(code.program)


def _check_stage_names(options: CompileOptions) -> None:
    """CompileError(USAGE) for a stage or pass that does not exist."""
    rows = ([("--stop-after", options.stop_after)] if options.stop_after else [])
    rows += [("--dump-after", name) for name in options.dump_after]
    problems = [_unknown_name(flag, name, stage_names()) for flag, name in rows if name not in stage_names()]
    problems += [_unknown_name("--disable-pass", name, PASS_NAMES) for name in options.disable_pass
                 if name not in PASS_NAMES]
    raise_problems(problems)


def _placement(build: Build, options: CompileOptions) -> Placement:
    """How to place what both sides can run; where nothing may run on the host, nothing is moved there."""
    by_cost = options.placement == "cost" and options.host_fallback == "allow"
    leaves = [parameter for parameter in build.module.entry.parameters for _ in parameter.shape.leaves()]
    weights = frozenset(parameter for parameter, tensor in zip(leaves, build.tensors, strict=True) if tensor.role == WEIGHT)
    return Placement(HostAndDevice(build.target) if by_cost else None, weights, options.min_region)


def _check_numbers(options: CompileOptions, target: Target) -> None:
    """CompileError(USAGE) for a number of cores that no machine has or the target cannot pipeline over, or a negative number of
    operations."""
    if options.min_region < 0:
        raise CompileError(USAGE, f"--min-region cannot be {options.min_region}", remedy="0 or more")
    count, most = options.neuroncore_pipeline_cores, target.cores.pipeline_max
    if 1 <= count <= most:
        return
    if most == 1 and count > 1:
        raise CompileError(USAGE, f"--neuroncore-pipeline-cores {count} on {target.name}",
                           why="NeuronCore Pipeline is v1's; the vendor's compiler for v2 has no such option",
                           remedy="--target v1, or leave the option out")
    raise CompileError(USAGE, f"--neuroncore-pipeline-cores cannot be {count}", why=f"{target.name} pipelines over 1 to {most} "
                       "cores", remedy="`nxcc check` proposes a number")


def _unknown_name(flag: str, name: str, known: tuple[str, ...]) -> CompileError:
    return CompileError(USAGE, f"{flag}: there is no {name!r}", remedy=one_of(name, known))


# Files


@dataclass()
class Request:
    """A compile as a user asks for it: which file, which options."""

    path: str
    options: CompileOptions
    journal: Journal = field(default_factory=lambda: Journal(quiet=True))


def compile_file(request: Request) -> Build:
    """Compile a model file into a NEFF; nothing is left behind if anything fails."""
    options, journal = request.options, request.journal
    output = options.output or default_output(request.path)
    if not options.stop_after:
        check_outputs([path for path in (output, options.depfile) if path], dependencies(request.path, options))
    stamps = stamps_of(dependencies(request.path, options))
    build = check_file(request)
    if build.package is None:
        return build
    if options.timing:
        build.package = _with_metrics(build.package, journal)

    def confirm() -> None:
        check_unchanged(stamps)
        write_depfile(output, request.path, options)

    with journal.stage("write"):
        header = write_neff(output, build.package, options.compress, confirm)
    build.output, build.neff_bytes = output, header.file_bytes
    return build


def check_file(request: Request) -> Build:
    """Everything that a compile does but writing."""
    options, journal = request.options, request.journal
    with journal.stage("read"):
        module = read_model(request.path, graph_request(options))
        options = replace(options, io_config=recorded_io_config(options.io_config))
        source = Source(file_sha256(request.path))
        if options.weights:
            source.weights, source.weights_path = _read_weights(options.weights), options.weights
    return compile_module(module, options, source, journal)


def graph_request(options: CompileOptions) -> GraphRequest:
    """What the options say about a TensorFlow graph."""
    return GraphRequest(options.framework, options.io_config, options.signature)


def _read_weights(path: str) -> ArrayFile:
    return read_arrays(path)


def _with_metrics(made: Package, journal: Journal) -> Package:
    times = {row.stage: round(row.cpu_s * 1e6) for row in journal.stages}
    return replace(made, metrics={"cpu_us": times})


def file_sha256(path: str) -> str:
    """Digest of a file; empty above MAX_HASHED_BYTES and for a folder."""
    if os.path.isdir(path):
        return ""
    data = map_file(path)
    return hashlib.sha256(data).hexdigest() if len(data) <= MAX_HASHED_BYTES else ""
