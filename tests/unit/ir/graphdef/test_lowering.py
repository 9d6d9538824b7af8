"""What a lowered module looks like: parameters, constants, locations, folding, control flow."""

import numpy as np
import pytest

from nxcc.ir.diagnostics import GRAPH_DYNAMIC, GRAPH_INVALID, GRAPH_OPERATOR, IO_CONFIG, LIMIT_EXCEEDED, CompileError
from nxcc.ir.graphdef.lowering import lower_graph
from nxcc.ir.graphdef.reader import read_graph
from nxcc.ir.graphdef.text import binary_of
from nxcc.ir.hlo.module import Module
from nxcc.ir.literals import literal_of

from harness.graphs import config_of, graph_of, lower, run

X = 'node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }\n'
FED = {"x:0": [[2, 3], "float32"]}


def node(name: str, op: str, *inputs: str, **attributes: str) -> str:
    """A node's text; attributes are AttrValue texts."""
    edges = "".join(f' input: "{edge}"' for edge in inputs)
    rows = "".join(f' attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items())
    return f'node {{ name: "{name}" op: "{op}"{edges}{rows} }}\n'


def const(name: str, dtype: str, dims: list[int], field: str) -> str:
    shape = "".join(f" dim {{ size: {size} }}" for size in dims)
    return node(name, "Const", dtype=f"type: {dtype}",
                value=f"tensor {{ dtype: {dtype} tensor_shape {{{shape} }} {field} }}")


def opcodes(module: Module) -> list[str]:
    return [i.opcode for i in module.entry.post_order()]


T = "type: DT_FLOAT"


def test_parameters_stand_in_io_config_order() -> None:
    text = X + X.replace('"x"', '"w/y"') + node("out", "Sub", "w/y", "x", T=T)
    module = lower(text, {"w/y:0": [[2], "float32"], "x:0": [[2], "float32"]}, ["out:0"])
    assert [p.name for p in module.entry.parameters] == ["w_y", "x"]
    assert [p.location.op_name for p in module.entry.parameters] == ["w/y", "x"]


def test_instructions_carry_node_and_operator() -> None:
    module = lower(X + node("scope/act", "Relu", "x", T=T), FED, ["scope/act:0"])
    assert (module.entry.root.location.op_name, module.entry.root.location.op_type) == ("scope/act", "Relu")


def test_large_constant_is_a_view_of_the_file() -> None:
    values = np.arange(4096, dtype=np.float32)
    content = "".join(f"\\{byte:03o}" for byte in values.tobytes())
    text = X + const("w", "DT_FLOAT", [4096], f'tensor_content: "{content}"') + node("out", "AddV2", "x", "w", T=T)
    data = binary_of(text.encode(), "GraphDef", "test")
    config = config_of({"inputs": {"x:0": [[4096], "float32"]}, "outputs": ["out:0"]})
    module = lower_graph(read_graph(memoryview(data), "test"), config)
    (constant,) = [i for i in module.entry.instructions if i.opcode == "constant"]
    array = constant.attribute("literal").array
    assert np.array_equal(array, values)
    assert np.shares_memory(array, np.frombuffer(data, np.uint8))


def test_splat_takes_the_memory_of_one_element() -> None:
    module = lower(X + const("w", "DT_FLOAT", [2, 3], "float_val: 7") + node("out", "AddV2", "x", "w", T=T), FED, ["out"])
    (constant,) = [i for i in module.entry.instructions if i.opcode == "constant"]
    assert constant.attribute("literal").array.strides == (0, 0)


def test_shape_arithmetic_leaves_only_the_reshape() -> None:
    text = (X + node("s", "Shape", "x", T=T) + const("a", "DT_INT32", [1], "int_val: 0")
            + const("b", "DT_INT32", [1], "int_val: 1")
            + node("n", "StridedSlice", "s", "a", "b", "b", T="type: DT_INT32", Index="type: DT_INT32",
                   shrink_axis_mask="i: 1")
            + const("m", "DT_INT32", [], "int_val: -1") + node("p", "Pack", "m", "n", N="i: 2", T="type: DT_INT32")
            + node("out", "Reshape", "x", "p", T=T))
    module = lower(text, FED, ["out:0"])
    assert opcodes(module) == ["parameter", "reshape"]
    assert module.entry.root.shape.dims == (3, 2)


def test_shape_from_values_is_an_error_that_names_the_input() -> None:
    text = X + node("i", "Cast", "x", SrcT=T, DstT="type: DT_INT32") + node("out", "Reshape", "x", "i", T=T)
    with pytest.raises(CompileError, match=r"shape of Reshape.*at out.*values of x") as caught:
        lower(text, {"x:0": [[2], "float32"]}, ["out:0"])
    assert caught.value.code is GRAPH_DYNAMIC


def test_what_outputs_do_not_need_is_not_looked_at() -> None:
    module = lower(X + node("out", "Relu", "x", T=T) + node("save", "SaveV2", "x") + node("odd", "Mystery", "x"), FED, ["out"])
    assert opcodes(module)[0] == "parameter" and len(module.entry.parameters) == 1


def test_graph_alone_says_inputs_and_outputs() -> None:
    shaped = X.replace("attr", 'attr { key: "shape" value { shape { dim { size: 2 } } } } attr', 1)
    module = lower(shaped + node("out", "Relu", "x", T=T))
    assert module.entry.parameters[0].shape.dims == (2,)


def test_unknown_dimension_without_io_config_is_named() -> None:
    shaped = X.replace("attr", 'attr { key: "shape" value { shape { dim { size: -1 } dim { size: 2 } } } } attr', 1)
    with pytest.raises(CompileError, match="dimension 0 of input x") as caught:
        lower(shaped + node("out", "Relu", "x", T=T))
    assert caught.value.code is GRAPH_DYNAMIC


def test_inner_tensor_may_be_fed() -> None:
    text = X + node("s", "StringJoin", N="i: 0") + node("h", "StringToHashBucketFast", "s") + node("out", "Neg", "h:0", T=T)
    module = lower(text, {"h:0": [[2], "float32"]}, ["out"])
    assert np.array_equal(run(module, [np.float32([1, 2])])[0], np.float32([-1, -2]))


def test_string_operator_says_why() -> None:
    with pytest.raises(CompileError, match="no host function") as caught:
        lower(X + node("s", "StringFormat", "x", T="list { type: DT_FLOAT }"), FED, ["s:0"])
    assert caught.value.code is GRAPH_OPERATOR


@pytest.mark.parametrize(("name", "message"), [("relu:0", "did you mean Relu"), ("Relu:3", "does not exist")])
def test_wrong_output_name_is_explained(name: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        lower(X + node("Relu", "Relu", "x", T=T), FED, [name])


def test_function_that_calls_itself_is_a_limit() -> None:
    body = ('library { function { signature { name: "f" input_arg { name: "a" type: DT_FLOAT } output_arg { name: "r" '
            'type: DT_FLOAT } } node_def { name: "c" op: "PartitionedCall" input: "a" attr { key: "f" value { func { name: "f" '
            '} } } attr { key: "Tin" value { list { type: DT_FLOAT } } } attr { key: "Tout" value { list { type: DT_FLOAT } } '
            '} } ret { key: "r" value: "c:output:0" } } }')
    call = node("out", "PartitionedCall", "x", f='func { name: "f" }', Tin="list { type: DT_FLOAT }",
                Tout="list { type: DT_FLOAT }")
    with pytest.raises(CompileError) as caught:
        lower(X + call + body, FED, ["out"])
    assert caught.value.code is LIMIT_EXCEEDED


def test_deep_graph_is_no_recursion() -> None:
    chain = "".join(node(f"n{k}", "Neg", f"n{k - 1}" if k else "x", T=T) for k in range(3000))
    module = lower(X + chain, FED, ["n2999"])
    assert len(module.entry.instructions) == 3001


def test_branch_on_a_constant_leaves_no_conditional() -> None:
    text = (X + const("p", "DT_BOOL", [], "bool_val: true") + node("sw", "Switch", "x", "p", T=T)
            + node("yes", "Neg", "sw:1", T=T) + node("no", "Relu", "sw:0", T=T)
            + node("out", "Merge", "no", "yes", N="i: 2", T=T))
    module = lower(text, FED, ["out:0", "out:1"])
    assert "conditional" not in opcodes(module) and "negate" in opcodes(module)


def test_branch_on_an_input_is_a_conditional_and_tells_its_index() -> None:
    predicate = X.replace('"x"', '"p"').replace("DT_FLOAT", "DT_BOOL")
    text = (X + predicate + node("sw", "Switch", "x", "p", T=T) + node("yes", "Neg", "sw:1", T=T)
            + node("no", "Relu", "sw:0", T=T) + node("out", "Merge", "no", "yes", N="i: 2", T=T))
    module = lower(text, {"x:0": [[2], "float32"], "p:0": [[], "bool"]}, ["out:0", "out:1"])
    for chosen, wanted in ((True, [1, -2]), (False, [0, 2])):
        value, index = run(module, [np.float32([-1, 2]), np.asarray(chosen)])
        assert value.tolist() == wanted and index == int(chosen)


@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_switch_of_several_sides_is_a_conditional_by_number(number: int) -> None:
    """What has no side takes the last."""
    sides = "type: DT_INT32"
    text = (X + node("n", "Placeholder", dtype=sides) + node("s", "_SwitchN", "x", "n", T=T, num_outs="i: 3")
            + node("two", "AddV2", "s:1", "s:1", T=T) + node("three", "AddV2", "two_of_last", "s:2", T=T)
            + node("two_of_last", "AddV2", "s:2", "s:2", T=T) + node("zero", "Identity", "s", T=T)
            + node("out", "Merge", "three", "zero", "two", T=T, N="i: 3"))
    module = lower(text, FED | {"n:0": [[], "int32"]}, ["out:0", "out:1"])
    assert "conditional" in opcodes(module)
    values, index = run(module, [np.full((2, 3), 2.0, np.float32), np.array(number, np.int32)])
    assert values[0, 0] == [2, 4, 6, 6][min(number, 3)] and index == [1, 2, 0, 0][min(number, 3)]


def test_switch_of_no_sides_is_refused() -> None:
    text = X + node("s", "_SwitchN", "x", "x", num_outs="i: 9000000000") + node("y", "Identity", "s", T=T)
    with pytest.raises(CompileError) as caught:
        lower(text, FED, ["y:0"])
    assert caught.value.code is GRAPH_INVALID


def test_merge_of_unrelated_values_is_an_error() -> None:
    with pytest.raises(CompileError, match="two sides of one Switch") as caught:
        lower(X + node("out", "Merge", "x", "x", N="i: 2", T=T), FED, ["out"])
    assert caught.value.code is GRAPH_INVALID


def test_unfed_placeholder_is_named() -> None:
    with pytest.raises(CompileError, match="'x' is not fed") as caught:
        lower(X + node("out", "Relu", "x", T=T), {}, ["out"])
    assert caught.value.code is IO_CONFIG


def test_same_graph_gives_the_same_module() -> None:
    from nxcc.ir.hlo.text.writer import write_text
    text = X + node("out", "Softmax", "x", T=T)
    assert write_text(lower(text, FED, ["out"])) == write_text(lower(text, FED, ["out"]))
    assert graph_of(text).nodes.keys() == {"x", "out"}


def test_a_switch_without_its_predicate_is_named() -> None:
    text = X + node("s", "Switch", "x", T=T) + node("m", "Merge", "s", "s:1", T=T, N="i: 2")
    with pytest.raises(CompileError, match="Switch takes 2 inputs, 1 are given") as caught:
        lower(text, FED, ["m:0"])
    assert caught.value.code is GRAPH_INVALID


@pytest.mark.parametrize(("order", "wanted"), [("^change", GRAPH_OPERATOR), ("", None)], ids=["after", "apart"])
def test_variable_that_was_changed_before_is_refused(order: str, wanted: object) -> None:
    text = (node("v", "VarHandleOp", dtype="type: DT_FLOAT", shape="shape { }") + const("one", "DT_FLOAT", [], "float_val: 1")
            + node("change", "AssignAddVariableOp", "v", "one", dtype="type: DT_FLOAT")
            + node("read", "ReadVariableOp", "v", *([order] if order else []), dtype="type: DT_FLOAT"))
    variables = {"v": literal_of(np.array(2, np.float32))}
    config = config_of({"inputs": {}, "outputs": ["read:0"]})
    try:
        found = lower_graph(graph_of(text), config, variables)
    except CompileError as error:
        assert error.code is wanted and "AssignAddVariableOp" in str(error)
    else:
        assert wanted is None and run(found, []) == [2]


def test_size_that_limits_leave_no_choice_is_known() -> None:
    """max(6, n) is at least 6, and min(6, max(6, n)) is 6, whatever n is."""
    text = (X + node("n", "Placeholder", dtype="type: DT_INT32") + const("six", "DT_INT32", [], "int_val: 6")
            + node("least", "Maximum", "n", "six", T="type: DT_INT32")
            + node("size", "Minimum", "six", "least", T="type: DT_INT32")
            + node("r", "Range", "zero", "size", "one", Tidx="type: DT_INT32") + const("zero", "DT_INT32", [], "int_val: 0")
            + const("one", "DT_INT32", [], "int_val: 1"))
    assert str(lower(text, {"n:0": [[], "int32"]}, ["r:0"]).entry.root.shape) == "s32[6]"


def test_unknown_operator_is_no_tensorflow_operator_by_our_word() -> None:
    with pytest.raises(CompileError) as caught:
        lower(X + node("y", "RandomCrop", "x"), FED, ["y:0"])
    assert caught.value.code is GRAPH_OPERATOR and "there is no lowering for it" in str(caught.value)


@pytest.mark.parametrize(("op", "value"), [
    ("RandomUniform", "tensor { dtype: DT_INT32 tensor_shape { dim { size: 1 } } int_val: -4 }"),
    ("RandomStandardNormal", "tensor { dtype: DT_INT32 tensor_shape { dim { size: 1 } } int_val: -4 }"),
    ("RandomUniform", "tensor { dtype: DT_INT32 tensor_shape { dim { size: 2147483647 } } int_val: 1 }"),
])
def test_impossible_shapes_are_refused(op: str, value: str) -> None:
    text = node("n", "Const", dtype="type: DT_INT32", value=value) + node("y", op, "n", T="type: DT_INT32", dtype=T)
    with pytest.raises(CompileError) as caught:
        lower(text, {}, ["y:0"])
    assert caught.value.code is GRAPH_INVALID


def test_damage_behind_sizes_that_depend_on_values_is_named() -> None:
    text = node("p", "Pad", "some", "wrong", T=T, Tpaddings="type: DT_INT32") + const("wrong", "DT_INT32", [2], "int_val: 1")
    masked = (X + node("w", "Where", "x", T=T) + const("zero", "DT_INT32", [], "int_val: 0")
              + node("some", "GatherV2", "x", "w", "zero", Tparams=T, Tindices="type: DT_INT64", Taxis="type: DT_INT32"))
    with pytest.raises(CompileError) as caught:
        lower(masked + text, {"x:0": [[6], "float32"]}, ["p:0"])
    assert caught.value.code is GRAPH_INVALID


def test_range_of_several_numbers_is_an_error() -> None:
    text = (const("a", "DT_INT32", [2], "int_val: 1 int_val: 2") + const("b", "DT_INT32", [], "int_val: 5")
            + const("c", "DT_INT32", [], "int_val: 1") + node("out", "Range", "a", "b", "c", Tidx="type: DT_INT32"))
    with pytest.raises(CompileError, match="one number each"):
        lower(text, {}, ["out:0"])


WORDS = 'node { name: "s" op: "Placeholder" attr { key: "dtype" value { type: DT_STRING } } }\n'


def test_a_size_that_only_a_run_knows_must_become_known() -> None:
    text = WORDS + const("mark", "DT_STRING", [], 'string_val: ""') + node("split", "StringSplit", "s", "mark") + \
        node("hash", "StringToHashBucketFast", "split:1", num_buckets="i: 9") + \
        const("n", "DT_INT32", [1], "int_val: 4") + node("four", "Reshape", "hash", "n", T="type: DT_INT64")
    fed = {"s:0": [[2], "string"]}
    module = lower(text, fed, ["four:0"])
    assert opcodes(module) == ["parameter", "custom-call", "constant", "custom-call"]
    with pytest.raises(CompileError) as caught:
        lower(text, fed, ["hash:0"])
    assert caught.value.code is GRAPH_DYNAMIC
    assert "its shape is [?]" in str(caught.value)


def test_strings_are_no_numbers_to_compute_with() -> None:
    with pytest.raises(CompileError) as caught:
        lower(WORDS + node("out", "Add", "s", "s", T="type: DT_STRING"), {"s:0": [[2], "string"]}, ["out:0"])
    assert caught.value.code is GRAPH_OPERATOR
    assert "T says string" in str(caught.value)


def test_a_gather_of_a_variable_needs_one() -> None:
    text = X + const("i", "DT_INT32", [1], "int_val: 0") + \
        node("y", "ResourceGather", "x", "i", dtype=T, Tindices="type: DT_INT32")
    with pytest.raises(CompileError, match="must be the handle of a variable"):
        lower(text, FED, ["y:0"])
