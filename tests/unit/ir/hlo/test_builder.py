"""The builder: names, attributes, copies, inlining."""

import numpy as np
import pytest

from nxcc.ir.dtypes import F32, S32
from nxcc.ir.hlo.builder import Builder, clone_module, infer_shape, inline_call
from nxcc.ir.hlo.module import Computation, Module
from nxcc.ir.hlo.operator import ShapeError, find
from nxcc.ir.location import Location
from nxcc.ir.shapes import array

VECTOR = array(F32, 4)


def double_module() -> Module:
    """main(p) = call(double, p), double(x) = x + x."""
    module = Module("m")
    double = module.add(Computation("double"))
    inner = Builder(double)
    x = inner.parameter(0, VECTOR, "x")
    double.root = inner.make("add", x, x, shape=VECTOR)
    main = module.add(Computation("main"), entry=True)
    outer = Builder(main, Location(op_name="layer"))
    p = outer.parameter(0, VECTOR)
    main.root = outer.make("call", p, shape=VECTOR, called=(double,))
    return module


def test_names_are_unique_and_depend_on_order_only() -> None:
    builder = Builder(Computation("c"))
    names = [builder.constant(np.zeros(1, np.float32)).name for _ in range(3)]
    assert names == ["constant", "constant.1", "constant.2"]
    assert builder.constant(np.zeros(1, np.float32), name="constant.1").name == "constant.1.1"
    assert builder.constant(np.zeros(1, np.float32)).name == "constant.3"


def test_names_avoid_those_of_the_whole_module() -> None:
    module = double_module()
    builder = Builder(module.entry)
    assert builder.parameter(1, VECTOR, "x").name == "x.1"
    assert builder.within(module.computations[0]).parameter(1, VECTOR, "x").name == "x.2"


def test_optional_attribute_equal_to_default_is_left_out() -> None:
    builder = Builder(Computation("c"))
    p = builder.parameter(0, array(F32))
    made = builder.broadcast(p, (4,))
    assert made.attributes == {} and made.attribute("dimensions") == () and made.shape == VECTOR


def test_wrong_operand_count_is_reported() -> None:
    with pytest.raises(ShapeError, match="add takes 2 operands, 1 were given"):
        infer_shape(find("add"), [VECTOR], {})


def test_result_that_must_be_declared_is_reported() -> None:
    with pytest.raises(ShapeError, match="must be declared"):
        infer_shape(find("parameter"), [], {"parameter_number": 0})


def test_clone_shares_nothing_mutable() -> None:
    module = double_module()
    copy = clone_module(module)
    assert [c.name for c in copy.computations] == ["double", "main"]
    assert copy.entry.root.called == (copy.computations[0],)
    assert copy.entry.root.operands[0].parent is copy.entry
    assert not set(copy.instructions()) & set(module.instructions())
    assert copy.entry.parent is copy and module.entry.parent is module


def test_inlined_call_takes_callers_location_and_leaves_callee() -> None:
    module = double_module()
    main = module.entry
    result = inline_call(main.root, Builder(main))
    assert main.root is result and result.opcode == "add" and result.name == "add.1"
    assert result.operands == (main.parameters[0],) * 2
    assert result.location.op_name == "layer"
    assert [i.opcode for i in main.instructions] == ["parameter", "add"]
    assert len(module.computations[0].instructions) == 2


def test_inlining_keeps_control_dependences() -> None:
    module = double_module()
    main, builder = module.entry, Builder(module.entry)
    call = main.root
    before = builder.splat(S32, (), 1)
    after = builder.splat(S32, (), 2)
    call.control_predecessors = (before,)
    after.control_predecessors = (call,)
    result = inline_call(call, builder)
    assert result.control_predecessors == (before,) and after.control_predecessors == (result,)
