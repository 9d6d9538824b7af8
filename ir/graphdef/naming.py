"""What a graph and its module are called: a GraphDef has no name, so the file's or folder's counts."""

from __future__ import annotations

import os
import re

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\-]")


def graph_name(path: str) -> str:
    """A file's name without its last suffix, or a folder's name."""
    if os.path.isdir(path):
        return os.path.basename(os.path.normpath(os.path.abspath(path)))
    name = os.path.basename(path)
    return name.removesuffix(".gz").rpartition(".")[0] or name


def module_name(graph: str) -> str:
    """The HLO module's name for a graph of this name."""
    return _NOT_IN_NAMES.sub("_", graph) or "graph"
