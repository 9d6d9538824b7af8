"""Lookup tables: filled in the graph, in a function that it calls, or by nothing that is constant."""

import numpy as np
import pytest

from nxcc.ir.diagnostics import GRAPH_OPERATOR, CompileError
from nxcc.ir.graphdef.tables import contents_of
from nxcc.ir.hlo.texts import fresh, to_numbers

from harness.graphs import graph_of, lower, run

TYPES = 'attr { key: "key_dtype" value { type: DT_STRING } } attr { key: "value_dtype" value { type: DT_INT64 } }'
CONSTANTS = '''
node { name: "k" op: "Const" attr { key: "dtype" value { type: DT_STRING } }
  attr { key: "value" value { tensor { dtype: DT_STRING tensor_shape { dim { size: 2 } } string_val: "a" string_val: "b" } } } }
node { name: "v" op: "Const" attr { key: "dtype" value { type: DT_INT64 } }
  attr { key: "value" value { tensor { dtype: DT_INT64 tensor_shape { dim { size: 2 } } int64_val: 7 int64_val: 8 } } } }
node { name: "none" op: "Const" attr { key: "dtype" value { type: DT_INT64 } }
  attr { key: "value" value { tensor { dtype: DT_INT64 tensor_shape { } int64_val: -1 } } } }
'''
LOOKUP = f'''
node {{ name: "x" op: "Placeholder" attr {{ key: "dtype" value {{ type: DT_STRING }} }} }}
node {{ name: "t" op: "HashTableV2" {TYPES} }}
node {{ name: "y" op: "LookupTableFindV2" input: "t" input: "x" input: "none"
  attr {{ key: "Tin" value {{ type: DT_STRING }} }} attr {{ key: "Tout" value {{ type: DT_INT64 }} }} }}
'''
FILLED = '''
node { name: "fill" op: "LookupTableImportV2" input: "t" input: "k" input: "v" attr { key: "Tin" value { type: DT_STRING } }
  attr { key: "Tout" value { type: DT_INT64 } } }
'''
CALLED = '''
node { name: "start" op: "StatefulPartitionedCall" input: "t" input: "k" input: "v"
  attr { key: "f" value { func { name: "fills" } } } }
library { function { signature { name: "fills"
  input_arg { name: "handle" type: DT_RESOURCE } input_arg { name: "keys" type: DT_STRING }
  input_arg { name: "values" type: DT_INT64 } }
  node_def { name: "fill" op: "LookupTableImportV2" input: "handle" input: "keys" input: "values" } } }
'''
FED = {"x:0": [[3], "string"]}


@pytest.mark.parametrize("filler", [FILLED, CALLED], ids=["in the graph", "in a function"])
def test_lookup_gives_values_and_the_default(filler: str) -> None:
    module = lower(CONSTANTS + LOOKUP + filler, FED, ["y:0"])
    with fresh():
        (found,) = run(module, [to_numbers(np.array(["b", "zz", "a"]))])
    assert found.tolist() == [8, -1, 7]


def test_a_table_without_constant_contents_is_refused_where_it_is_read() -> None:
    with pytest.raises(CompileError, match="no constant of the graph") as caught:
        lower(CONSTANTS + LOOKUP, FED, ["y:0"])
    assert caught.value.code is GRAPH_OPERATOR


def test_functions_that_call_themselves_end() -> None:
    text = CONSTANTS + LOOKUP + CALLED.replace('op: "LookupTableImportV2" input', 'op: "fills" input')
    assert contents_of(graph_of(text)) == {}
