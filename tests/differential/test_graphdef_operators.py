"""Single TensorFlow operators: lowered to HLO, evaluated by the oracle, compared with what TensorFlow 2.21 gave."""

import json
import zipfile

import pytest

from harness.graphs import DATA, arrays_of, check_case

ARCHIVE = zipfile.ZipFile(DATA / "tensorflow_ops.zip")
CASES = json.loads(ARCHIVE.read("index.json"))
SIZE_DEPENDS_ON_VALUES = {"ListDiff", "NonMaxSuppressionV2", "NonMaxSuppressionV3", "NonMaxSuppressionV5", "Where"}
"""Operators whose results have no fixed shape, so that a graph cannot end in them."""


@pytest.mark.parametrize("row", [r for r in CASES if r["op"] not in SIZE_DEPENDS_ON_VALUES], ids=lambda row: row["id"])
def test_operator_gives_what_tensorflow_gave(row: dict) -> None:
    inputs, outputs = (arrays_of(ARCHIVE, row["id"], what) for what in ("input", "output"))
    assert check_case(row, ARCHIVE.read(f"{row['id']}/graph.pb"), inputs, outputs) == ""
