"""Layers of transformers as HLO text, as jax writes them: weights are parameters, all is f32 until casts are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from harness.attention import COMBINERS, softmax


@dataclass(frozen=True)
class Layers:
    """Equal layers. causal: a decoder's, with the norm before what it is for; else an encoder's, with the norm behind."""

    layers: int
    batch: int
    tokens: int
    width: int
    heads: int
    causal: bool

    @property
    def text(self) -> str:
        return _Writer(self).write()

    @property
    def parameters(self) -> int:
        """The first is the input, the rest are weights."""
        entry = self.text.partition("ENTRY")[2]
        return entry.count(" parameter(")


class _Writer:
    def __init__(self, of: Layers) -> None:
        self.of = of
        self.lines: list[str] = []
        self.parameters = 0
        self.full = f"f32[{of.batch},{of.tokens},{of.width}]"
        self.row = f"f32[{of.batch},{of.tokens}]"

    def write(self) -> str:
        x = self.parameter("x", self.full)
        self.say("%zero = f32[] constant(0)")
        for n in range(self.of.layers):
            x = self.layer(n, x)
        self.say(f"ROOT %result = {self.full} copy({x})")
        body = "\n".join(f"  {line}" for line in self.lines)
        return f"HloModule layers\n{COMBINERS}\nENTRY main {{\n{body}\n}}\n"

    def say(self, line: str) -> None:
        self.lines.append(line)

    def parameter(self, name: str, shape: str) -> str:
        self.say(f"%{name} = {shape} parameter({self.parameters})")
        self.parameters += 1
        return f"%{name}"

    def layer(self, n: int, x: str) -> str:
        if self.of.causal:
            x = self.added(f"r{n}", x, self.attention(n, self.norm(f"n{n}", x)))
            return self.added(f"y{n}", x, self.feed_forward(n, self.norm(f"m{n}", x)))
        x = self.norm(f"n{n}", self.added(f"r{n}", x, self.attention(n, x)))
        return self.norm(f"m{n}", self.added(f"y{n}", x, self.feed_forward(n, x)))

    def added(self, name: str, x: str, y: str) -> str:
        self.say(f"%{name} = {self.full} add({x}, {y})")
        return f"%{name}"

    def splat(self, name: str, value: float, shape: str) -> str:
        self.say(f"%{name}c = f32[] constant({value})")
        self.say(f"%{name} = {shape} broadcast(%{name}c), dimensions={{}}")
        return f"%{name}"

    def dense(self, name: str, x: str, inner: int, outer: int) -> str:
        shape = f"f32[{self.of.batch},{self.of.tokens},{outer}]"
        w, b = self.parameter(f"{name}w", f"f32[{inner},{outer}]"), self.parameter(f"{name}b", f"f32[{outer}]")
        self.say(f"%{name}d = {shape} dot({x}, {w}), lhs_contracting_dims={{2}}, rhs_contracting_dims={{0}}")
        self.say(f"%{name}bs = {shape} broadcast({b}), dimensions={{2}}")
        self.say(f"%{name} = {shape} add(%{name}d, %{name}bs)")
        return f"%{name}"

    def feed_forward(self, n: int, x: str) -> str:
        """Two dense layers with the tanh form of GELU between them."""
        width, name = self.of.width, f"g{n}"
        u = self.dense(f"{name}u", x, width, 4 * width)
        shape = f"f32[{self.of.batch},{self.of.tokens},{4 * width}]"
        half, one, root, cubic = (self.splat(f"{name}{key}", value, shape)
                                  for key, value in (("h", 0.5), ("o", 1.0), ("r", 0.7978845608), ("k", 0.044715)))
        for key, function in (("2", f"multiply({u}, {u})"), ("3", f"multiply(%{name}2, {u})"),
                              ("4", f"multiply(%{name}3, {cubic})"), ("5", f"add({u}, %{name}4)"),
                              ("6", f"multiply(%{name}5, {root})"), ("7", f"tanh(%{name}6)"), ("8", f"add(%{name}7, {one})"),
                              ("9", f"multiply(%{name}8, {half})"), ("", f"multiply({u}, %{name}9)")):
            self.say(f"%{name}{key} = {shape} {function}")
        return self.dense(f"{name}v", f"%{name}", 4 * width, width)

    def norm(self, name: str, x: str) -> str:
        gain, shift = self.parameter(f"{name}g", f"f32[{self.of.width}]"), self.parameter(f"{name}s", f"f32[{self.of.width}]")
        counts, epsilons = self.splat(f"{name}n", self.of.width, self.row), self.splat(f"{name}e", 1e-5, self.row)
        over, along = "dimensions={2}, to_apply=%add", "dimensions={0,1}"
        for key, dims, function in (
                ("t", self.row, f"reduce({x}, %zero), {over}"), ("a", self.row, f"divide(%{name}t, {counts})"),
                ("as", self.full, f"broadcast(%{name}a), {along}"), ("c", self.full, f"subtract({x}, %{name}as)"),
                ("q", self.full, f"multiply(%{name}c, %{name}c)"), ("v", self.row, f"reduce(%{name}q, %zero), {over}"),
                ("va", self.row, f"divide(%{name}v, {counts})"), ("ve", self.row, f"add(%{name}va, {epsilons})"),
                ("i", self.row, f"rsqrt(%{name}ve)"), ("is", self.full, f"broadcast(%{name}i), {along}"),
                ("u", self.full, f"multiply(%{name}c, %{name}is)"), ("gs", self.full, f"broadcast({gain}), dimensions={{2}}"),
                ("z", self.full, f"multiply(%{name}u, %{name}gs)"), ("ss", self.full, f"broadcast({shift}), dimensions={{2}}"),
                ("", self.full, f"add(%{name}z, %{name}ss)")):
            self.say(f"%{name}{key} = {dims} {function}")
        return f"%{name}"

    def heads(self, name: str, x: str) -> str:
        """[batch, heads, tokens, depth] of [batch, tokens, width]."""
        of = self.of
        depth = of.width // of.heads
        self.say(f"%{name}r = f32[{of.batch},{of.tokens},{of.heads},{depth}] reshape({x})")
        self.say(f"%{name} = f32[{of.batch},{of.heads},{of.tokens},{depth}] transpose(%{name}r), dimensions={{0,2,1,3}}")
        return f"%{name}"

    def attention(self, n: int, x: str) -> str:
        of, name = self.of, f"a{n}"
        depth = of.width // of.heads
        q, k, v = (self.heads(f"{name}{key}h", self.dense(f"{name}{key}", x, of.width, of.width)) for key in "qkv")
        square = f"f32[{of.batch},{of.heads},{of.tokens},{of.tokens}]"
        by_head = "lhs_batch_dims={0,1}, rhs_batch_dims={0,1}"
        self.say(f"%{name}d = {square} dot({q}, {k}), {by_head}, lhs_contracting_dims={{3}}, rhs_contracting_dims={{3}}")
        self.say(f"%{name}x = {square} multiply(%{name}d, {self.splat(f'{name}f', depth ** -0.5, square)})")
        scores = f"{name}x"
        if of.causal:
            seen = f"[{of.tokens},{of.tokens}]"
            lowest = self.splat(f"{name}low", -1e10, square)
            for line in (f"%{name}row = s32{seen} iota(), iota_dimension=0", f"%{name}col = s32{seen} iota(), iota_dimension=1",
                         f"%{name}see = pred{seen} compare(%{name}row, %{name}col), direction=GE",
                         f"%{name}sees = pred{square[3:]} broadcast(%{name}see), dimensions={{2,3}}",
                         f"%{name}m = {square} select(%{name}sees, %{name}x, {lowest})"):
                self.say(line)
            scores = f"{name}m"
        lines = softmax((of.batch, of.heads, of.tokens, of.tokens), scores, f"%{name}p")
        for line in lines.splitlines():
            if "%zero =" not in line:
                self.say(_own(line.strip(), name))
        full = f"f32[{of.batch},{of.heads},{of.tokens},{depth}]"
        self.say(f"%{name}o = {full} dot(%{name}p, {v}), {by_head}, lhs_contracting_dims={{3}}, rhs_contracting_dims={{2}}")
        self.say(f"%{name}t = f32[{of.batch},{of.tokens},{of.heads},{depth}] transpose(%{name}o), dimensions={{0,2,1,3}}")
        self.say(f"%{name}j = {self.full} reshape(%{name}t)")
        return self.dense(f"{name}w", f"%{name}j", of.width, of.width)


def _own(line: str, name: str) -> str:
    """A line of a softmax with names of its own."""
    for key in ("low", "mosts", "most", "shifted", "e", "totals", "total"):
        for end in (" ", ",", ")"):
            line = line.replace(f"%{key}{end}", f"%{name}.{key}{end}")
    return line
