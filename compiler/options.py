"""Every option of a compile, declared once.

From a declaration derive: the command-line option with its help and its vendor spellings, the value that the NEFF
records, and the part of the cache key. Nothing heavy is imported here, since `--help` reads this file.
Sources of the vendor's options: CLI and NEFF reference, sections 1.1, 1.2 (neuronx-cc) and 3.1 to 3.3 (neuron-cc).
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields
from typing import Any

from nxcc.backends.targets import CHIPS, TARGET_OF
from nxcc.ir.diagnostics import USAGE, CompileError, near
from nxcc.ir.facts import dataclass


class Kind(enum.Enum):
    """What an option takes on the command line."""

    FLAG = "flag"
    CHOICE = "one of the choices"
    TEXT = "text"
    INPUT = "file that is read; `-` is the standard input"
    OUTPUT = "file that is written; `-` is the standard output"
    PLACE = "folder, or a file that grows"
    INTEGER = "integer"
    LEVEL = "level, may be left out"


PATHS = (Kind.INPUT, Kind.OUTPUT, Kind.PLACE)


class Role(enum.Enum):
    """What an option decides; the order is that of `--help`."""

    CODE = "what is compiled"
    REPORT = "what is written and shown"
    VENDOR = "understood for neuronx-cc and neuron-cc"


@dataclass(frozen=True)
class Option:
    """Declaration of one option.

    flags: spellings, the canonical one first. synonyms: values that stand for another. any_case: choices, in capitals, may be
    written in small letters. refused: values that are known
    but cannot be had, with the reason. changes_output: enters the cache key and is recorded in the NEFF; recorded_if_given:
    unless it has no value.
    """

    flags: tuple[str, ...]
    help: str
    kind: Kind
    role: Role
    metavar: str = ""
    choices: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    any_case: bool = False
    many: bool = False
    changes_output: bool = False
    recorded_if_given: bool = False

    @property
    def name(self) -> str:
        return self.flags[0]

    def canonical(self, value: str) -> str:
        """The choice that a word stands for; a word that stands for none as it is."""
        return self.synonyms.get(value, value.upper() if self.any_case else value)


def _option(default: Any, *flags: str, help: str, kind: Kind = Kind.TEXT, role: Role = Role.CODE, **rest: Any) -> Any:
    if rest.get("choices") and kind is Kind.TEXT:
        kind = Kind.CHOICE
    return field(default=default, metadata={"option": Option(flags, help, kind, role, **rest)})


def _flag(*flags: str, help: str, role: Role, **rest: Any) -> Any:
    return _option(False, *flags, help=help, kind=Kind.FLAG, role=role, **rest)


OPTLEVEL_HELP = "0: one instruction a region, operands in HBM, the plain judge. 1, 2, 3: optimised; products are cut by a \
rule at 1, by a search over the cost model at 2; at 3 more cuts, and choices in fused regions, are timed on the clock."
_NO_TRN = "nxcc compiles for " + " and ".join(f"{target} ({', '.join(chips)})" for target, chips in CHIPS.items())


@dataclass(frozen=True)
class CompileOptions:
    """What a compile is asked to do; a frozen value, so that a compile is a function of it."""

    target: str = _option(
        "v2", "--target", help=f"NeuronCore to compile for, or its chip: {', '.join(TARGET_OF)}.",
        choices=tuple(CHIPS), synonyms=TARGET_OF, refused=dict.fromkeys(("trn2", "trn2n", "trn3", "v3", "v4"), _NO_TRN),
        changes_output=True)
    framework: str = _option(
        "", "--framework", help="Kind of input; default: the content decides. XLA refuses graphs; TENSORFLOW takes for a graph "
        "what its content leaves open, and refuses HLO.", choices=("XLA", "TENSORFLOW"), any_case=True,
        refused=dict.fromkeys(("MXNET", "ONNX", "PYTORCH"), "nxcc reads HLO and TensorFlow graphs"))
    io_config: str = _option(
        "", "--io-config", kind=Kind.INPUT, metavar="FILE|JSON", changes_output=True,
        help="Inputs and outputs of a TensorFlow graph, as a file or as JSON itself: "
             '{"inputs": {"x:0": [[1, 3], "float32"]}, "outputs": ["y:0"]}; may be left out where the graph says it all.')
    signature: str = _option(
        "", "--signature", metavar="NAME", changes_output=True,
        help="Signature of a SavedModel to compile; default: serving_default.")
    auto_cast: str = _option(
        "", "--auto-cast", help="Which f32 operations compute in a smaller type; default: none on v2, all on v1, which has no "
        "f32 products and casts their operands in any case.", choices=("none", "matmult", "all"),
        synonyms={"matmul": "matmult"}, changes_output=True)
    auto_cast_type: str = _option(
        "", "--auto-cast-type", help="The type that --auto-cast uses; default: bf16. v1 multiplies bf16 and fp16 only.",
        choices=("bf16", "fp16", "tf32", "fp8_e4m3"), changes_output=True)
    relayout: str = _option(
        "", "--relayout", help="How operands of products are turned: fast, by products that spread a NaN or an "
        "infinity to other rows; exact, bit by bit. Default: exact if products read at most 65,536 elements in all; else fast, "
        "and a run in which something spreads is made again with exact code.",
        choices=("fast", "exact"), changes_output=True, recorded_if_given=True)
    multiply_f8e4m3fn: bool = _flag(
        "--experimental-unsafe-fp8e4m3fn-as-fp8e4m3", role=Role.CODE, changes_output=True, recorded_if_given=True,
        help="Multiply f8e4m3fn on the device instead of the host. Values keep their own meaning: they are held in bf16.")
    optlevel: str = _option(
        "2", "--optlevel", "-O", "--O", help=OPTLEVEL_HELP, choices=("0", "1", "2", "3"),
        changes_output=True)
    weights: str = _option(
        "", "--weights", kind=Kind.INPUT, metavar="W.npz|W.safetensors",
        help="Bind parameters, by number or name, to these values; they are cast and packed into the NEFF.")
    weight_params: str = _option(
        "", "--weight-params", metavar="SPEC", changes_output=True,
        help="Declare weights whose values `nxcc run --weights` brings: numbers, ranges and regular expressions on names, "
             "as in 0-198,layer.*,203.")
    host_fallback: str = _option(
        "allow", "--host-fallback", help="Whether what the device cannot do may run on the host.",
        choices=("allow", "forbid"), changes_output=True)
    placement: str = _option(
        "cost", "--placement", changes_output=True, choices=("cost", "support"),
        help="Where a module has to be split: cost also leaves to the host what does not pay for its transfers, support "
             "only what the device cannot run.")
    min_region: int = _option(
        1, "--min-region", kind=Kind.INTEGER, metavar="N", changes_output=True,
        help="Device regions of fewer operations join the host.")
    keep_on_host: str = _option(
        "", "--keep-on-host", metavar="REGEX", changes_output=True,
        help="Instructions whose HLO name or framework name matches stay on the host.")
    neuroncore_pipeline_cores: int = _option(
        1, "--neuroncore-pipeline-cores", "--num-neuroncores", kind=Kind.INTEGER, metavar="N", changes_output=True,
        help="Cut the graph into a pipeline over N cores, weights on chip where they fit; v1 only. `nxcc check` proposes N.")
    model_type: str = _option(
        "generic", "--model-type", help="A hint; it never changes results.",
        choices=("generic", "transformer", "unet-inference"), synonyms={"transformer-inference": "transformer"},
        changes_output=True)
    disable_pass: tuple[str, ...] = _option(
        (), "--disable-pass", metavar="PASS", many=True, changes_output=True, help="Leave out a pass (repeatable).")

    output: str = _option(
        "", "--output", "-o", kind=Kind.OUTPUT, role=Role.REPORT, metavar="FILE",
        help="Where to write; default: the input's stem with .neff in the current folder.")
    compress: bool = _flag("--compress", role=Role.REPORT, changes_output=True,
                           help="Compress the NEFF with gzip; its bytes then depend on the zlib in use.")
    strip: bool = _flag("--strip", role=Role.REPORT, changes_output=True,
                        help="Leave out the debug map and source names.")
    jobs: int = _option(1, "--jobs", "--num-parallel-jobs", kind=Kind.INTEGER, role=Role.REPORT, metavar="N",
                        help="Processes in which --optlevel 3 searches; the code is the same for any number.")
    workdir: str = _option("", "--workdir", kind=Kind.PLACE, role=Role.REPORT, metavar="DIR",
                           help="Keep every stage's text in this folder.")
    dump_after: tuple[str, ...] = _option(
        (), "--dump-after", role=Role.REPORT, metavar="STAGE", many=True,
        help="Keep the text after this stage or pass only (repeatable); into --workdir, else the current folder.")
    stop_after: str = _option("", "--stop-after", role=Role.REPORT, metavar="STAGE",
                              help="Stop after this stage or pass; no NEFF is written.")
    depfile: str = _option("", "--depfile", kind=Kind.OUTPUT, role=Role.REPORT, metavar="FILE",
                           help="Write a Makefile rule that names every file the output depends on.")
    cache: bool = _flag("--cache", role=Role.REPORT,
                        help="Take the output from the compile cache in the user's cache folder, or keep it there.")
    cache_dir: str = _option("", "--cache-dir", kind=Kind.PLACE, role=Role.REPORT, metavar="DIR",
                             help="As --cache, with the cache in this folder; default: NXCC_CACHE_DIR, if that is set.")
    no_cache: bool = _flag("--no-cache", role=Role.REPORT, help="Use no compile cache, whatever else says so.")
    json: bool = _flag("--json", role=Role.REPORT,
                       help="Report as one JSON object on stdout; `nxcc explain json` lists its keys.")
    timing: bool = _flag("--timing", role=Role.REPORT, help="Show the CPU seconds of each stage and record them in the NEFF.")
    quiet: bool = _flag("--quiet", "-q", role=Role.REPORT, help="Print nothing but errors.")
    verbose: str = _option("warning", "--verbose", kind=Kind.LEVEL, role=Role.REPORT, metavar="[LEVEL]",
                           help="debug, info, warning, error, critical or a number; without a level: info. Above warning only "
                           "errors are printed, between 30 and 40 (frameworks pass 35) with a dot a stage on a terminal.")
    logfile: str = _option("", "--logfile", kind=Kind.PLACE, role=Role.REPORT, metavar="FILE",
                           help="Write every message of the compile to this file.")
    compat_log: bool = _flag("--compat-log", role=Role.REPORT,
                             help="End with `Compiler status PASS` or `Compiler status FAIL` on stdout.")
    env_flags: bool = _flag("--env-flags", role=Role.VENDOR, help="Read further options from NEURON_CC_FLAGS.")
    query_compute: bool = _flag("--query-compute", role=Role.VENDOR, help="As `nxcc check`: decide, write nothing.")

    def effective(self) -> dict[str, Any]:
        """The options that decide the output, with their values, by name; recorded in the NEFF."""
        return {row.name.removeprefix("--"): getattr(self, name)
                for name, row in DECLARED.items()
                if row.changes_output and (getattr(self, name) or not row.recorded_if_given)}

    def flags(self) -> tuple[str, ...]:
        """The options that decide the output and are not at their default, as a command line would give them."""
        given = [(DECLARED[name], getattr(self, name)) for name in DECLARED
                 if DECLARED[name].changes_output and getattr(self, name) != getattr(CompileOptions, name)]
        return tuple(f"{row.name}={one}" if row.kind is not Kind.FLAG else row.name
                     for row, value in given for one in (value if row.many else (value,)))


DECLARED: dict[str, Option] = {f.name: f.metadata["option"] for f in fields(CompileOptions)}
"""Declarations by field name, in the order of `--help`."""

BY_FLAG: dict[str, tuple[str, Option]] = {flag: (name, row) for name, row in DECLARED.items() for flag in row.flags}


class Takes(enum.Enum):
    """What follows an accepted option on the command line."""

    NOTHING = "nothing"
    VALUE = "one value"
    WORDS = "words up to the next option or file"


@dataclass(frozen=True)
class Accepted:
    """An option of the vendor's that is accepted and does nothing here: why, and values that deserve no notice.

    refused: values that ask for what cannot be had, with the reason. choices: the other values there are, if the vendor
    says so; none: any. many: several of them, with commas between.
    """

    why: str
    takes: Takes = Takes.VALUE
    silent: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    many: bool = False

    @property
    def known(self) -> tuple[str, ...]:
        """All values, if the set is closed; else nothing."""
        return tuple(dict.fromkeys((*self.silent, *self.choices, *self.refused))) if self.choices else ()


_ONE_CORE = "v1 and v2 have one physical core a logical core"
_EXACT = "integer arithmetic is exact here"
_HEURISTICS = "it tunes the vendor's own passes"
_TUTORIAL = "it belongs to the vendor's early tutorials"
_LOGICAL = Accepted(_ONE_CORE, silent=("1",), choices=("1",), refused={"2": _ONE_CORE})

ACCEPTED: dict[str, Accepted] = {
    "--native-int64": Accepted("neither v1 nor v2 has 64-bit integers; what does not fit runs on the host",
                               silent=("default", "disabled"), choices=("enabled",)),
    "--implicit-integer-downcast": Accepted(
        _EXACT, silent=("default",), many=True,
        choices=("all", "none", "dot", "scatter", "all_reduce", "reduce_scatter", "pow")),
    "--distribution-strategy": Accepted("the module is compiled as it was partitioned",
                                        choices=("generic", "llm-training", "NEMO", "nemo", "FSDP")),
    "--logical-nc-config": _LOGICAL,
    "--lnc": _LOGICAL,
    "-lnc": _LOGICAL,
    "--enable-mixed-precision-accumulation": Accepted("accumulation is always f32", Takes.NOTHING),
    "--disable-mixed-precision-accumulation": Accepted("accumulation is always f32", Takes.NOTHING),
    "--enable-fast-context-switch": Accepted("weights are loaded when the NEFF is loaded", Takes.NOTHING),
    "--enable-fast-loading-neuron-binaries": Accepted("a NEFF is not compressed unless --compress is given", Takes.NOTHING),
    "--pipeline": Accepted("the whole compiler always runs", Takes.WORDS, silent=("compile",)),
    "--execute-repetition": Accepted("a NEFF runs once a request", silent=("1",)),
    "--tensorizer-options": Accepted(_HEURISTICS),
    "--internal-hlo2tensorizer-options": Accepted(_HEURISTICS),
    "--hlo2tensorizer-options": Accepted(_HEURISTICS),
    "--internal-backend-options": Accepted(_HEURISTICS),
    "--internal-max-instruction-limit": Accepted("loops stay loops, so there is no such limit"),
    "--hbm-scratchpad-page-size": Accepted("scratch memory is one arena"),
    "--disable-dge": Accepted("v1 and v2 have no descriptor generation", Takes.NOTHING),
    "--enable-internal-neff-wrapper": Accepted("no wrapper module is written", Takes.NOTHING),
    "--retry_failed_compilation": Accepted("failures are not remembered", Takes.NOTHING),
    "--log_level": Accepted("use --verbose"),
    "--dump": Accepted("use --workdir"),
    "--batching_en": Accepted(_TUTORIAL, Takes.NOTHING),
    "--rematerialization_en": Accepted(_TUTORIAL, Takes.NOTHING),
    "--spill_dis": Accepted(_TUTORIAL, Takes.NOTHING),
    "--sb_size": Accepted(_TUTORIAL),
    "--enable-replication": Accepted(_TUTORIAL, choices=("True", "False", "true", "false")),
    "--static-weights": Accepted(_TUTORIAL, Takes.NOTHING),
    "--topdown": Accepted(_TUTORIAL, Takes.NOTHING),
    "--spill_depth_limit": Accepted(_TUTORIAL),
    "--tensor-layout-heuristics": Accepted(_TUTORIAL),
    "--dynamic-batch-size": Accepted("shapes are static", Takes.NOTHING),
}
"""Options that have no meaning here: accepted with one line that says so."""

ACCEPTED_PREFIXES = ("--internal-", "--enable-internal-", "--enable-experimental-", "--experimental-")

REPLACED: dict[str, tuple[str, str]] = {
    "--enable-experimental-O1": ("--optlevel=1", "it is deprecated"),
    "--enable-saturate-infinity": ("--relayout=exact", "an infinity stays in its own row where no transpose is a product"),
}
"""Flags that stand for others, with the reason."""

FP32_CAST: dict[str, tuple[str, str]] = {
    "all": ("all", "bf16"), "all-fp16": ("all", "fp16"), "matmult": ("matmult", "bf16"),
    "matmult-bf16": ("matmult", "bf16"), "matmult-fp16": ("matmult", "fp16"),
}
"""Words of neuron-cc's --fp32-cast as (--auto-cast, --auto-cast-type)."""

FAST_MATH_PRESETS: dict[str, tuple[str, str]] = {"all": ("all", "fast"), "none": ("matmult-bf16", "exact")}
"""Presets of neuron-cc's --fast-math as (word of FP32_CAST, relayout)."""

FAST_MATH_CASTS: dict[str, str] = {f"fp32-cast-{word}": word for word in FP32_CAST}
FAST_MATH_RELAYOUTS: dict[str, str] = {"fast-relayout": "fast", "no-fast-relayout": "exact"}

FAST_MATH: tuple[str, ...] = (*FAST_MATH_PRESETS, *FAST_MATH_RELAYOUTS, *FAST_MATH_CASTS)
"""All words of --fast-math: at most one of each kind; the special ones override the preset's part."""

VERBOSITY = {"debug": 10, "info": 20, "user": 25, "warning": 30, "warn": 30, "error": 40, "critical": 50, "fatal": 50}


def verbosity(level: str) -> int | None:
    """A --verbose level as the number of Python's logging; None if it is no level."""
    word = level.lower()
    return VERBOSITY.get(word, int(word) if word.isdigit() else None)


# Values of Python callers


def options_from(**values: Any) -> CompileOptions:
    """Options from Python keywords, checked as the command line checks them; None is the default. CompileError(USAGE)."""
    for name in values:
        if name not in DECLARED:
            raise CompileError(USAGE, f"no compile option is named {name!r}", remedy=near(name, DECLARED))
    return CompileOptions(**{name: _from_python(name, DECLARED[name], value)
                             for name, value in values.items() if value is not None})


def _from_python(name: str, row: Option, value: Any) -> Any:
    if not row.many:
        return _FROM_PYTHON[row.kind](name, row, value)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refused_value(name, value, "a list of texts")
    return tuple(_FROM_PYTHON[row.kind](name, row, one) for one in value)


def _instance(name: str, value: Any, taken: type | tuple[type, ...], words: str) -> Any:
    """The value, if it is of a type; a bool is no integer here."""
    if not isinstance(value, taken) or (isinstance(value, bool) and taken is not bool):
        raise refused_value(name, value, words)
    return value


def _choice(name: str, row: Option, value: Any) -> str:
    word = row.canonical(str(_instance(name, value, (str, int), f"one of {', '.join(row.choices)}")))
    if word not in (*row.choices, getattr(CompileOptions, name)):
        raise CompileError(USAGE, f"{name} is {value!r}", why=row.refused.get(word, ""),
                           remedy=f"it may be {', '.join(row.choices)}")
    return word


def _level(name: str, row: Option, value: Any) -> str:
    words = f"a number or one of {', '.join(VERBOSITY)}"
    if verbosity(str(_instance(name, value, (str, int), words))) is None:
        raise refused_value(name, value, words)
    return str(value)


_FROM_PYTHON: dict[Kind, Callable[[str, Option, Any], Any]] = {
    Kind.FLAG: lambda name, row, value: _instance(name, value, bool, "True or False"),
    Kind.CHOICE: _choice,
    Kind.TEXT: lambda name, row, value: _instance(name, value, str, "a text"),
    Kind.INTEGER: lambda name, row, value: _instance(name, value, int, "an integer"),
    Kind.LEVEL: _level,
    **dict.fromkeys(PATHS, lambda name, row, value: path_value(name, value)),
}


def path_value(name: str, value: Any) -> str:
    """A file's name that a Python caller gave, as a text. CompileError(USAGE) for what is none."""
    path = os.fsdecode(_instance(name, value, (str, os.PathLike), "the path of a file"))
    if "\0" in path:
        raise refused_value(name, value, "a path, which holds no NUL")
    return path


def refused_value(name: str, value: Any, expected: str) -> CompileError:
    """The error for a value of a wrong type or form."""
    text = repr(value)
    return CompileError(USAGE, f"{name} is {type(value).__name__} {text if len(text) <= 40 else text[:40] + '..'}",
                        why=f"it should be {expected}")
