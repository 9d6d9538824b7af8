"""Rules between the members of a file of ours: what one names, another must hold.

Each rule yields (what is broken, member); the reader reports the first. Rules within one member are in `members`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nxcc.neff.archive import Entry
from nxcc.neff.header import Header
from nxcc.neff.members import (
    CPU,
    DEBUG_MEMBER,
    GRAPH_MEMBER,
    TOP_MEMBERS,
    Definition,
    EngineExtras,
    Graph,
    InputTensor,
    Kelf,
    OutputTensor,
    kelf_member,
    subgraph_name,
    tensor_bytes,
)

Broken = Iterator[tuple[str, str]]


def broken_member_names(header: Header, entries: Mapping[str, Entry]) -> Broken:
    """Members that must be there and are not, and members that nxcc does not know."""
    kelfs = [kelf_member(number) for number in range(len(header.tpb_per_node))]
    subgraphs = [subgraph_name(number) for number in range(header.num_tpb)]
    required = [*(name for name in TOP_MEMBERS[:3]), *kelfs, *(f"{name}/def.json" for name in subgraphs)]
    for name in required:
        if name not in entries:
            yield "required member is missing", name
    known = {*TOP_MEMBERS, DEBUG_MEMBER, *kelfs}
    folders = ("host/", *(f"{name}/" for name in subgraphs))
    for name in entries:
        if name not in known and not name.startswith(folders):
            yield "member is not known to nxcc, or beyond num_tpb", name


def broken_kelfs(header: Header, kelfs: Sequence[Kelf]) -> Broken:
    """Each subgraph belongs to one kelf node, in order, as tpb_per_node says."""
    for index, (kelf, count) in enumerate(zip(kelfs, header.tpb_per_node, strict=True)):
        if len(kelf.graphs) != count:
            yield f"lists {len(kelf.graphs)} subgraphs, tpb_per_node says {count}", kelf_member(index)
    listed = sorted((row.definition, row.name, kelf_member(index)) for index, kelf in enumerate(kelfs) for row in kelf.graphs)
    for number, (definition, name, member) in enumerate(listed):
        expected = subgraph_name(number)
        if (definition, name) != (f"{expected}/def.json", expected):
            yield f"lists {name!r} with {definition!r} where {expected} is due", member


def broken_cores(graph: Graph, kelfs: Sequence[Kelf]) -> Broken:
    """Each device node runs on a subgraph of its kelf node."""
    names = {kelf_member(index): [row.name for row in kelf.graphs] for index, kelf in enumerate(kelfs)}
    for node in graph.nodes:
        listed = names.get(node.kelf, [])
        if node.executor != CPU and (not listed or (node.subgraph and node.subgraph not in listed)):
            yield f"node {node.name!r} runs on subgraph {node.subgraph!r}, which {node.kelf!r} does not list", GRAPH_MEMBER


def broken_definition(folder: str, definition: Definition, entries: Mapping[str, Entry]) -> Broken:
    """Engine files and constants exist, constants in the announced size."""
    member = f"{folder}/def.json"
    for key, file in definition.engine_files.items():
        if f"{folder}/{file}" not in entries:
            yield f"engine file {file!r} of {key!r} is missing", member
    for name, variable in definition.var.items():
        if variable.type != "file":
            continue
        entry = entries.get(f"{folder}/{variable.file_name}")
        if entry is None:
            yield f"file {variable.file_name!r} of variable {name!r} is missing", member
        elif entry.size != variable.size:
            yield f"file {variable.file_name!r} has {entry.size} bytes, variable {name!r} {variable.size}", member


def broken_engine(member: str, extras: EngineExtras, definition: Definition) -> Broken:
    """Descriptors use queues and variables that def.json has."""
    instances = {name for row in definition.dma_queue.values() for name in row.queue_instances}
    for index, row in enumerate(extras.dma):
        if row.instance_name and row.instance_name not in instances:
            yield f"dma[{index}]: no queue instance {row.instance_name!r}", member
        if not row.instance_name and row.queue not in definition.dma_queue:
            yield f"dma[{index}]: no queue set {row.queue!r}", member
        unknown = {name for transfer in row.desc for name in transfer.variables} - definition.var.keys()
        if unknown:
            yield f"dma[{index}]: no variables {sorted(unknown)}", member


def broken_graph(graph: Graph, header: Header, entries: Mapping[str, Entry]) -> Broken:
    """Steps follow the values they need, equal names are equal tensors, aliases and files exist."""
    for what in (*_broken_values(graph), *_broken_aliases(graph), *_broken_nodes(graph, header, entries)):
        yield what, GRAPH_MEMBER


def _broken_values(graph: Graph) -> Iterator[str]:
    values: dict[str, InputTensor | OutputTensor] = {}

    def define(tensors: Sequence[InputTensor | OutputTensor], by: str) -> Iterator[str]:
        for tensor in tensors:
            if tensor.name in values:
                yield f"value {tensor.name!r} is made twice, the second time by {by}"
            values[tensor.name] = tensor

    def use(tensors: Sequence[InputTensor | OutputTensor], by: str) -> Iterator[str]:
        for tensor in tensors:
            made = values.get(tensor.name)
            if made is None:
                yield f"value {tensor.name!r} is used by {by} before it is made"
            elif (made.dtype, made.shape) != (tensor.dtype, tensor.shape):
                yield f"value {tensor.name!r} is {made.dtype}{list(made.shape)}, but not for {by}"

    yield from define(graph.inputs, "the module")
    for node in graph.nodes:
        yield from use(node.inputs, node.name)
        yield from define(node.outputs, node.name)
    yield from use(graph.outputs, "the module's outputs")


def _broken_aliases(graph: Graph) -> Iterator[str]:
    params = {tensor.param for tensor in graph.inputs}
    indices = {tensor.index for tensor in graph.outputs}
    for alias in graph.aliases:
        if alias.param not in params or alias.output not in indices:
            yield f"alias of output {list(alias.output)} with parameter {alias.param}: one of them does not exist"


def _broken_nodes(graph: Graph, header: Header, entries: Mapping[str, Entry]) -> Iterator[str]:
    ids = [node.id for node in graph.nodes]
    if ids != sorted(set(ids)):
        yield "node ids do not ascend"
    has_host_regions = any(node.executor == CPU for node in graph.nodes)
    if has_host_regions != header.has_host_regions:
        yield "CPU nodes and feature bit 61 do not agree"
    for node in graph.nodes:
        code = node.hlo if node.executor == CPU else node.kelf
        if code not in entries:
            yield f"node {node.name!r} needs the missing member {code!r}"
        for constant in node.constants:
            entry = entries.get(constant.file)
            if entry is None or entry.size != tensor_bytes(constant.dtype, constant.shape):
                yield f"node {node.name!r}: constant {constant.hlo!r} and member {constant.file!r} do not agree"
    for name in graph.nxcc.members_sha256:
        if name not in entries:
            yield f"members_sha256 names the missing member {name!r}"
