"""Files around a compile: what an output is made from, where it goes, and that neither changes meanwhile.

Light to import: a hit in the compile cache needs no more than this.
"""

from __future__ import annotations

import os

from nxcc.compiler.options import CompileOptions, Kind
from nxcc.ir.diagnostics import FILE_UNREADABLE, USAGE, CompileError
from nxcc.ir.files import check_writable, write_whole
from nxcc.ir.streams import STANDARD, is_standard_output, is_stream, refuse_terminal

_SUFFIXES = (".gz", ".pb", ".pbtxt", ".txt", ".hlo", ".hlo_module", ".hlomodule")
"""How exporters end the names of models, several of them one behind the other; of other files the last suffix goes."""


def default_output(path: str) -> str:
    """The input's stem with `.neff`, in the current folder."""
    name = stem = "file" if path == STANDARD else os.path.basename(os.path.normpath(path))
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    if stem == name and not os.path.isdir(path) and not name.endswith(".neff"):
        stem = os.path.splitext(name)[0]
    # what begins with a dash would be an option
    return os.path.join(".", f"{stem}.neff") if stem.startswith("-") else f"{stem or 'file'}.neff"


def dependencies(path: str, options: CompileOptions) -> list[str]:
    """Files and folders that the output is made from."""
    config = "" if options.io_config.lstrip().startswith("{") else options.io_config
    return [found for found in (path, options.weights, config) if found and not is_stream(found)]


def depfile_text(output: str, paths: list[str]) -> str:
    """A Makefile rule without a recipe. Raises CompileError(USAGE) for a name that make cannot have."""
    files = [file for path in paths for file in _files_of(path)]
    for name in (output, *files):
        if "\n" in name:
            raise CompileError(USAGE, f"--depfile: make has no name for {name!r}", why="a line ends in it")
    return f"{_for_make(output).replace('%', chr(92) + '%')}: {' '.join(map(_for_make, files))}\n"


def _for_make(name: str) -> str:
    """A name as make reads it."""
    return name.replace("$", "$$").replace("#", "\\#").replace(" ", "\\ ").replace(":", "\\:")


def write_depfile(output: str, model: str, options: CompileOptions) -> None:
    """The depfile, if one is asked for; to be called when the output is written and before it takes its place."""
    if options.depfile:
        write_whole(options.depfile, depfile_text(output, dependencies(model, options)))


def _files_of(path: str) -> list[str]:
    """The file itself; of a SavedModel's folder what is read there, since the folder stays the same when they change."""
    if not os.path.isdir(path):
        return [path]
    folders = [(path, "saved_model"), (os.path.join(path, "variables"), "")]
    return [os.path.join(folder, name) for folder, start in folders if os.path.isdir(folder)
            for name in sorted(os.listdir(folder)) if name.startswith(start)]


def check_outputs(outputs: list[str], inputs: list[str]) -> None:
    """Fail before the work is done if a result cannot be written, or would replace what it is made from."""
    for path in outputs:
        check_writable(path)
    check_names(outputs, inputs)


def check_names(outputs: list[str], inputs: list[str]) -> None:
    """Fail if a file would be written that is read, or one by two writers; devices may be, but not the standard output."""
    taken = {_place(path): "an input and an output" for path in inputs if not is_stream(path)}
    for path in outputs:
        place = _place(path)
        if place in taken and (place == STANDARD or os.path.isfile(place) or not os.path.exists(place)):
            raise CompileError(USAGE, f"{path} is {taken[place]}", remedy="choose another name for the output")
        taken[place] = "the name of two outputs"


def check_streams(given: list[tuple[str, Kind, str]]) -> bool:
    """Whether a file that is written comes out of the standard output.

    given: files of a command: what the user calls them, their kind and their name. CompileError(USAGE) if two of them share a
    standard stream, or `-` stands for what is no single file.
    """
    taken: dict[Kind, str] = {}
    for called, kind, path in given:
        if path == STANDARD and kind is Kind.PLACE:
            raise CompileError(USAGE, f"{called} cannot be {STANDARD}", why="only a single file can be a standard stream",
                               remedy=f"./{STANDARD} is a file or folder of that name")
        is_standard = is_standard_output(path) if kind is Kind.OUTPUT else path == STANDARD
        if is_standard and kind in taken:
            which = "input" if kind is Kind.INPUT else "output"
            raise CompileError(USAGE, f"{taken[kind]} and {called} share the standard {which}",
                               remedy="give a file for one of them")
        if is_standard:
            taken[kind] = called
    return Kind.OUTPUT in taken


def _place(path: str) -> str:
    return STANDARD if is_standard_output(path) else os.path.realpath(path)


def check_compile_names(model: str, options: CompileOptions) -> None:
    """`check_names` for all files of a compile; to be called before the log is opened, which empties it.

    CompileError(USAGE) also if the NEFF would go to a terminal.
    """
    output = "" if options.query_compute or options.stop_after else options.output or default_output(model)
    refuse_terminal(output)
    check_names([path for path in (output, options.depfile, options.logfile) if path], dependencies(model, options))


Stamp = tuple[int, int, int]


def stamps_of(paths: list[str]) -> dict[str, Stamp]:
    """Identity, size and time of change of the files that exist."""
    found = {path: os.stat(path) for path in paths if os.path.isfile(path)}
    return {path: (status.st_ino, status.st_size, status.st_mtime_ns) for path, status in found.items()}


def check_unchanged(stamps: dict[str, Stamp]) -> None:
    """CompileError(FILE_UNREADABLE) if a mapped input is no longer what was read."""
    for path in stamps:
        if stamps_of([path]).get(path) != stamps[path]:
            raise CompileError(FILE_UNREADABLE, f"{path} changed while it was compiled", why="another process wrote to it",
                               remedy="compile again when it is complete")
