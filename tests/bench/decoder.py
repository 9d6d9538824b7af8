"""A Llama-like decoder as HLO text, shaped as jax writes it: what a model of billions of parameters costs to compile.

RMS norm, rotary embedding, attention with grouped keys and a cache in place, SwiGLU; weights and activations bf16, norms
and softmax f32. `shards` divides heads and the inner width, as one core of a group holds them (its sums stay its own).
Parameters: the weights first, then tokens, position, and two caches a layer, which are aliased to results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Decoder:
    """Shapes of a model and of one call: `tokens` new places after those that `position` counts, in caches of `places`."""

    layers: int = 32
    hidden: int = 4096
    heads: int = 32
    key_heads: int = 32
    inner: int = 11008
    vocabulary: int = 32000
    shards: int = 8
    tokens: int = 1
    places: int = 2048

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def weights(self) -> int:
        """How many of the first parameters are weights."""
        return 3 + 9 * self.layers

    @property
    def weight_elements(self) -> int:
        """Elements of all weights of all shards."""
        keys = self.key_heads * self.head_size
        layer = self.hidden * (2 * self.hidden + 2 * keys + 3 * self.inner + 2)
        return self.layers * layer + self.hidden * (2 * self.vocabulary + 1)


SEVEN_BILLION = Decoder()


def decoder_text(shape: Decoder) -> str:
    """The module's text."""
    return _Writer(shape).module()


class _Writer:
    def __init__(self, shape: Decoder) -> None:
        self.shape = shape
        self.heads = shape.heads // shape.shards
        self.keys = shape.key_heads // shape.shards
        self.inner = shape.inner // shape.shards
        self.regions: list[str] = []
        self.parameters: list[str] = []
        self.lines: list[str] = []
        self.number = 0
        self.results: list[tuple[str, str]] = []

    def module(self) -> str:
        shape = self.shape
        embedding = self.parameter("w_embed", "bf16", (shape.vocabulary, shape.hidden))
        layers = [{name: self.parameter(f"w_layers_{n}_{name}", "bf16", dims) for name, dims in self._weights()}
                  for n in range(shape.layers)]
        norm = self.parameter("w_norm", "bf16", (shape.hidden,))
        head = self.parameter("w_head", "bf16", (shape.vocabulary, shape.hidden))
        tokens = self.parameter("tokens", "s32", (1, shape.tokens))
        position = self.parameter("position", "s32", ())
        cache = (1, shape.places, self.keys, shape.head_size)
        caches = [[self.parameter(f"{kind}_{n}", "bf16", cache) for kind in ("k", "v")] for n in range(shape.layers)]
        common = self._common(position)
        x = self._embed(embedding, tokens)
        for weights, held in zip(layers, caches, strict=True):
            x = self._layer(x, weights, held, common)
        logits = self.dot(self._norm(x, norm), head, (1, shape.tokens, shape.vocabulary), 2, 1)
        outputs = [(logits, text("bf16", (1, shape.tokens, shape.vocabulary))), *self.results]
        self.lines.append(f"  ROOT result = ({', '.join(s for _, s in outputs)}) tuple({', '.join(n for n, _ in outputs)})")
        first = len(self.parameters) - 2 * shape.layers
        aliases = ", ".join(f"{{{1 + n}}}: ({first + n}, {{}}, may-alias)" for n in range(2 * shape.layers))
        return "\n".join([f"HloModule jit_decoder, input_output_alias={{ {aliases} }}", *self.regions, "ENTRY main {",
                          *self.parameters, *self.lines, "}", ""])

    def _weights(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names in the order in which jax flattens a dictionary."""
        hidden, size = self.shape.hidden, self.shape.head_size
        rows = {"down": (hidden, self.inner), "gate": (self.inner, hidden), "in_norm": (hidden,),
                "k": (self.keys * size, hidden), "o": (hidden, self.heads * size), "post_norm": (hidden,),
                "q": (self.heads * size, hidden), "up": (self.inner, hidden), "v": (self.keys * size, hidden)}
        return sorted(rows.items())

    # Instructions

    def parameter(self, name: str, dtype: str, dims: Sequence[int]) -> str:
        self.parameters.append(f"  {name} = {text(dtype, dims)} parameter({len(self.parameters)})")
        return name

    def emit(self, opcode: str, dtype: str, dims: Sequence[int], *operands: str, rest: str = "") -> str:
        self.number += 1
        name = f"{opcode.replace('-', '_')}.{self.number}"
        self.lines.append(f"  {name} = {text(dtype, dims)} {opcode}({', '.join(operands)}){', ' + rest if rest else ''}")
        return name

    def broadcast(self, value: str, dtype: str, dims: Sequence[int], to: Sequence[int]) -> str:
        return self.emit("broadcast", dtype, dims, value, rest=f"dimensions={{{','.join(map(str, to))}}}")

    def number_of(self, dtype: str, value: str, dims: Sequence[int]) -> str:
        return self.broadcast(self.emit("constant", dtype, (), value), dtype, dims, ())

    def dot(self, a: str, b: str, dims: Sequence[int], left: int, right: int, batch: str = "", dtype: str = "bf16") -> str:
        return self.emit("dot", dtype, dims, a, b,
                         rest=f"{batch}lhs_contracting_dims={{{left}}}, rhs_contracting_dims={{{right}}}")

    def reduce(self, kind: str, value: str, dims: Sequence[int], dimension: int) -> str:
        name = f"region_{len(self.regions)}"
        self.regions.append(f"{name} {{\n  a = f32[] parameter(0)\n  b = f32[] parameter(1)\n  ROOT r = f32[] {kind}(a, b)\n}}")
        start = self.emit("constant", "f32", (), "0" if kind == "add" else "-inf")
        return self.emit("reduce", "f32", dims, value, start, rest=f"dimensions={{{dimension}}}, to_apply={name}")

    # The model

    def _common(self, position: str) -> dict[str, str]:
        """Cosines and sines of the new places, and which places each of them may see."""
        tokens, places, size = self.shape.tokens, self.shape.places, self.shape.head_size
        steps = self.emit("iota", "s32", (tokens,), rest="iota_dimension=0")
        at = self.emit("add", "s32", (tokens,), steps, self.broadcast(position, "s32", (tokens,), ()))
        half = (tokens, size // 2)
        exponent = self.emit("multiply", "f32", (size // 2,), self.emit("iota", "f32", (size // 2,), rest="iota_dimension=0"),
                             self.number_of("f32", repr(2 / size), (size // 2,)))
        power = self.emit("power", "f32", (size // 2,), self.number_of("f32", "10000", (size // 2,)), exponent)
        angle = self.emit("divide", "f32", half, self.broadcast(self.emit("convert", "f32", (tokens,), at), "f32", half, (0,)),
                          self.broadcast(power, "f32", half, (1,)))
        both = self.emit("concatenate", "f32", (tokens, size), angle, angle, rest="dimensions={1}")
        seen = self.emit("compare", "pred", (tokens, places),
                         self.emit("iota", "s32", (tokens, places), rest="iota_dimension=1"),
                         self.broadcast(at, "s32", (tokens, places), (0,)), rest="direction=LE")
        waves = {name: self.emit(name, "f32", (tokens, size), both) for name in ("cosine", "sine")}
        return waves | {"seen": seen, "position": position}

    def _embed(self, table: str, tokens: str) -> str:
        count, hidden = self.shape.tokens, self.shape.hidden
        index = self.emit("reshape", "s32", (1, count, 1), tokens)
        return self.emit("gather", "bf16", (1, count, hidden), table, index, rest=(
            "offset_dims={2}, collapsed_slice_dims={0}, start_index_map={0}, index_vector_dim=2, "
            f"slice_sizes={{1,{hidden}}}"))

    def _norm(self, x: str, weight: str) -> str:
        dims = (1, self.shape.tokens, self.shape.hidden)
        wide = self.emit("convert", "f32", dims, x)
        total = self.reduce("add", self.emit("multiply", "f32", dims, wide, wide), dims[:2], 2)
        column = (*dims[:2], 1)
        mean = self.emit("divide", "f32", column, self.emit("reshape", "f32", column, total),
                         self.number_of("f32", str(self.shape.hidden), column))
        root = self.emit("rsqrt", "f32", column, self.emit("add", "f32", column, mean, self.number_of("f32", "1e-05", column)))
        rows = self.broadcast(self.emit("reshape", "f32", dims[:2], root), "f32", dims, (0, 1))
        narrow = self.emit("convert", "bf16", dims, self.emit("multiply", "f32", dims, wide, rows))
        return self.emit("multiply", "bf16", dims, narrow, self.broadcast(weight, "bf16", dims, (2,)))

    def _rotate(self, x: str, heads: int, common: dict[str, str]) -> str:
        tokens, size = self.shape.tokens, self.shape.head_size
        dims, half = (1, tokens, heads, size), (1, tokens, heads, size // 2)
        wide = self.emit("convert", "f32", dims, x)
        span = f"[0:1], [0:{tokens}], [0:{heads}]"
        low = self.emit("slice", "f32", half, wide, rest=f"slice={{{span}, [0:{size // 2}]}}")
        high = self.emit("slice", "f32", half, wide, rest=f"slice={{{span}, [{size // 2}:{size}]}}")
        turned = self.emit("concatenate", "f32", dims, self.emit("negate", "f32", half, high), low, rest="dimensions={3}")
        parts = [self.emit("multiply", "f32", dims, value, self.broadcast(common[name], "f32", dims, (1, 3)))
                 for value, name in ((wide, "cosine"), (turned, "sine"))]
        return self.emit("convert", "bf16", dims, self.emit("add", "f32", dims, *parts))

    def _store(self, cache: str, value: str, position: str) -> str:
        shape = self.shape
        zero = self.emit("constant", "s32", (), "0")
        wrapped = self.emit("add", "s32", (), position, self.emit("constant", "s32", (), str(shape.places)))
        at = self.emit("select", "s32", (), self.emit("compare", "pred", (), position, zero, rest="direction=LT"), wrapped,
                       position)
        dims = (1, shape.places, self.keys, shape.head_size)
        new = self.emit("dynamic-update-slice", "bf16", dims, cache, value, zero, at, zero, zero)
        self.results.append((new, text("bf16", dims)))
        return new

    def _attention(self, q: str, k: str, v: str, common: dict[str, str]) -> str:
        shape, group = self.shape, self.heads // self.keys
        tokens, places, size = shape.tokens, shape.places, shape.head_size
        grouped = self.emit("reshape", "bf16", (1, tokens, self.keys, group, size), q)
        scores = (1, self.keys, tokens, group, places)
        raw = self.dot(grouped, k, scores, 4, 3, "lhs_batch_dims={0,2}, rhs_batch_dims={0,2}, ")
        scaled = self.emit("multiply", "f32", scores, self.emit("convert", "f32", scores, raw),
                           self.number_of("f32", repr(size ** -0.5), scores))
        masked = self.emit("select", "f32", scores, self.broadcast(common["seen"], "pred", scores, (2, 4)), scaled,
                           self.number_of("f32", "-3.40282347e+38", scores))
        most = self.reduce("maximum", masked, scores[:4], 4)
        power = self.emit("exponential", "f32", scores, self.emit(
            "subtract", "f32", scores, masked, self.broadcast(most, "f32", scores, (0, 1, 2, 3))))
        total = self.reduce("add", power, scores[:4], 4)
        share = self.emit("convert", "bf16", scores, self.emit(
            "divide", "f32", scores, power, self.broadcast(total, "f32", scores, (0, 1, 2, 3))))
        mixed = self.dot(share, v, (1, self.keys, tokens, group, size), 4, 1, "lhs_batch_dims={0,1}, rhs_batch_dims={0,2}, ")
        turned = self.emit("transpose", "bf16", (1, tokens, self.keys, group, size), mixed, rest="dimensions={0,2,1,3,4}")
        return self.emit("reshape", "bf16", (1, tokens, self.heads * size), turned)

    def _layer(self, x: str, weights: dict[str, str], held: list[str], common: dict[str, str]) -> str:
        shape = self.shape
        tokens, size = shape.tokens, shape.head_size
        dims, wide = (1, tokens, shape.hidden), (1, tokens, self.inner)
        normal = self._norm(x, weights["in_norm"])
        q, k, v = (self.emit("reshape", "bf16", (1, tokens, heads, size),
                             self.dot(normal, weights[name], (1, tokens, heads * size), 2, 1))
                   for name, heads in (("q", self.heads), ("k", self.keys), ("v", self.keys)))
        q, k = self._rotate(q, self.heads, common), self._rotate(k, self.keys, common)
        k, v = (self._store(cache, value, common["position"]) for cache, value in zip(held, (k, v), strict=True))
        mixed = self.dot(self._attention(q, k, v, common), weights["o"], dims, 2, 1)
        x = self.emit("add", "bf16", dims, x, mixed)
        normal = self._norm(x, weights["post_norm"])
        gate, up = (self.dot(normal, weights[name], wide, 2, 1) for name in ("gate", "up"))
        one = self.number_of("bf16", "1", wide)
        power = self.emit("exponential", "bf16", wide, self.emit("negate", "bf16", wide, gate))
        logistic = self.emit("divide", "bf16", wide, one, self.emit("add", "bf16", wide, power, one))
        swish = self.emit("multiply", "bf16", wide, gate, logistic)
        down = self.dot(self.emit("multiply", "bf16", wide, swish, up), weights["down"], dims, 2, 1)
        return self.emit("add", "bf16", dims, x, down)


def text(dtype: str, dims: Sequence[int]) -> str:
    return f"{dtype}[{','.join(map(str, dims))}]"
