"""What a module says about its origin: locations, stack frame tables, statistics, original values.

Tables, statistics and original values are kept as the text that XLA prints for them (see ir/hlo/text), so that both forms
of a module are equal. Field meanings: HLO format reference, section 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from nxcc.ir.diagnostics import INVALID_MODULE, LIMIT_EXCEEDED, CompileError
from nxcc.ir.hlo.text.cursor import MAX_NESTING, Cursor, TextError, escape, unescape
from nxcc.ir.hlo.text.literals import float_text
from nxcc.ir.location import NOWHERE, Location

_LOCATION_FIELDS = tuple(f.name for f in fields(Location))
_NUMBERS = re.compile(r"([a-z_]+)=([0-9]+)")
_PLACE = ("file_name_id", "function_name_id", "line", "end_line", "column", "end_column")


def location_from_proto(message: Any, tables: Any) -> Location:
    """OpMetadata as a Location.

    tables: the module's StackFrameIndexProto. A frame that the tables do not have is dropped; where only the frame is
    known, file and line are looked up there.
    """
    location = Location(*(getattr(message, name) for name in _LOCATION_FIELDS))
    frame_id = location.stack_frame_id
    if not frame_id:
        return location if location != NOWHERE else NOWHERE
    if not 0 < frame_id <= len(tables.stack_frames):
        return replace(location, stack_frame_id=0)
    place_id = tables.stack_frames[frame_id - 1].file_location_id
    if location.source_file or not 0 < place_id <= len(tables.file_locations):
        return location
    place = tables.file_locations[place_id - 1]
    if not 0 < place.file_name_id <= len(tables.file_names):
        return location
    return replace(location, source_file=tables.file_names[place.file_name_id - 1], source_line=place.line,
                   source_end_line=place.end_line, source_column=place.column, source_end_column=place.end_column)


def location_to_proto(location: Location, message: Any) -> None:
    for name in _LOCATION_FIELDS:
        value = getattr(location, name)
        if value:
            setattr(message, name, value)


def tables_from_proto(message: Any) -> dict[str, tuple[str, ...]]:
    """StackFrameIndexProto as rows of text, without their numbers; a parent's number is one more in text."""
    return {
        "FileNames": tuple(f'"{escape(name)}"' for name in message.file_names),
        "FunctionNames": tuple(f'"{escape(name)}"' for name in message.function_names),
        "FileLocations": tuple("{" + " ".join(f"{name}={getattr(row, name)}" for name in _PLACE) + "}"
                               for row in message.file_locations),
        "StackFrames": tuple(f"{{file_location_id={row.file_location_id} parent_frame_id={row.parent_frame_id + 1}}}"
                             for row in message.stack_frames)}


def tables_to_proto(tables: Mapping[str, tuple[str, ...]], message: Any) -> None:
    message.file_names.extend(unescape(row) for row in tables["FileNames"])
    message.function_names.extend(unescape(row) for row in tables["FunctionNames"])
    for row in tables["FileLocations"]:
        message.file_locations.add(**_numbers(row))
    for row in tables["StackFrames"]:
        found = _numbers(row)
        message.stack_frames.add(file_location_id=found.get("file_location_id", 0),
                                 parent_frame_id=max(0, found.get("parent_frame_id", 1) - 1))


def _numbers(row: str) -> dict[str, int]:
    return {key: int(value) for key, value in _NUMBERS.findall(row)}


def statistics_from_proto(message: Any) -> str:
    """`{visualizing_index=0,count_nan=1}`; empty without statistics."""
    if not message.statistics:
        return ""
    rows = "".join(f",{row.stat_name}={float_text(row.stat_val)}" for row in message.statistics)
    return f"{{visualizing_index={message.stat_index_to_visualize}{rows}}}"


def statistics_to_proto(text: str, message: Any) -> None:
    for key, value in (part.split("=", 1) for part in text.strip("{}").split(",") if part):
        if key == "visualizing_index":
            message.stat_index_to_visualize = int(value)
        else:
            message.statistics.add(stat_name=key, stat_val=float(value.split("(")[0]))


# Original values: a tree of names, flat in the protobuf with the path to each leaf


def origin_from_proto(message: Any) -> str:
    """`{({"p" {0}}, {"p" {1}})}` or `{[synthetic_call]}`; empty without an original value."""
    if message.is_synthetic_call:
        return "{[synthetic_call]}"
    if any(len(element.shape_index) > MAX_NESTING for element in message.elements):
        raise CompileError(LIMIT_EXCEEDED, f"an original value nests more than {MAX_NESTING} deep")
    leaves = {tuple(element.shape_index): _leaf(element) for element in message.elements}
    return "{" + _tree(leaves) + "}" if leaves else ""


def _leaf(element: Any) -> str:
    if not element.HasField("original_array"):
        return "{}"
    index = ",".join(map(str, element.original_array.shape_index))
    return f'{{"{element.original_array.instruction_name}"' + (f" {{{index}}}" if index else "") + "}"


def _tree(leaves: dict[tuple[int, ...], str]) -> str:
    """Nested parentheses in the order of the paths, deepest level first so that depth costs no recursion."""
    while leaves.keys() != {()}:
        depth = max(map(len, leaves))
        if depth == 0:
            break
        groups: dict[tuple[int, ...], list[tuple[int, str]]] = {}
        for path in [p for p in leaves if len(p) == depth]:
            groups.setdefault(path[:-1], []).append((path[-1], leaves.pop(path)))
        for parent, parts in groups.items():
            leaves[parent] = "(" + ", ".join(text for _, text in sorted(parts)) + ")"
    return leaves[()]


def origin_to_proto(text: str, message: Any) -> None:
    if text == "{[synthetic_call]}":
        message.is_synthetic_call = True
        return
    try:
        for path, name, index in _leaves(Cursor(text, 1, len(text) - 1)):
            element = message.elements.add(shape_index=path)
            if name is not None:
                element.original_array.instruction_name = name
                element.original_array.shape_index.extend(index)
    except TextError as error:
        raise CompileError(INVALID_MODULE, f"the original value {text} is not well formed", why=error.what) from None


def _leaves(cursor: Cursor) -> Iterator[tuple[tuple[int, ...], str | None, tuple[int, ...]]]:
    """Path, instruction name and index of each leaf; no name where the value is unknown."""
    path: list[int] = []
    while not cursor.at_end:
        if cursor.take("("):
            path.append(0)
        elif cursor.take(")"):
            path.pop()
        elif cursor.take(","):
            path[-1] += 1
        else:
            cursor.expect("{")
            name = cursor.string() if not cursor.at("}") else None
            index = cursor.integers() if cursor.at("{") else ()
            cursor.expect("}")
            yield tuple(path), name, index
