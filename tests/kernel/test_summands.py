"""Lemma C13: a sum that is taken apart is the same number, and its parts read what is said."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mechverify import capture
from mechverify.kernel.core import summands
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.prefixes import ZERO, Prefixes, reading
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.core.summands import apart
from tests.rounds import ROUNDS

VOCAB, LENGTH, WIDTH = 3, 3, 4
EVERY = np.array([*itertools.product(range(VOCAB), repeat=LENGTH)])


class Grown:
    """A graph of random operations on rows of tokens: real nodes, of integers, so that sums are exact in any order."""

    def __init__(self, seed: int):
        self.rng, self.graph = np.random.default_rng(seed), Graph(LENGTH, tuple(range(VOCAB)))
        self.weights: dict[str, np.ndarray] = {}
        ids = self.graph.add("tokens")
        table = self.weight(VOCAB, WIDTH)
        rows = self.graph.add("gather", table, ids)
        self.nodes = [rows, self.graph.add("gather", self.weight(VOCAB, WIDTH), self.graph.select(ids, 0, 1))]
        self.nodes += [self.graph.select(rows, 0, i) for i in range(LENGTH)]
        for _ in range(14):
            if (made := self.step(int(self.rng.choice(self.nodes[-6:])))) is not None:
                self.nodes.append(made)

    def shape(self, n: int) -> tuple[int, ...]:
        return self.graph.nodes[n].shape

    def weight(self, *shape: int) -> int:
        name = f"w{len(self.weights)}"
        self.weights[name] = self.rng.integers(-2, 3, shape).astype(float)
        return self.graph.add("weight", attr=(name, shape))

    def step(self, n: int) -> int | None:
        shape, add = self.shape(n), self.graph.add
        kind = self.rng.choice(["einsum", "flat", "turned", "concat", "add", "relu", "bias", "scaled", "select"])
        if kind == "flat":
            size = int(np.prod(shape))
            return add("view", n, attr=((size,), 0, (1,)))
        if kind == "turned" and len(shape) == 2:
            return add("view", n, attr=(shape[::-1], 0, (1, shape[1])))
        if kind == "relu":
            return add("relu", n)
        if kind == "bias":
            return add("add", n, self.weight(*shape[self.rng.integers(len(shape)) :]))
        if kind == "scaled":
            return add("mul", self.weight(*shape), n)
        if kind == "select" and len(shape) > 1:
            return self.graph.select(n, 0, int(self.rng.integers(shape[0])))
        same = [m for m in self.nodes if self.shape(m) == shape]
        if kind == "add":
            return add("add", n, int(self.rng.choice(same)))
        if kind == "concat":
            other = (int(self.rng.choice(same)), n)[:: self.rng.choice([-1, 1])]
            return add("concat", *other, attr=int(self.rng.integers(len(shape))))
        if kind == "einsum" and len(shape) == 1:
            if self.rng.random() < 0.5:
                return add("einsum", n, self.weight(WIDTH, *shape), attr="a,ba->b")
            return add("einsum", self.weight(*shape, WIDTH), n, attr="ab,a->b")
        if kind == "einsum" and len(shape) == 2:
            spec = self.rng.choice(["ia,ab->ib", "ia,ba->bi", "ai,ab->ib", "ia,iab->b"])
            sizes = dict(zip(spec[:2], shape, strict=True)) | {"b": WIDTH}
            term = spec.split(",")[1].split("-")[0]
            return add("einsum", n, self.weight(*(sizes[c] for c in term)), attr=str(spec))
        return None

    def values(self, graph: Graph, n: int) -> np.ndarray:
        found = Evaluation(graph, self.weights, Real(Float64()), EVERY)[n].mid
        return np.broadcast_to(found, (len(EVERY), *graph.nodes[n].shape))


@pytest.mark.parametrize("seed", range(40 * ROUNDS))
def test_the_sum_is_the_same_and_its_parts_read_what_is_said(seed):
    made = Grown(seed)
    roots = made.nodes[-3:]
    reads = {n: bits & ~ZERO for n, bits in reading(made.graph, roots).items()}
    graph, same = apart(made.graph, reads, roots)
    for n in roots:
        assert (made.values(made.graph, n) == made.values(graph, same[n])).all()
    copy = summands._Copy(made.graph, reads)
    for n in made.graph.ancestors(roots):
        copy.take(n)
        for part in copy.parts[n]:
            read = reading(copy.new, [part])[part]
            assert not int(np.bitwise_or.reduce(read & ~ZERO, None)) & ~copy.bits[part]
        parts = [made.values(copy.new, part) for part in copy.parts[n]] if made.graph.nodes[n].kind == "real" else []
        if len(parts) > 1:
            together = int(np.bitwise_or.reduce(reads[n], None))
            assert (sum(parts) == made.values(made.graph, n)).all()
            assert all(copy.bits[part] != together for part in copy.parts[n])


def test_random_graphs_have_sums_to_take_apart():
    """Else the test above would be of little use."""
    often = 0
    for seed in range(40):
        made = Grown(seed)
        roots = made.nodes[-3:]
        copy = summands._Copy(made.graph, {n: b & ~ZERO for n, b in reading(made.graph, roots).items()})
        for n in made.graph.ancestors(roots):
            copy.take(n)
        often += any(len(parts) > 1 for parts in copy.parts.values())
    assert often >= 20


class SideBySide(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.relu(self.into(self.rows(ids))))

    def __init__(self, length: int):
        super().__init__()
        self.embed, self.out = nn.Embedding(VOCAB, 6), nn.Linear(5, VOCAB)
        self.into = nn.Linear(6 * length, 5)

    def rows(self, ids: Tensor) -> Tensor:
        return self.embed(ids).flatten(1)


class Concatenated(SideBySide):
    def rows(self, ids: Tensor) -> Tensor:
        return torch.cat([torch.tanh(self.embed(ids[:, i])) for i in range(ids.shape[1])], -1)


class Added(SideBySide):
    """Of two positions each."""

    def __init__(self, length: int):
        super().__init__(2)

    def rows(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return torch.cat([x[:, 0] + x[:, 1], x[:, 2] - x[:, 0] * 2], -1)


@pytest.mark.parametrize(("model", "widest"), [(SideBySide, 1), (Concatenated, 1), (Added, 2)])
def test_matrices_multiply_rows_of_few_tokens(model, widest):
    """Before what isn't linear, contractions read no more tokens than each of their rows; after it, one reads all."""
    torch.manual_seed(0)
    output = capture(model(LENGTH).eval(), torch.zeros(1, LENGTH, dtype=torch.long))["output"]
    graph, n = output.model.captured.graph, output.model.captured.sites[output.name]
    made = Prefixes(graph, [n])
    read = [made.reads[m].bit_count() for m in made.order if made.graph.nodes[m].op == "einsum"]
    assert sorted(read)[-1] == LENGTH and all(bits <= widest for bits in sorted(read)[:-1])


def test_entries_that_no_view_has_in_order_are_left_together():
    made = Grown(0)
    add, ids = made.graph.add, made.graph.add("tokens")
    blocks = [
        add("view", add("gather", made.weight(VOCAB, 8), made.graph.select(ids, 0, i)), attr=((2, 2, 2), 0, (4, 2, 1)))
        for i in range(2)
    ]
    moved = add("view", add("concat", *blocks, attr=2), attr=((4, 2, 2), 0, (1, 8, 4)))
    flat = add("view", add("mul", moved, made.weight(4, 2, 2)), attr=((16,), 0, (1,)))
    root = add("einsum", flat, made.weight(16, WIDTH), attr="a,ab->b")
    graph, same = apart(made.graph, {n: b & ~ZERO for n, b in reading(made.graph, [root]).items()}, [root])
    assert (made.values(made.graph, root) == made.values(graph, same[root])).all()


def test_following_entries_is_counted_as_work():
    """Else a file whose large views are made of one another could keep a check busy for nothing."""

    def work(chain: int) -> int:
        made = Grown(0)
        add, size = made.graph.add, LENGTH * WIDTH * 100
        n = add("view", made.nodes[0], attr=((LENGTH * WIDTH, 100), 0, (1, 0)))
        n = add("view", n, attr=((size,), 0, (1,)))
        for _ in range(chain):
            n = add("view", n, attr=((size,), size - 1, (-1,)))
        root = add("einsum", n, made.weight(size, WIDTH), attr="a,ab->b")
        reads = {n: bits & ~ZERO for n, bits in reading(made.graph, [root]).items()}
        before = made.graph.meter.work
        apart(made.graph, reads, [root])
        return made.graph.meter.work - before

    assert work(30) - work(10) >= 20 * 10 * LENGTH * (LENGTH * WIDTH * 100)
