"""What stands before the computations: attributes of the module line, and the tables of stack frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nxcc.ir.hlo.attributes import IoAlias
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.text.attributes import Style, braced, path
from nxcc.ir.hlo.text.cursor import Cursor, TextError, closing_brace, escape, is_braced, unescape
from nxcc.ir.hlo.text.shapes import parse_shape
from nxcc.ir.shapes import Shape, shape_text

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*=")
_NOT_IN_NAME = re.compile(r"^[^A-Za-z_]|[^A-Za-z0-9_.\-]")
"""Binary modules may have any text as name."""
_SPACE = re.compile(r"\s+")
_ALIAS_KIND = re.compile(r"may-alias|must-alias")
_FIELD = re.compile(r"([a-z_]+)=([0-9]+)")
TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


# Module attributes


def read_frontend(cursor: Cursor) -> dict[str, str]:
    """`{key="text",key2={json}}` in the order of the keys."""
    cursor.expect("{")
    found: dict[str, str] = {}
    while not cursor.take("}"):
        if found:
            cursor.expect(",")
        key = cursor.match(_KEY, "key=")[:-1]
        if cursor.at("{"):
            start, cursor.position = cursor.position, closing_brace(cursor.text, cursor.position)
            found[key] = cursor.text[start:cursor.position]
        else:
            found[key] = cursor.string()
    return dict(sorted(found.items()))


def write_frontend(attributes: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{key}={quoted_or_braced(attributes[key])}" for key in sorted(attributes)) + "}"


def quoted_or_braced(text: str) -> str:
    return text if is_braced(text) else f'"{escape(text)}"'


def _read_flag(cursor: Cursor) -> bool:
    word = cursor.word("true or false")
    if word not in ("true", "false"):
        raise cursor.fail(f"{word!r} is neither true nor false")
    return word == "true"


def _read_flags(cursor: Cursor) -> str:
    """One flag or a list of them, as the list that is printed."""
    flags: list[bool] = []
    if cursor.take("{"):
        while not cursor.take("}"):
            if flags:
                cursor.expect(",")
            flags.append(_read_flag(cursor))
    else:
        flags.append(_read_flag(cursor))
    return "{" + ",".join("true" if f else "false" for f in flags) + "}"


def _scheduled(module: Module, cursor: Cursor) -> None:
    module.is_scheduled = _read_flag(cursor)


def _count(field: str) -> Callable[[Module, Cursor], None]:
    def read(module: Module, cursor: Cursor) -> None:
        count = cursor.integer()
        if not 0 < count < 2**31:
            raise cursor.fail(f"{field} must be positive")
        setattr(module, field, count)
    return read


def _entry_layout(module: Module, cursor: Cursor) -> None:
    cursor.expect("{")
    cursor.expect("(")
    parameters: list[Shape] = []
    while not cursor.take(")"):
        if parameters:
            cursor.expect(",")
        parameters.append(parse_shape(cursor))
    cursor.expect("->")
    module.entry_layout = (tuple(parameters), parse_shape(cursor))
    cursor.expect("}")


def _aliases(module: Module, cursor: Cursor) -> None:
    cursor.expect("{")
    found: list[IoAlias] = []
    while not cursor.take("}"):
        if found:
            cursor.expect(",")
        output = cursor.integers()
        cursor.expect(":")
        cursor.expect("(")
        parameter = cursor.integer()
        cursor.expect(",")
        index = cursor.integers()
        kind = cursor.match(_ALIAS_KIND, "may-alias or must-alias") if cursor.take(",") else "may-alias"
        cursor.expect(")")
        found.append(IoAlias(output, parameter, index, kind))
    module.aliases = tuple(sorted(found, key=lambda a: a.output_index))


def _donors(module: Module, cursor: Cursor) -> None:
    cursor.expect("{")
    found: list[tuple[int, tuple[int, ...]]] = []
    while not cursor.take("}"):
        if found:
            cursor.expect(",")
        cursor.expect("(")
        parameter = cursor.integer()
        cursor.expect(",")
        found.append((parameter, cursor.integers()))
        cursor.expect(")")
    module.buffer_donors = tuple(found)


def _frontend(module: Module, cursor: Cursor) -> None:
    module.frontend_attributes = read_frontend(cursor)


def _flags(key: str) -> Callable[[Module, Cursor], None]:
    def read(module: Module, cursor: Cursor) -> None:
        module.header[key] = _read_flags(cursor)
    return read


def _passthrough(module: Module, cursor: Cursor) -> None:
    if _read_flag(cursor):
        module.header["alias_passthrough_params"] = "true"


def _verbatim(key: str) -> Callable[[Module, Cursor], None]:
    def read(module: Module, cursor: Cursor) -> None:
        cursor.skip()
        start = cursor.position
        end = closing_brace(cursor.text, start) if cursor.at("{") else cursor.end
        cursor.position = end
        module.header[key] = cursor.text[start:end]
    return read


def _recovery(module: Module, cursor: Cursor) -> None:
    """Old value : new value, and perhaps the text of a module that computes the old one; sorted, the first of equals kept."""
    cursor.expect("{")
    entries: dict[str, str] = {}
    while not cursor.take("}"):
        old = read_origin_array(cursor)
        cursor.expect(":")
        new = read_origin_array(cursor)
        recipe = ""
        if cursor.take(","):
            recipe = f',\n  "\n{_indented(cursor.string())}\n  "'
        entries.setdefault(old, f"  {old} : {new}{recipe}\n")
    module.header["origin_recovery_table"] = "{\n" + "".join(entries[old] for old in sorted(entries)) + "}\n"


def _indented(recipe: str) -> str:
    """The nested module in its long printed form, four blanks deeper, quotes escaped so that it can be read again."""
    from nxcc.ir.hlo.text.reader import read_text
    from nxcc.ir.hlo.text.writer import write_text
    escaped = write_text(read_text(recipe, name="origin_recovery_table")).replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join("    " + line if line.strip() else line.strip() for line in escaped.split("\n"))


def read_origin_array(cursor: Cursor) -> str:
    """`{"name" {0}}` with canonical blanks; an empty index is left out."""
    cursor.expect("{")
    if cursor.take("}"):
        return "{}"
    name = cursor.string()
    index = cursor.integers() if cursor.at("{") else ()
    cursor.expect("}")
    return f'{{"{escape(name)}"' + (f" {braced(index)}" if index else "") + "}"


_READERS: dict[str, Callable[[Module, Cursor], None]] = {
    "is_scheduled": _scheduled, "replica_count": _count("replica_count"), "num_partitions": _count("num_partitions"),
    "alias_passthrough_params": _passthrough, "entry_computation_layout": _entry_layout, "input_output_alias": _aliases,
    "buffer_donor": _donors, "frontend_attributes": _frontend,
    "allow_spmd_sharding_propagation_to_parameters": _flags("allow_spmd_sharding_propagation_to_parameters"),
    "allow_spmd_sharding_propagation_to_output": _flags("allow_spmd_sharding_propagation_to_output"),
    "origin_recovery_table": _recovery, "debug_attributes": _verbatim("debug_attributes")}


def read_module_attribute(module: Module, key: str, cursor: Cursor, offset: int) -> None:
    """Store one attribute of the module line."""
    read = _READERS.get(key)
    if read is None:
        raise TextError(offset, f"modules have no attribute {key!r}", remedy="known are " + ", ".join(_READERS))
    read(module, cursor)
    cursor.finish()


def write_header(module: Module, style: Style) -> str:
    """The module line, its attributes in XLA's order."""
    parts = ["HloModule " + (_NOT_IN_NAME.sub("_", module.name) or "_")]
    if module.is_scheduled:
        parts.append("is_scheduled=true")
    if module.aliases:
        entries = (f"{path(a.output_index)}: ({a.parameter}, {path(a.parameter_index)}, {a.kind})" for a in module.aliases)
        parts.append("input_output_alias={ " + ", ".join(entries) + " }")
    if module.buffer_donors:
        parts.append("buffer_donor={ " + ", ".join(f"({p}, {path(i)})" for p, i in module.buffer_donors) + " }")
    parts += _from_header(module, ("alias_passthrough_params",))
    parts.append("entry_computation_layout=" + _layout_text(module, style))
    parts += _from_header(module, ("allow_spmd_sharding_propagation_to_parameters",
                                   "allow_spmd_sharding_propagation_to_output"))
    if module.replica_count != 1:
        parts.append(f"replica_count={module.replica_count}")
    if module.num_partitions != 1:
        parts.append(f"num_partitions={module.num_partitions}")
    if module.frontend_attributes:
        parts.append("frontend_attributes=" + write_frontend(module.frontend_attributes))
    parts += _from_header(module, ("origin_recovery_table", "debug_attributes"))
    return ", ".join(parts)


def _from_header(module: Module, keys: Iterable[str]) -> list[str]:
    return [f"{key}={module.header[key]}" for key in keys if key in module.header]


def entry_layout(module: Module) -> tuple[tuple[Shape, ...], Shape]:
    """The layouts of the caller's buffers: as declared, else those of the parameters and the root."""
    if module.entry_layout is not None:
        return module.entry_layout
    return tuple(p.shape for p in module.entry.parameters), module.entry.root.shape


def _layout_text(module: Module, style: Style) -> str:
    parameters, result = entry_layout(module)
    texts = []
    for index, shape in enumerate(parameters):
        mark = f"/*index={index}*/" if style.comments and index and index % 5 == 0 else ""
        texts.append(mark + shape_text(shape, index_comments=style.comments))
    return "{(" + ", ".join(texts) + ")->" + shape_text(result, index_comments=style.comments) + "}"


# Stack frames


def read_tables(tables: Iterable[tuple[str, tuple[str, ...]]], offset: int) -> dict[str, tuple[str, ...]]:
    """The tables by name, each row as text without its number."""
    found = dict(tables)
    for name in TABLES:
        found.setdefault(name, ())
    for name in TABLES[:2]:
        if any(row[0] == "{" for row in found[name]):
            raise TextError(offset, f"rows of {name} are text in quotes")
    for name in TABLES[2:]:
        if any(row[0] != "{" for row in found[name]):
            raise TextError(offset, f"rows of {name} are {{key=number ..}}")
    return {name: tuple(_SPACE.sub(" ", row) if row[0] == "{" else f'"{escape(unescape(row))}"' for row in found[name])
            for name in TABLES}


class StackTables:
    """The rows that the instructions use, numbered anew in order of first use."""

    __slots__ = ("_rows", "_numbers", "_written")

    def __init__(self, tables: Any) -> None:
        self._rows: Mapping[str, tuple[str, ...]] = tables or {}
        self._numbers: dict[tuple[str, int], int] = {}
        self._written: dict[str, list[str]] = {name: [] for name in TABLES}

    def frame(self, number: int) -> int:
        """The new number of a stack frame; 0 if there is no such row. Parents are numbered before their children."""
        chain: list[int] = []
        rows = self._rows.get("StackFrames", ())
        while 0 < number <= len(rows) and ("StackFrames", number) not in self._numbers and number not in chain:
            chain.append(number)
            number = _fields(rows[number - 1]).get("parent_frame_id", 1) - 1
        parent = self._numbers.get(("StackFrames", number), 0)
        for frame in reversed(chain):
            location = self._location(_fields(rows[frame - 1]).get("file_location_id", 0))
            self._written["StackFrames"].append(f"{{file_location_id={location} parent_frame_id={parent + 1}}}")
            parent = self._numbers["StackFrames", frame] = len(self._written["StackFrames"])
        return parent

    def _location(self, number: int) -> int:
        rows = self._rows["FileLocations"]
        if not 0 < number <= len(rows):
            return 0
        if ("FileLocations", number) not in self._numbers:
            fields = _fields(rows[number - 1])
            fields["file_name_id"] = self._name("FileNames", fields.get("file_name_id", 0))
            fields["function_name_id"] = self._name("FunctionNames", fields.get("function_name_id", 0))
            self._add("FileLocations", number, "{" + " ".join(f"{k}={v}" for k, v in fields.items()) + "}")
        return self._numbers["FileLocations", number]

    def _name(self, table: str, number: int) -> int:
        rows = self._rows[table]
        if not 0 < number <= len(rows):
            return 0
        if (table, number) not in self._numbers:
            self._add(table, number, rows[number - 1])
        return self._numbers[table, number]

    def _add(self, table: str, number: int, row: str) -> None:
        self._written[table].append(row)
        self._numbers[table, number] = len(self._written[table])

    def text(self) -> str:
        """The tables as they stand between the module line and the computations; empty if no frame was asked for."""
        if not self._written["StackFrames"]:
            return ""
        return "".join(f"{name}\n" + "".join(f"{i} {row}\n" for i, row in enumerate(self._written[name], 1)) + "\n"
                       for name in TABLES) + "\n"


def frame_place(tables: Mapping[str, tuple[str, ...]] | None, number: int) -> dict[str, str | int]:
    """File and lines of a stack frame, as the fields of a Location; empty if a row is missing."""
    if not tables or not 0 < number <= len(tables["StackFrames"]):
        return {}
    place = _fields(tables["StackFrames"][number - 1]).get("file_location_id", 0)
    if not 0 < place <= len(tables["FileLocations"]):
        return {}
    row = _fields(tables["FileLocations"][place - 1])
    file = row.get("file_name_id", 0)
    if not 0 < file <= len(tables["FileNames"]):
        return {}
    return {"source_file": unescape(tables["FileNames"][file - 1]), "source_line": row.get("line", 0),
            "source_end_line": row.get("end_line", 0), "source_column": row.get("column", 0),
            "source_end_column": row.get("end_column", 0)}


def frame_chain(tables: Mapping[str, tuple[str, ...]] | None, number: int) -> tuple[str, ...]:
    """A stack frame and its parents as text, whatever their numbers: place, file and function of each."""
    chain: list[str] = []
    rows = tables["StackFrames"] if tables else ()
    while tables and 0 < number <= len(rows) and len(chain) < len(rows):
        frame = _fields(rows[number - 1])
        place = _row(tables["FileLocations"], frame.get("file_location_id", 0))
        ids = _fields(place)
        file = _row(tables["FileNames"], ids.pop("file_name_id", 0))
        function = _row(tables["FunctionNames"], ids.pop("function_name_id", 0))
        chain.append(f"{ids} {file} {function}")
        number = frame.get("parent_frame_id", 1) - 1
    return tuple(chain)


def _row(rows: tuple[str, ...], number: int) -> str:
    return rows[number - 1] if 0 < number <= len(rows) else ""


def _fields(row: str) -> dict[str, int]:
    return {key: int(value[:18]) for key, value in _FIELD.findall(row)}
