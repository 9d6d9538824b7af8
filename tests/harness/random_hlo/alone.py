"""What a core alone does of collectives, and of starts and ends: nothing, or the operator itself at once."""

from __future__ import annotations

from nxcc.ir.dtypes import F32, PRED, S32
from nxcc.ir.hlo.attributes import ReplicaGroups
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import TOKEN_SHAPE, array, tuple_of

from harness.random_hlo.generator import Generator, has_dims, maker


@maker("all-reduce")
def _collective(g: Generator) -> Instruction | None:
    """Among the one replica there is, now and then in two halves."""
    x = g.pick(lambda shape: shape.rank > 0 and shape.dtype is not PRED)
    if x is None:
        return None
    groups = g.random.choice((ReplicaGroups(), ReplicaGroups(((0,),))))
    halves = g.random.random() < 0.4
    opcode = g.random.choice(("all-reduce", "all-gather", "reduce-scatter", "collective-broadcast", "all-to-all"))
    dimensions = (g.random.randrange(x.shape.rank),)
    shape = x.shape.without_layout()
    if opcode == "all-reduce":
        combiner = g.combiner(shape.dtype)
        if not halves:
            return g.make(opcode, x, replica_groups=groups, called=[combiner])
        start = g.make("all-reduce-start", x, shape=shape, replica_groups=groups, called=[combiner])
        return g.make("all-reduce-done", start, shape=shape)
    if opcode == "all-gather" and halves:
        start = g.make("all-gather-start", x, shape=tuple_of(shape, shape), replica_groups=groups, dimensions=dimensions)
        return g.make("all-gather-done", start)
    if opcode == "all-gather":
        return g.make(opcode, x, shape=shape, replica_groups=groups, dimensions=dimensions)
    if opcode == "reduce-scatter":
        return g.make(opcode, x, shape=shape, replica_groups=groups, dimensions=dimensions, called=[g.combiner(shape.dtype)])
    if opcode == "all-to-all":
        return g.make(opcode, x, replica_groups=groups, dimensions=dimensions)
    return g.make(opcode, x, replica_groups=groups)


@maker("collective-permute")
def _permute(g: Generator) -> Instruction | None:
    """From this replica to itself, or from none: zeros."""
    x = g.pick()
    if x is None:
        return None
    pairs = g.random.choice((((0, 0),), ()))
    shape = x.shape.without_layout()
    if g.random.random() < 0.5:
        return g.make("collective-permute", x, source_target_pairs=pairs)
    start = g.make("collective-permute-start", x, shape=tuple_of(shape, shape), source_target_pairs=pairs)
    return g.make("collective-permute-done", start, shape=shape)


@maker("replica-id")
def _number(g: Generator) -> Instruction:
    return g.make("convert", g.make(g.random.choice(("replica-id", "partition-id"))), shape=array(g.random.choice((S32, F32))))


@maker("copy-start")
def _copied(g: Generator) -> Instruction | None:
    x = g.pick()
    return x and g.make("copy-done", g.make("copy-start", x))


@maker("async-start")
def _asynchronous(g: Generator) -> Instruction | None:
    """A computation that runs beside others until its end is asked for."""
    x = g.pick()
    if x is None or g.depth >= g.bounds.depth:
        return None
    y = g.like(x.shape)
    shape = x.shape.without_layout()
    body = g.computation([x.shape, y.shape], lambda p: g.steps(g.random.randint(1, 2), shape))
    made = g.make("async-start", x, y, shape=tuple_of(tuple_of(x.shape, y.shape), body.root.shape), called=[body])
    if g.random.random() < 0.3:
        made = g.make("async-update", made)
    return g.make("async-done", made)


@maker("add-dependency")
def _after(g: Generator) -> Instruction | None:
    x = g.pick(has_dims)
    return x and g.make("add-dependency", x, g.make("after-all", shape=TOKEN_SHAPE))
