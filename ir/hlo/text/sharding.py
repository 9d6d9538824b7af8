"""Shardings in HLO text, in the braces form and, kept as text, the named mesh form."""

from __future__ import annotations

import math
import re

import numpy as np

from nxcc.ir.diagnostics import LIMIT_EXCEEDED
from nxcc.ir.hlo.attributes import Sharding
from nxcc.ir.hlo.text.cursor import MAX_NESTING, Cursor, TextError, escape
from nxcc.ir.hlo.text.metadata import read_location, write_location
from nxcc.ir.location import Location
from nxcc.ir.shapes import Shape

_MOST_DEVICES = 1 << 24
_KINDS = frozenset(("replicated", "manual", "unknown", "unreduced"))
_SUBGROUPS = frozenset(("replicated", "manual", "maximal", "unreduced"))
_REDUCTION = re.compile(r"sum|max|min")
_SUBGROUP_ORDER = ("maximal", "manual", "unknown", "unreduced", "replicated")
"""How XLA sorts the kinds of the trailing tile dimensions: by enum value, replicated last."""


def read_sharding(cursor: Cursor, depth: int = 0) -> Sharding:
    """`{replicated}`, `{devices=[2,2]<=[4]}`, a tuple of such in braces, or `{mesh[..], [..]}`."""
    cursor.expect("{")
    if cursor.at("{") or cursor.at("}"):
        elements: list[Sharding] = []
        while not cursor.take("}"):
            if elements:
                cursor.expect(",")
            if depth == MAX_NESTING:
                raise cursor.fail("shardings nest too deep")
            elements.append(read_sharding(cursor, depth + 1))
        return Sharding("tuple", elements=tuple(elements))
    if cursor.at("mesh") or cursor.at("maximal_mesh"):
        return _read_mesh(cursor)
    return _read_items(cursor)


def of_tuple(sharding: Sharding, shape: Shape) -> Sharding:
    """The sharding of a value of tuple shape: one written for the whole holds for each part."""
    if sharding.kind == "tuple":
        return sharding
    count = 0
    pending = [shape]
    while pending:
        part = pending.pop()
        pending += part.elements
        count += not part.is_tuple
    return Sharding("tuple", elements=(sharding,) * count) if count else sharding


def _read_items(cursor: Cursor) -> Sharding:
    """The items of one sharding, separated by blanks, up to and with the closing brace."""
    found: dict[str, object] = {}
    while not cursor.take("}"):
        word = cursor.word("an item of a sharding")
        if word in _KINDS or word == "maximal":
            found["kind"] = word
        elif word in ("shard_as", "shard_like"):
            found["shard_group"] = (word.removeprefix("shard_"), cursor.integer())
        elif word == "last_tile_dim_replicate":
            found["replicate_on_last_tile_dim"] = True
        elif word in _VALUES:
            cursor.expect("=")
            _VALUES[word](cursor, found)
        else:
            raise cursor.fail(f"{word!r} is no item of a sharding")
    return _normal(Sharding(**{"kind": "other", **found}), cursor)  # type: ignore[arg-type]


def _read_devices(cursor: Cursor, found: dict[str, object]) -> None:
    found["tile_dims"] = cursor.integers("[", "]")
    if cursor.take("<="):
        found["iota_dims"] = cursor.integers("[", "]")
        if cursor.take("T"):
            found["iota_perm"] = cursor.integers("(", ")")
        return
    devices = [cursor.integer()]
    while cursor.take(","):
        devices.append(cursor.integer())
    found["devices"] = tuple(devices)


def _read_last_dims(cursor: Cursor, found: dict[str, object]) -> None:
    cursor.expect("{")
    names: list[str] = []
    while not cursor.take("}"):
        if names:
            cursor.expect(",")
        names.append(cursor.word())
        if names[-1] not in _SUBGROUPS:
            raise cursor.fail(f"{names[-1]!r} is no kind of tile dimension")
    found["last_tile_dims"] = tuple(names)


def _read_device(cursor: Cursor, found: dict[str, object]) -> None:
    found["devices"] = (cursor.integer(),)


def _read_metadata(cursor: Cursor, found: dict[str, object]) -> None:
    """`{op_name="x"}`, or a list of such in braces."""
    probe = Cursor(cursor.text, cursor.position, cursor.end)
    probe.expect("{")
    if not probe.at("{"):
        found["metadata"] = (read_location(cursor),)
        return
    cursor.expect("{")
    locations: list[Location] = []
    while not cursor.take("}"):
        if locations:
            cursor.expect(",")
        locations.append(read_location(cursor))
    found["metadata"] = tuple(locations)


_VALUES = {"devices": _read_devices, "device": _read_device, "last_tile_dims": _read_last_dims, "metadata": _read_metadata}


def _normal(sharding: Sharding, cursor: Cursor) -> Sharding:
    """The form that XLA keeps: devices that were left out are 0, the last tile dimensions sorted by kind."""
    if sharding.kind != "other":
        return sharding
    count = math.prod(sharding.tile_dims)
    if not sharding.tile_dims or min(sharding.tile_dims) < 1:
        raise cursor.fail("a tiled sharding needs devices=[..]")
    if count > _MOST_DEVICES:
        raise TextError(cursor.position, f"a sharding lists at most {_MOST_DEVICES} devices", LIMIT_EXCEEDED)
    if sharding.iota_dims:
        if math.prod(sharding.iota_dims) != count:
            raise cursor.fail(f"devices=[..] has {count} tiles, the device list {math.prod(sharding.iota_dims)}")
        if sharding.iota_perm and sorted(sharding.iota_perm) != list(range(len(sharding.iota_dims))):
            raise cursor.fail("T(..) of a sharding is no permutation of the dimensions of its device list")
        iota_dims, iota_perm = canonical_iota(sharding.iota_dims, sharding.iota_perm)
        return _with_subgroups(_replace(sharding, iota_dims=iota_dims, iota_perm=iota_perm))
    if len(sharding.devices) > count:
        raise cursor.fail(f"devices=[..] has {count} tiles, {len(sharding.devices)} devices were listed")
    return _with_subgroups(_replace(sharding, devices=sharding.devices + (0,) * (count - len(sharding.devices))))


def _with_subgroups(sharding: Sharding) -> Sharding:
    if sharding.last_tile_dims:
        return _sorted_subgroups(sharding)
    return _sorted_replicas(sharding) if sharding.replicate_on_last_tile_dim and sharding.devices else sharding


def _sorted_replicas(sharding: Sharding) -> Sharding:
    """Devices that hold the same tile in ascending order."""
    size = sharding.tile_dims[-1]
    devices = sharding.devices
    groups = (sorted(devices[i:i + size]) for i in range(0, len(devices), size))
    return _replace(sharding, devices=tuple(d for group in groups for d in group))


def canonical_iota(dims: tuple[int, ...], permutation: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shortest form of a transposed iota: no dimension of size 1, none that stay neighbours; () for no transpose."""
    kept = [axis for axis in permutation or range(len(dims)) if dims[axis] != 1]
    runs: list[list[int]] = []
    wanted = -1
    for axis in kept:
        if axis == wanted:
            runs[-1].append(axis)
        else:
            runs.append([axis])
        wanted = next((a for a in range(axis + 1, len(dims)) if dims[a] != 1), -2)
    if len(runs) < 2:
        return (math.prod(dims),), ()
    ordered = sorted(runs)
    return tuple(math.prod(dims[a] for a in run) for run in ordered), tuple(ordered.index(run) for run in runs)


def _replace(sharding: Sharding, **changes: object) -> Sharding:
    from dataclasses import replace
    return replace(sharding, **changes)  # type: ignore[arg-type]


def _sorted_subgroups(sharding: Sharding) -> Sharding:
    """Sort the trailing tile dimensions by kind, permuting the device list with them."""
    kinds = sharding.last_tile_dims
    first = len(sharding.tile_dims) - len(kinds)
    order = sorted(range(len(kinds)), key=lambda i: _SUBGROUP_ORDER.index(kinds[i]))
    if first < 0 or order == list(range(len(kinds))) or len(set(kinds)) != len(kinds):
        return sharding
    axes = (*range(first), *(first + i for i in order))
    dims = tuple(sharding.tile_dims[a] for a in axes)
    names = tuple(kinds[i] for i in order)
    if sharding.iota_dims == (math.prod(sharding.tile_dims),):
        shape = tuple(d for d in sharding.tile_dims if d > 1)
        rank_of = {axis: index for index, axis in enumerate(a for a, d in enumerate(sharding.tile_dims) if d > 1)}
        permutation = tuple(rank_of[a] for a in axes if a in rank_of)
        return _replace(sharding, tile_dims=dims, last_tile_dims=names, iota_dims=shape, iota_perm=permutation)
    if sharding.iota_dims:
        devices = np.arange(math.prod(sharding.iota_dims)).reshape(sharding.iota_dims)
        devices = devices.transpose(sharding.iota_perm or range(devices.ndim))
    else:
        devices = np.array(sharding.devices)
    moved = devices.reshape(sharding.tile_dims).transpose(axes).reshape(-1)
    return _replace(sharding, tile_dims=dims, last_tile_dims=names, iota_dims=(), iota_perm=(), devices=tuple(moved.tolist()))


# The named form


def _read_mesh(cursor: Cursor) -> Sharding:
    """The named form, after its opening brace; kept as the text that XLA prints for it."""
    parts = [_mesh_name(cursor)]
    metadata: dict[str, object] = {}
    while not cursor.take("}"):
        cursor.take(",")
        if cursor.at("["):
            parts.append(_dim_list(cursor))
        else:
            _mesh_item(cursor, parts, metadata)
    return Sharding("other", mesh=", ".join(parts), **metadata)  # type: ignore[arg-type]


def _mesh_name(cursor: Cursor) -> str:
    if cursor.take("maximal_mesh"):
        cursor.expect("[")
        cursor.expect("device_id")
        cursor.expect("=")
        device = cursor.integer()
        cursor.expect("]")
        return f"maximal_mesh[device_id={device}]"
    cursor.expect("mesh")
    cursor.expect("[")
    axes: list[str] = []
    while not cursor.take("]"):
        if axes:
            cursor.expect(",")
        name = cursor.string()
        cursor.expect("=")
        axes.append(f"{_axis_name(name)}={cursor.integer()}")
    return "mesh[" + ",".join(axes) + "]"


def _axis_name(name: str) -> str:
    """The name in single quotes as XLA prints it; in double ones where braces in it would not be seen as quoted."""
    quote = '"' if "{" in name or "}" in name else "'"
    return quote + escape(name) + quote


def _mesh_item(cursor: Cursor, parts: list[str], metadata: dict[str, object]) -> None:
    """`device_ids=(..)`, `replicated={..}`, `unreduced=max{..}`, `metadata={..}` or a bare kind."""
    word = cursor.word("a part of a mesh sharding")
    if word not in _MESH_ITEMS:
        raise cursor.fail(f"{word!r} is no part of a mesh sharding")
    if not cursor.take("="):
        parts.append(word)
    elif word == "metadata":
        _read_metadata(cursor, metadata)
    elif word == "device_ids":
        parts.append("device_ids=" + _device_ids(cursor))
    else:
        reduction = cursor.match(_REDUCTION, "a reduction") if not cursor.at("{") else ""
        parts.append(f"{word}={reduction}{{{', '.join(_axes(cursor))}}}")


_MESH_ITEMS = frozenset(("device_ids", "replicated", "manual", "unreduced", "metadata"))


def _device_ids(cursor: Cursor) -> str:
    cursor.expect("(")
    if cursor.at("["):
        dims = cursor.integers("[", "]")
        text = "[" + ",".join(map(str, dims)) + "]"
        if cursor.take("T"):
            text += "T(" + ",".join(map(str, cursor.integers("(", ")"))) + ")"
        cursor.expect(")")
        return f"({text})"
    ids: list[int] = []
    while not cursor.take(")"):
        if ids:
            cursor.expect(",")
        ids.append(cursor.integer())
    return "(" + ",".join(map(str, ids)) + ")"


def _dim_list(cursor: Cursor) -> str:
    cursor.expect("[")
    dims: list[str] = []
    while not cursor.take("]"):
        if dims:
            cursor.expect(",")
        dims.append("{" + ", ".join(_axes(cursor)) + "}")
    return "[" + ", ".join(dims) + "]"


def _axes(cursor: Cursor) -> list[str]:
    cursor.expect("{")
    axes: list[str] = []
    while not cursor.take("}"):
        if axes:
            cursor.expect(",")
        if cursor.take("?"):
            axes.append("?")
            continue
        text = _axis_name(cursor.string())
        if cursor.take(":"):
            cursor.expect("(")
            before = cursor.integer()
            cursor.expect(")")
            text += f":({before}){cursor.integer()}"
        axes.append(text)
    return axes


def write_sharding(sharding: Sharding, index_comments: bool = False, metadata: bool = True) -> str:
    """The sharding as XLA prints it, braces included."""
    if sharding.kind == "tuple":
        parts = []
        for index, element in enumerate(sharding.elements):
            mark = f"/*index={index}*/" if index_comments and index and index % 5 == 0 else ""
            parts.append(mark + write_sharding(element, index_comments, metadata))
        return "{" + ", ".join(parts) + "}"
    items = [sharding.mesh] if sharding.mesh else _items(sharding)
    if sharding.shard_group:
        items.append(f"shard_{sharding.shard_group[0]} {sharding.shard_group[1]}")
    text = " ".join(items)
    if sharding.metadata and metadata:
        each = ["{" + write_location(m) + "}" for m in sharding.metadata]
        text += (", " if sharding.mesh else " ") + "metadata=" + (each[0] if len(each) == 1 else "{" + ", ".join(each) + "}")
    return "{" + text + "}"


def _items(sharding: Sharding) -> list[str]:
    if sharding.kind == "maximal":
        return ["maximal", f"device={sharding.devices[0] if sharding.devices else 0}"]
    if sharding.kind != "other":
        return [sharding.kind]
    text = "devices=[" + ",".join(map(str, sharding.tile_dims)) + "]"
    if sharding.iota_dims:
        text += "<=[" + ",".join(map(str, sharding.iota_dims)) + "]"
        if sharding.iota_perm and len(sharding.iota_dims) > 1:
            text += "T(" + ",".join(map(str, sharding.iota_perm)) + ")"
    else:
        text += ",".join(map(str, sharding.devices))
    items = [text]
    if sharding.replicate_on_last_tile_dim:
        items.append("last_tile_dim_replicate")
    if sharding.last_tile_dims:
        items.append("last_tile_dims={" + ", ".join(sharding.last_tile_dims) + "}")
    return items
