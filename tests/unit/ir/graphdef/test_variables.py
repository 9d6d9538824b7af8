"""Which checkpoint key a variable of a SavedModel has."""

from pathlib import Path

import numpy as np
from google.protobuf import text_format

from nxcc.ir.graphdef.lowering import lower_graph
from nxcc.ir.graphdef.saved_model import read_saved_model
from nxcc.ir.graphdef.schema import message_type

from harness.checkpoint import write_checkpoint
from harness.graphs import run

GRAPH = """
  node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } }
         attr { key: "shape" value { shape { dim { size: 2 } } } } }
  node { name: "VARIABLE" op: "VarHandleOp" attr { key: "dtype" value { type: DT_FLOAT } }
         attr { key: "shape" value { shape { dim { size: 2 } } } } }
"""
SIGNATURE = """
  meta_info_def { tags: "serve" }
  signature_def { key: "serving_default" value {
    inputs { key: "x" value { name: "x:0" dtype: DT_FLOAT tensor_shape { dim { size: 2 } } } }
    outputs { key: "y" value { name: "y:0" dtype: DT_FLOAT } } } }
"""
FUNCTION = """
  library { function {
    signature { name: "scale" input_arg { name: "a" type: DT_FLOAT } input_arg { name: "w" type: DT_RESOURCE }
                output_arg { name: "r" type: DT_FLOAT } }
    node_def { name: "read" op: "ReadVariableOp" input: "w" attr { key: "dtype" value { type: DT_FLOAT } } }
    node_def { name: "mul" op: "Mul" input: "a" input: "read:value:0" attr { key: "T" value { type: DT_FLOAT } } }
    ret { key: "r" value: "mul:z:0" } } }
  node { name: "y" op: "StatefulPartitionedCall" input: "x" input: "VARIABLE"
         attr { key: "Tin" value { list { type: DT_FLOAT type: DT_RESOURCE } } }
         attr { key: "Tout" value { list { type: DT_FLOAT } } } attr { key: "f" value { func { name: "scale" } } } }
"""
OBJECTS = """
  object_graph_def {
    nodes { children { node_id: 2 local_name: "other" } children { node_id: 1 local_name: "layer" } }
    nodes { children { node_id: 3 local_name: "kernel" } } nodes { } nodes { }
    concrete_functions { key: "scale" value { bound_inputs: 3 } } }
"""
STORED = """
  nodes { children { node_id: 1 local_name: "layer" } }
  nodes { children { node_id: 2 local_name: "kernel" } }
  nodes { attributes { name: "VARIABLE_VALUE" checkpoint_key: "layer/kernel/.ATTRIBUTES/VARIABLE_VALUE" } }
"""
RESTORE = """
  node { name: "keys" op: "Const" attr { key: "dtype" value { type: DT_STRING } }
         attr { key: "value" value { tensor { dtype: DT_STRING tensor_shape { dim { size: 1 } } string_val: "s/w" } } } }
  node { name: "parts" op: "Const" attr { key: "dtype" value { type: DT_STRING } }
         attr { key: "value" value { tensor { dtype: DT_STRING tensor_shape { dim { size: 1 } } string_val: "6 2,2" } } } }
  node { name: "restore" op: "RestoreV2" input: "prefix" input: "keys" input: "parts" }
  node { name: "prefix" op: "Placeholder" attr { key: "dtype" value { type: DT_STRING } } }
  node { name: "assign" op: "AssignVariableOp" input: "VARIABLE" input: "restore:0" }
  node { name: "read" op: "ReadVariableOp" input: "VARIABLE" attr { key: "dtype" value { type: DT_FLOAT } } }
  node { name: "y" op: "Mul" input: "x" input: "read" attr { key: "T" value { type: DT_FLOAT } } }
"""


def results(folder: Path, graph: str, more: str, values: dict) -> np.ndarray:
    (folder / "variables").mkdir()
    write_checkpoint(folder / "variables" / "variables", values)
    text = f"meta_graphs {{ {SIGNATURE} graph_def {{ {GRAPH} {graph} }} {more} }}".replace("VARIABLE\"", "copied/w\"")
    message = text_format.Parse(text, message_type("SavedModel")())
    (folder / "saved_model.pb").write_bytes(message.SerializeToString())
    model = read_saved_model(str(folder))
    return run(lower_graph(model.graph, model.signature(), model.variables), [np.ones(2, np.float32)])[0]


def test_captured_variable_is_found_by_its_path_among_objects(tmp_path: Path) -> None:
    stored = text_format.Parse(STORED, message_type("TrackableObjectGraph")()).SerializeToString()
    values = {b"_CHECKPOINTABLE_OBJECT_GRAPH": stored, b"layer/kernel/.ATTRIBUTES/VARIABLE_VALUE": np.array([3.0, 4.0])}
    assert results(tmp_path, FUNCTION, OBJECTS, values).tolist() == [3, 4]


def test_part_of_a_variable_is_restored_by_its_slice(tmp_path: Path) -> None:
    assert results(tmp_path, RESTORE, "", {b"s/w": np.arange(6.0)}).tolist() == [2, 3]
