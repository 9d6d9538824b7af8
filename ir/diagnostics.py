"""Errors that a user can cause: one exception type, one table of codes, from which `nxcc explain` and the docs derive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from nxcc.ir.facts import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """A stable diagnostic code: its one-line meaning, the exit status it ends in, and a longer explanation."""

    name: str
    title: str
    explanation: str
    exit_status: int = 1


CODES: dict[str, Code] = {}


def code(name: str, title: str, explanation: str, exit_status: int = 1) -> Code:
    """Declare a code; each is declared once, here, and raised by reference."""
    assert name not in CODES, f"{name} declared twice"
    row = Code(name, title, explanation, exit_status)
    CODES[name] = row
    return row


# 00xx: command line and files
USAGE = code("NXC0001", "wrong usage", "An option or argument is unknown, missing or contradicts another.", 2)
FILE_UNREADABLE = code("NXC0002", "file cannot be read", "The file is missing, is a folder, or may not be read.")
FILE_UNWRITABLE = code("NXC0003", "file cannot be written",
                       "The output folder is missing, read-only or full. Nothing was left behind.")
INTERNAL = code("NXC0009", "internal error",
                "A fault in nxcc itself. The message names pass, region and instruction; please report it.", 70)
# 01xx: reading modules
EMPTY_INPUT = code("NXC0100", "empty input", "The file holds no bytes.")
UNKNOWN_FORMAT = code("NXC0101", "format not recognised",
                      "The file is neither HLO text, a serialized HloModuleProto or HloProto, nor a GraphDef.")
PROTO_CORRUPT = code("NXC0102", "serialized module is truncated or corrupt",
                     "A record of the protobuf wire format runs past its container or has an impossible tag; "
                     "the byte offset tells where.")
TEXT_SYNTAX = code("NXC0103", "HLO text does not parse", "The text departs from the HLO grammar at this line and column.")
ELIDED_CONSTANT = code("NXC0104", "constant was elided when the text was printed",
                       "`{...}` stands where values should be. Dump again with large constants: "
                       "--xla_dump_large_constants, or print_large_constants=True in HloPrintOptions.")
UNKNOWN_OPERATOR = code("NXC0105", "operator does not exist", "No HLO operator of this name is known.")
INVALID_MODULE = code("NXC0106", "module is not valid HLO",
                      "An instruction breaks a rule of HLO: operand count, shapes, dtypes, attributes or references.")
LIMIT_EXCEEDED = code("NXC0107", "input exceeds a limit",
                      "Nesting, a declared size or a count is beyond what nxcc reads; see the message for the limit.")
GRAPH_INVALID = code("NXC0110", "TensorFlow graph is not valid",
                     "A node, edge, attribute or tensor breaks a rule of GraphDef; the message names the node. A graph with "
                     "variables must be frozen, or given as a SavedModel folder with its checkpoint.")
GRAPH_OPERATOR = code("NXC0111", "TensorFlow operator cannot be compiled",
                      "The operator is unknown, or works on strings, resources or other values that HLO does not have. Cut the "
                      "graph there: --io-config may name any tensor of the graph as an input or output.")
GRAPH_DYNAMIC = code("NXC0112", "shape is not known at compile time",
                     "A shape, axis, count or size depends on input values, or a dimension of an input is unknown. Give the "
                     "input's shape in --io-config.")
IO_CONFIG = code("NXC0113", "io-config does not fit the graph",
                 "--io-config is a JSON object with `inputs` (tensor name to [shape, dtype]) and `outputs` (tensor names); "
                 "names, ranks, sizes and dtypes must be those of the graph.")
CHECKPOINT = code("NXC0114", "checkpoint cannot be read",
                  "The variables of a SavedModel are missing, damaged, or stored in a way that nxcc does not read; freeze the "
                  "graph with TensorFlow's convert_variables_to_constants_v2 instead.")
# 02xx: weights, inputs
WEIGHT_MISSING = code("NXC0200", "weight missing", "A declared weight has no value in the weights file.")
WEIGHT_UNEXPECTED = code("NXC0201", "weight not expected", "The weights file holds a tensor that no parameter takes.")
WEIGHT_MISMATCH = code("NXC0202", "weight has the wrong shape or dtype",
                       "Shape and dtype of a weight must be those of its parameter; bf16 and fp8 in an npz are unsigned "
                       "bit patterns.")
INPUT_MISMATCH = code("NXC0203", "input has the wrong shape or dtype",
                      "Inputs are `input0..` in parameter order, weights left out; shape and dtype must be the parameter's.")
ARRAYS_UNREADABLE = code("NXC0204", "array file cannot be read",
                         "The npz or safetensors file is damaged, or holds Python objects (pickles), which are never loaded.")
# 03xx: compiling
UNSUPPORTED = code("NXC0300", "operator not supported on the target",
                   "The device cannot run this instruction, and host regions were forbidden or cannot take it.")
UNSUPPORTED_MODULE = code("NXC0301", "module feature not supported",
                          "The module asks for something nxcc does not do: more than one replica, unbounded dimensions, "
                          "host transfers.")
OUT_OF_MEMORY = code("NXC0302", "does not fit the device", "A region needs more on-chip or device memory than the target has.")
UNKNOWN_CUSTOM_CALL = code("NXC0303", "unknown custom call target", "nxcc knows no meaning for this custom-call target.")
PIPELINE = code("NXC0304", "graph cannot be cut into these stages",
                "A pipeline over several cores needs at least one device instruction a core, and a core for each device region "
                "between host parts. `nxcc check` lists regions and proposes a number of cores.")
# 04xx: NEFF and machine code
NEFF_INVALID = code("NXC0400", "not a valid NEFF", "Header, archive or a member breaks the container's rules.")
NEFF_VERSION = code("NXC0401", "NEFF version or feature not supported", "The file was written by a newer or another compiler.")
NEFF_TARGET = code("NXC0402", "NEFF is for another target", "The file was compiled for another NeuronCore generation.")
PROGRAM_INVALID = code("NXC0403", "machine program breaks a rule",
                       "The machine verifier refused the program: limits, addresses, initialisation, ordering or waits.")
UNTIMED_LOOP = code("NXC0404", "a loop takes too long to be timed",
                    "The clock leaves out turns of a long loop that repeat those before them. In this one no turn is like "
                    "another. Give fewer turns with --trips where the end depends on data, or compile a part of the module.")
# 05xx: verification
MISMATCH = code("NXC0500", "results differ", "An output differs from the expected values by more than the tolerance.")


@dataclass()
class CompileError(Exception):
    """What a user can cause.

    code: row of the table above; what: one line; where: instruction or file position; location: framework source;
    why: the reason; remedy: what to do.
    """

    code: Code
    what: str
    where: str = ""
    location: str = ""
    why: str = ""
    remedy: str = ""
    details: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        text = f"{self.code.name}: {self.what}"
        if self.where:
            text += f" [at {self.where}]"
        if self.location:
            text += f" [from {self.location}]"
        if self.why:
            text += f": {self.why}"
        if self.remedy:
            text += f"; {self.remedy}"
        return text


def one_of(given: str, known: Iterable[str]) -> str:
    """What to write instead of an unknown word: the nearest known one, and all of them."""
    words = list(known)
    return f"{near(given, words)} one of {', '.join(words)}".lstrip()


def near(given: str, known: Iterable[str], least: float = 0.6) -> str:
    """The nearest known word as a question; empty text if none is as like as that, from 0 to 1."""
    import difflib
    found = difflib.get_close_matches(given, list(dict.fromkeys(known)), 1, least)
    return f"did you mean {found[0]}?" if found else ""
