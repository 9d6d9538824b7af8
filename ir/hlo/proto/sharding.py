"""OpSharding, meshes and device groups, to records and back.

The named mesh forms are kept as the text that XLA prints for them, as ir/hlo/text does. Field meanings: HLO format
reference, section 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nxcc.ir.diagnostics import INVALID_MODULE, CompileError
from nxcc.ir.hlo.attributes import ReplicaGroups, Sharding
from nxcc.ir.hlo.proto.metadata import location_from_proto, location_to_proto
from nxcc.ir.hlo.text.cursor import Cursor, TextError, escape

KINDS = ("replicated", "maximal", "tuple", "other", "manual", "unknown", "unreduced")
"""Sharding.kind by the number of OpSharding.Type."""
_GROUP_TYPES = ("as", "like")
_REDUCTIONS = ("sum", "max", "min")


def sharding_from_proto(message: Any, tables: Any) -> Sharding:
    """The record of an OpSharding; nesting is bounded by the protobuf parser."""
    if message.HasField("named_sharding"):
        named = message.named_sharding
        metadata = tuple(location_from_proto(m, tables) for m in named.metadata)
        return Sharding("other", mesh=_named_text(named), metadata=metadata)
    kind = _name(KINDS, message.type, "sharding type")
    dims, perm = tuple(message.iota_reshape_dims), tuple(message.iota_transpose_perm)
    return Sharding(
        kind, tuple(message.tile_assignment_dimensions) if kind == "other" else (), tuple(message.tile_assignment_devices),
        dims, () if perm == tuple(range(len(dims))) else perm, message.replicate_on_last_tile_dim,
        tuple(_name(KINDS, t, "sharding type") for t in message.last_tile_dims),
        (_name(_GROUP_TYPES, message.shard_group_type, "shard group type"), message.shard_group_id)
        if message.is_shard_group else None,
        tuple(sharding_from_proto(part, tables) for part in message.tuple_shardings),
        tuple(location_from_proto(m, tables) for m in message.metadata))


def _name(names: tuple[str, ...], number: int, what: str) -> str:
    if not 0 <= number < len(names):
        raise CompileError(INVALID_MODULE, f"{what} {number} is not known", why="known are " + ", ".join(names))
    return names[number]


def sharding_to_proto(sharding: Sharding, message: Any) -> None:
    target = message
    if sharding.mesh:
        target = message.named_sharding
        _parse(_named_to_proto, sharding.mesh, target)
    else:
        message.type = KINDS.index(sharding.kind)
        message.tile_assignment_dimensions.extend(sharding.tile_dims)
        message.tile_assignment_devices.extend(sharding.devices)
        message.iota_reshape_dims.extend(sharding.iota_dims)
        message.iota_transpose_perm.extend(sharding.iota_perm or range(len(sharding.iota_dims)))
        message.replicate_on_last_tile_dim = sharding.replicate_on_last_tile_dim
        message.last_tile_dims.extend(KINDS.index(kind) for kind in sharding.last_tile_dims)
        for element in sharding.elements:
            sharding_to_proto(element, message.tuple_shardings.add())
    if sharding.shard_group:
        message.is_shard_group = True
        message.shard_group_type = _GROUP_TYPES.index(sharding.shard_group[0])
        message.shard_group_id = sharding.shard_group[1]
    for location in sharding.metadata:
        location_to_proto(location, target.metadata.add())


def groups_from_proto(message: Any) -> ReplicaGroups:
    """The device groups of an instruction in whichever of the four places they are."""
    if message.HasField("iota_collective_device_list"):
        iota = message.iota_collective_device_list
        dims = tuple(iota.iota_reshape_dims)
        permutation = tuple(iota.iota_transpose_perm) or tuple(range(len(dims)))
        if sorted(permutation) != list(range(len(dims))):
            raise CompileError(INVALID_MODULE, "iota_transpose_perm of the device groups is no permutation")
        return ReplicaGroups(iota=(iota.num_replica_groups, iota.num_devices_per_group, dims, permutation))
    if message.HasField("mesh_axes_replica_group_list"):
        groups = message.mesh_axes_replica_group_list
        return ReplicaGroups(mesh=f"{_mesh_text(groups.mesh)} {_axes_text(groups.axes, groups.mesh)}")
    return ReplicaGroups(tuple(tuple(g.replica_ids) for g in message.collective_device_list.replica_groups
                               or message.replica_groups))


def groups_to_proto(groups: ReplicaGroups, message: Any) -> None:
    if groups.iota:
        count, size, dims, permutation = groups.iota
        iota = message.iota_collective_device_list
        iota.num_replica_groups, iota.num_devices_per_group = count, size
        iota.iota_reshape_dims.extend(dims)
        iota.iota_transpose_perm.extend(permutation)
    elif groups.mesh:
        _parse(_mesh_groups_to_proto, groups.mesh, message.mesh_axes_replica_group_list)
    else:
        message.collective_device_list.SetInParent()
        for ids in groups.groups:
            message.collective_device_list.replica_groups.add(replica_ids=ids)


# Meshes as text


def _named_text(named: Any) -> str:
    """`mesh['a'=2,'b'=2], [{'a'}, {'b', ?}], replicated={..}, unreduced={..}`"""
    parts = [_mesh_text(named.mesh)]
    if named.dim_shardings:
        dims = (_axes_text(d.axes, named.mesh, not d.is_closed) for d in named.dim_shardings)
        parts.append("[" + ", ".join(dims) + "]")
    reduction = _name(_REDUCTIONS, named.reduction_op, "reduction") if named.reduction_op else ""
    for start, axes in (("replicated=", named.replicated_axes), ("manual=", named.manual_axes),
                        (f"unreduced={reduction}", named.unreduced_axes)):
        if axes:
            parts.append(start + _axes_text(axes, named.mesh))
    return ", ".join(parts)


def _mesh_text(mesh: Any) -> str:
    ids = ",".join(map(str, mesh.device_ids))
    if not mesh.axes and len(mesh.device_ids) == 1:
        return f"maximal_mesh[device_id={ids}]"
    text = "mesh[" + ",".join(f"'{escape(axis.name)}'={axis.size}" for axis in mesh.axes) + "]"
    if mesh.HasField("iota_transform"):
        dims, perm = mesh.iota_transform.reshape_dims, mesh.iota_transform.transpose_perm
        text += ", device_ids=([" + ",".join(map(str, dims)) + "]" + (f"T({','.join(map(str, perm))})" if perm else "") + ")"
    elif ids:
        text += f", device_ids=({ids})"
    return text


def _axes_text(axes: Iterable[Any], mesh: Any, is_open: bool = False) -> str:
    parts = []
    for axis in axes:
        if not 0 <= axis.mesh_axis_index < len(mesh.axes):
            raise CompileError(INVALID_MODULE, f"a sharding names axis {axis.mesh_axis_index} of {len(mesh.axes)} mesh axes")
        text = f"'{escape(mesh.axes[axis.mesh_axis_index].name)}'"
        if axis.HasField("sub_axis_info"):
            text += f":({axis.sub_axis_info.pre_size}){axis.sub_axis_info.size}"
        parts.append(text)
    return "{" + ", ".join([*parts, "?"] if is_open else parts) + "}"


# Text as meshes


def _parse(parse: Any, text: str, message: Any) -> None:
    cursor = Cursor(text)
    try:
        parse(cursor, message)
        cursor.finish()
    except (TextError, KeyError) as error:
        raise CompileError(INVALID_MODULE, f"the mesh {text!r} is not well formed", why=str(error)) from None


def _named_to_proto(cursor: Cursor, named: Any) -> None:
    numbers = _mesh_to_proto(cursor, named.mesh)
    while cursor.take(","):
        if cursor.take("device_ids"):
            _device_ids(cursor, named.mesh)
        elif cursor.take("["):
            while not cursor.take("]"):
                cursor.take(",")
                dim = named.dim_shardings.add()
                dim.is_closed = not _axes_to_proto(cursor, dim.axes, numbers)
        else:
            word = cursor.word()
            if not cursor.take("="):
                continue
            for number, reduction in enumerate(_REDUCTIONS):
                if cursor.take(reduction):
                    named.reduction_op = number
            _axes_to_proto(cursor, getattr(named, f"{word}_axes"), numbers)


def _mesh_groups_to_proto(cursor: Cursor, message: Any) -> None:
    numbers = _mesh_to_proto(cursor, message.mesh)
    if cursor.take(","):
        cursor.expect("device_ids")
        _device_ids(cursor, message.mesh)
    _axes_to_proto(cursor, message.axes, numbers)


def _mesh_to_proto(cursor: Cursor, mesh: Any) -> dict[str, int]:
    """The axes' numbers by name."""
    if cursor.take("maximal_mesh"):
        for word in ("[", "device_id", "="):
            cursor.expect(word)
        mesh.device_ids.append(cursor.integer())
        cursor.expect("]")
        return {}
    cursor.expect("mesh")
    cursor.expect("[")
    while not cursor.take("]"):
        cursor.take(",")
        name = cursor.string()
        cursor.expect("=")
        mesh.axes.add(name=name, size=cursor.integer())
    return {axis.name: number for number, axis in enumerate(mesh.axes)}


def _device_ids(cursor: Cursor, mesh: Any) -> None:
    cursor.expect("=")
    cursor.expect("(")
    if cursor.at("["):
        mesh.iota_transform.reshape_dims.extend(cursor.integers("[", "]"))
        if cursor.take("T"):
            mesh.iota_transform.transpose_perm.extend(cursor.integers("(", ")"))
    else:
        while not cursor.at(")"):
            cursor.take(",")
            mesh.device_ids.append(cursor.integer())
    cursor.expect(")")


def _axes_to_proto(cursor: Cursor, axes: Any, numbers: dict[str, int]) -> bool:
    """Read `{'a', 'b':(1)2, ?}`; True if it ends in the question mark of an open dimension."""
    is_open = False
    cursor.expect("{")
    while not cursor.take("}"):
        cursor.take(",")
        if cursor.take("?"):
            is_open = True
            continue
        axis = axes.add(mesh_axis_index=numbers[cursor.string()])
        if cursor.take(":"):
            cursor.expect("(")
            axis.sub_axis_info.pre_size = cursor.integer()
            cursor.expect(")")
            axis.sub_axis_info.size = cursor.integer()
    return is_open
