"""Random small graphs that are nearly one head of attention, and some that are: what may be read as a ratio form.

Every stage is one of several, most of them of the form and some of them not: ids in another order, another position's
token, values of other positions, two heads, masks, scores that a row of tokens shares, neurons, residuals.
"""

from itertools import product
from typing import NamedTuple

import numpy as np

from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.narrowing import narrowed
from mechverify.kernel.core.semantics import Real

WIDTH = 3


class Made(NamedTuple):
    graph: Graph
    weights: dict[str, np.ndarray]
    output: int
    parts: list[str]  # what each stage chose

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """All inputs [number, length], and the output there [number, *shape]."""
        inputs = np.array(list(product(range(len(self.graph.values)), repeat=self.graph.length)))
        values: Ball = Evaluation(self.graph, self.weights, Real(Float64()), inputs)[self.output]
        shape = self.graph.nodes[self.output].shape
        return inputs, np.broadcast_to(values.mid, (len(inputs), *shape))


class Maker:
    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.n, self.vocab = int(self.rng.integers(1, 5)), int(self.rng.integers(2, 4))
        self.graph, self.weights, self.parts = Graph(self.n, tuple(range(self.vocab))), {}, []

    def made(self) -> Made:
        self.tokens = self.graph.add("tokens")
        self.place = int(self.rng.integers(self.n))
        self.rows = self.embedded()
        self.query = self.asking()
        z = self.attention()
        if self.chance(0.15):
            self.parts.append("second head")
            z = self.graph.add("add", z, self.attention())
        return Made(self.graph, self.weights, self.after(z), self.parts)

    # --- small steps --------------------------------------------------------------------------------------------------

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def one_of(self, usual: float, **others):
        """The first one with that probability, else any other; each is a function without arguments."""
        names = [*others]
        name = names[0] if self.chance(usual) else names[int(self.rng.integers(1, len(names)))]
        self.parts.append(name)
        return others[name]()

    def weight(self, *shape: int) -> int:
        name = f"w{len(self.weights)}"
        self.weights[name] = self.rng.normal(size=shape)
        return self.graph.add("weight", attr=(name, shape))

    def view(self, n: int, shape: tuple, offset: int, *steps: int) -> int:
        return self.graph.add("view", n, attr=(shape, offset, steps))

    def row(self, n: int, i: int) -> int:
        return self.view(n, (WIDTH,), i * WIDTH, 1)

    def reversed(self, n: int) -> int:
        return self.view(n, (self.n, WIDTH), (self.n - 1) * WIDTH, -WIDTH, 1)

    def times(self, x: int, rows: bool, out: int = WIDTH) -> int:
        """A product with a matrix, and maybe a bias, in one of several ways."""
        lead, g = "n" if rows else "", self.graph
        style = int(self.rng.integers(3))
        if style == 0:
            y = g.add("einsum", x, self.weight(WIDTH, out), attr=f"{lead}d,de->{lead}e")
        elif style == 1:
            y = g.add("einsum", self.weight(out, WIDTH), x, attr=f"ed,{lead}d->{lead}e")
        else:
            turned = self.view(self.weight(out, WIDTH), (WIDTH, out), 0, 1, WIDTH)
            y = g.add("einsum", x, turned, attr=f"{lead}d,de->{lead}e")
        return g.add("add", y, self.weight(out)) if self.chance(0.5) else y

    # --- stages -------------------------------------------------------------------------------------------------------

    def embedded(self) -> int:
        g, table = self.graph, self.weight(self.vocab, WIDTH)
        self.table = table
        x = g.add("gather", table, self.one_of(
            0.85, tokens=lambda: self.tokens, backwards=lambda: self.view(self.tokens, (self.n,), self.n - 1, -1),
            repeated=lambda: self.view(self.tokens, (self.n,), 0, 0)))  # fmt: skip
        return self.one_of(
            0.6,
            places=lambda: g.add("add", x, self.weight(self.n, WIDTH)),
            scaled=lambda: g.add("mul", x, self.weight(self.n, 1)),
            bent=lambda: g.add("tanh", x),
            shifted=lambda: g.add("add", x, self.reversed(x)),  # other tokens, added
            mean=lambda: g.add("sub", x, self.view(g.add("einsum", x, g.add("constant", attr=((WIDTH,), (1 / 3,) * 3)),
                                                         attr="nd,d->n"), (self.n, WIDTH), 0, 1, 0)),
        )  # fmt: skip

    def asking(self) -> int:
        g = self.graph
        token = g.add("select", self.tokens, attr=(0, self.place))
        other = g.add("select", self.tokens, attr=(0, (self.place + 1) % self.n))
        return self.one_of(
            0.7,
            query=lambda: g.add("gather", self.table, token),
            sliced=lambda: narrowed(g, self.row(self.rows, self.place)),
            row=lambda: self.row(self.rows, self.place),  # read like any other position
            fixed=lambda: self.weight(WIDTH),
            two=lambda: g.add("add", g.add("gather", self.table, token), g.add("gather", self.table, other)),
            number=lambda: g.add("add", g.add("gather", self.table, token),
                                 g.add("number", g.add("value", attr=(self.place + 1) % self.n))),
        )  # fmt: skip

    def attention(self) -> int:
        g, n = self.graph, self.n
        keys = self.one_of(0.85, keys=lambda: self.times(self.rows, True), turned=lambda: self.reversed(self.rows))
        values = self.one_of(
            0.7,
            values=lambda: self.times(self.rows, True),
            others=lambda: self.reversed(self.rows),
            constant=lambda: self.weight(n, WIDTH),
            asked=lambda: g.add("add", self.times(self.rows, True), self.query),
            bent=lambda: g.add("gelu", self.times(self.rows, True)),
        )
        query = self.times(self.query, False)
        scores = self.one_of(
            0.7,
            product=lambda: g.add("einsum", query, keys, attr="d,id->i"),
            flipped=lambda: g.add("einsum", keys, query, attr="id,d->i"),
            divided=lambda: g.add("over_root", g.add("einsum", query, keys, attr="d,id->i"), attr=5),
            biased=lambda: g.add("add", g.add("einsum", query, keys, attr="d,id->i"), self.weight(n)),
            scaled=lambda: g.add("mul", g.add("einsum", query, keys, attr="d,id->i"), self.weight()),
            places=lambda: self.weight(n),
            column=lambda: self.view(keys, (n,), 1, WIDTH),
            summed=lambda: self.view(g.add("einsum", keys, self.weight(n, WIDTH), attr="nd,nd->d"), (n,), 0, 0),
        )
        mask = self.one_of(
            0.6,
            all=lambda: n,
            some=lambda: int(self.rng.integers(1, n + 1)),
            rows=lambda: ("".join(self.rng.permutation([*"1" * max(1, n - 1), *"0" * (n - max(1, n - 1))])),),
        )
        pattern = g.add("softmax", scores, attr=mask)
        return self.one_of(
            0.6,
            applied=lambda: g.add("einsum", pattern, values, attr="i,id->d"),
            swapped=lambda: g.add("einsum", values, pattern, attr="id,i->d"),
            boxed=lambda: self.view(
                g.add("einsum", self.view(pattern, (1, 1, n), 0, 0, 0, 1), self.view(values, (1, n, WIDTH), 0, 0, WIDTH, 1),
                      attr="bji,bid->bjd"), (WIDTH,), 0, 1),
            backwards=lambda: g.add("einsum", self.view(pattern, (n,), n - 1, -1), values, attr="i,id->d"),
            first=lambda: g.add("einsum", self.view(pattern, (n,), 0, 0), values, attr="i,id->d"),
            multiplied=lambda: g.add("mul", self.view(pattern, (WIDTH,), 0, 0), self.row(values, 0)),
        )  # fmt: skip

    def after(self, z: int) -> int:
        g = self.graph
        for _ in range(int(self.rng.integers(4))):
            z = self.one_of(
                0.3,
                matrix=lambda z=z: self.times(z, False),
                residual=lambda z=z: g.add("add", z, self.query),
                minus=lambda z=z: g.add("sub", self.query, z),
                less=lambda z=z: g.add("sub", z, self.weight(WIDTH)),
                neurons=lambda z=z: g.add("relu", z),
                scaled=lambda z=z: g.add("mul", self.query, z),
                divided=lambda z=z: g.add("over_root", z, attr=7),
                turned=lambda z=z: self.view(z, (WIDTH,), WIDTH - 1, -1),
                twice=lambda z=z: g.add("add", z, z),
                wide=lambda z=z: self.view(
                    g.add("add", self.view(z, (1,), 1, 1), self.weight(2, WIDTH)), (WIDTH,), 2, 1
                ),
                square=lambda z=z: g.add("mul", z, z),
                bent=lambda z=z: g.add("tanh", z),
                row=lambda z=z: g.add("add", z, self.row(self.rows, 0)),
                spread=lambda z=z: g.add("add", z, self.weight(1)),
                parallel=lambda z=z: g.add("add", g.add("relu", z), g.add("relu", self.times(z, False))),
                inner=lambda z=z: g.add("relu", self.times(g.add("relu", z), False)),
            )
        return z
