"""Folders of whole models and TensorFlow graphs with stored results, and what one of them is.

A model is a folder with `meta.json`, `io.npz` and one of `module.hlo.pb`, `graph.pb` or `saved_model/`; `io_config_TAG.json`
with `io_TAG.npz` is the same graph with other shapes. `ops/tensorflow_ops.zip` holds graphs of one operator, and
`ops/tensorflow_malformed.zip` graphs that are broken or odd, with what TensorFlow says of each. Weights are brought to life by
the script that lies beside the folder: `expand.py` for HLO, `expand_tf.py` for graphs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from conformance.corpus import CorpusMissing

Array = np.ndarray[Any, Any]

MODEL, GRAPH, OPERATOR, ODD = "model", "graph", "operator", "odd graph"
KINDS = (MODEL, GRAPH, OPERATOR, ODD)
OPERATORS_ZIP, ODD_ZIP = "tensorflow_ops.zip", "tensorflow_malformed.zip"


@dataclass(frozen=True)
class GraphCase:
    """One model and one set of inputs. family: its kind. facts: meta.json, or its row of the index.

    tag: which of the io files of its folder.
    """

    source: str
    name: str
    family: str
    tag: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    scored = True

    @property
    def opcodes(self) -> tuple[str, ...]:
        """The operators in it, for choosing by name."""
        return (self.facts["op"],) if "op" in self.facts else tuple(self.facts.get("opcodes", self.facts.get("ops", ())))


@dataclass(frozen=True)
class Prepared:
    """A case as files. io_config: text, empty for HLO. stored: outputs by name, whole or a sample; no outputs: none stored."""

    path: str
    io_config: str
    inputs: dict[str, Array]
    stored: dict[str, Array]


def open_graphs(paths: list[str]) -> list[GraphCase]:
    """All cases below the named folders. Raises CorpusMissing."""
    if not paths:
        raise CorpusMissing("no folder is named: give the folder of models or of TensorFlow graphs (make conformance-graphs "
                            "CORPUS=...); each model is a folder with meta.json and io.npz")
    found: list[GraphCase] = []
    for path in paths:
        if not os.path.isdir(path):
            raise CorpusMissing(f"there is no folder {path}")
        cases = [*_folders(Path(path)), *_zipped(Path(path) / "ops")]
        if not cases:
            raise CorpusMissing(f"{path} holds no folder with meta.json and io.npz")
        found += cases
    return found


def _folders(root: Path) -> Iterator[GraphCase]:
    for folder in sorted(root.iterdir()):
        if not (folder / "meta.json").exists() or not (folder / "io.npz").exists():
            continue
        facts = json.loads((folder / "meta.json").read_text())
        kind = MODEL if (folder / "module.hlo.pb").exists() else GRAPH
        for io in sorted(folder.glob("io*.npz")):
            tag = io.stem.removeprefix("io")
            yield GraphCase(str(root), folder.name + tag, kind, tag, facts)


def _zipped(ops: Path) -> Iterator[GraphCase]:
    for name, kind in ((OPERATORS_ZIP, OPERATOR), (ODD_ZIP, ODD)):
        if (ops / name).exists():
            with zipfile.ZipFile(ops / name) as opened:
                for row in json.loads(opened.read("index.json")):
                    yield GraphCase(str(ops / name), row["id"], kind, facts=row)


def prepare(case: GraphCase, folder: str) -> Prepared:
    """Lay the case out as files in a folder of its own. Raises CorpusMissing if its weights cannot be made."""
    if case.family in (OPERATOR, ODD):
        return _from_zip(case, Path(folder))
    home = Path(case.source) / case.name.removesuffix(case.tag)
    arrays = _arrays(home / f"io{case.tag}.npz")
    config = home / f"io_config{case.tag}.json"
    return Prepared(_expanded(home, Path(folder), case), config.read_text() if config.exists() else "", *_split(arrays))


def _from_zip(case: GraphCase, folder: Path) -> Prepared:
    config = case.facts.get("io_config") or {"inputs": case.facts.get("inputs"), "outputs": case.facts.get("outputs")}
    stem = "graph" if case.family == OPERATOR else case.name
    prefix = f"{case.name}/" if case.family == OPERATOR else ""
    with zipfile.ZipFile(case.source) as opened:
        (folder / f"{stem}.pb").write_bytes(opened.read(f"{prefix}{stem}.pb"))
        results = f"{prefix}{'io' if prefix else stem}.npz"
        if results in opened.namelist():
            (folder / "io.npz").write_bytes(opened.read(results))
    arrays = _arrays(folder / "io.npz") if (folder / "io.npz").exists() else {}
    inputs, stored = _split(arrays)
    if case.family == ODD:
        inputs = {f"input{k}": np.ones(dims, dtype) for k, (dims, dtype) in enumerate(config["inputs"].values())}
    return Prepared(str(folder / f"{stem}.pb"), json.dumps(config), inputs, stored)


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def _split(arrays: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    return tuple({name: value for name, value in arrays.items() if name.startswith(kind)}  # type: ignore[return-value]
                 for kind in ("input", "output"))


def _expanded(home: Path, folder: Path, case: GraphCase) -> str:
    """The model with its weights; the script beside the corpus makes them, from seeds."""
    graph = case.facts.get("graph", "graph.pb")
    if case.family == GRAPH and (not case.facts.get("weights") or "saved_model" in graph):
        return str(home / "saved_model") if (home / "saved_model").is_dir() else str(home / graph)
    script, words = ("expand.py", ["--constants"]) if case.family == MODEL else ("expand_tf.py", [])
    target = folder / "model.pb"
    command = [sys.executable, str(Path(case.source).parent / script), str(home), *words, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CorpusMissing(f"{script} {home.name}: {done.stderr.strip()[-200:]}")
    return str(target)
