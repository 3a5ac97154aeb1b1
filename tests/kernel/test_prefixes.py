"""Lemma C13: values shared by inputs that agree in what is read are those that each input has by itself."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.shares import SHAPES, Transformer
from mechverify import capture
from mechverify.kernel.core import prefixes as module
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.core.double import Double
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.functions import FUNCTIONS, GROUPS
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.prefixes import LAST, PARTIAL, ZERO, Prefixes, Shared, reading, shared
from mechverify.kernel.core.semantics import Real
from tests.graph.generator import captured_on_tokens
from tests.rounds import ROUNDS

VOCAB, LENGTH, WIDTH = 3, 4, 5
Weights = dict[str, np.ndarray]


class Built:
    """A graph on `length` tokens that has an embedding, and weights drawn from a seed."""

    def __init__(self, length: int = LENGTH):
        self.graph, rng = Graph(length, tuple(range(VOCAB))), np.random.default_rng(length)
        self.weights: Weights = {"E": rng.normal(size=(VOCAB, WIDTH)), "W": rng.normal(size=(WIDTH, WIDTH))}
        self.add = self.graph.add
        self.x = self.add("gather", self.add("weight", attr=("E", (VOCAB, WIDTH))), self.add("tokens"))
        self.mixed = self.add("einsum", self.x, self.add("weight", attr=("W", (WIDTH, WIDTH))), attr="jd,de->je")
        self.scores = self.add("einsum", self.mixed, self.x, attr="je,ie->ji")

    def attention(self, mask, move: Callable[[int], int] = lambda pattern: pattern) -> int:
        return self.add("einsum", move(self.add("softmax", self.scores, attr=mask)), self.mixed, attr="ji,ie->je")

    def constant(self, *shape: int, entries: list[float]) -> int:
        return self.add("constant", attr=(shape, tuple(entries)))


def causal(g: Built) -> int:
    return g.attention("causal")


def later_tokens(g: Built) -> int:
    """A causal head, and a sum over all positions beside it."""
    everything = g.add("einsum", g.mixed, g.constant(LENGTH, entries=[1.0] * LENGTH), attr="ie,i->e")
    return g.add("add", g.attention("causal"), everything)


def mask_as_data(g: Built) -> int:
    """Zeros that a table brings are products like others."""
    triangle = g.constant(LENGTH, LENGTH, entries=list(np.tri(LENGTH).ravel()))
    return g.attention(LENGTH, lambda pattern: g.add("mul", pattern, triangle))


def mask_of_tokens(g: Built) -> int:
    """A score is lower where the last token is 0."""
    zero = g.add("eq", g.add("value", attr=LENGTH - 1), g.add("integer", attr=0))
    g.scores = g.add("sub", g.scores, g.add("number", zero))
    return g.attention("causal")


def windows(g: Built) -> int:
    return g.attention(("1000", "1100", "0110", "0011"))


def one_row(g: Built) -> int:
    return g.attention(("0101",))


def exponentials(g: Built) -> int:
    """What a mask leaves out is zero, and its exponential is one."""
    return g.attention("causal", lambda pattern: g.add("exp", pattern))


def summed(g: Built) -> int:
    """Zeros of a pattern to which something is added."""
    return g.attention("causal", lambda pattern: g.add("add", pattern, g.scores))


def swapped(g: Built) -> int:
    """Positions in reverse order, before a causal head."""
    g.mixed = g.add("view", g.mixed, attr=((LENGTH, WIDTH), (LENGTH - 1) * WIDTH, (-WIDTH, 1)))
    return g.attention("causal")


def transposed(g: Built) -> int:
    turned = g.add("view", g.attention("causal"), attr=((WIDTH, LENGTH), 0, (1, WIDTH)))
    return g.add("relu", turned)


def read_twice(g: Built) -> int:
    """The first token by its embedding and as a number, at every position."""
    return g.add("mul", g.attention("causal"), g.add("number", g.add("value", attr=0)))


def later_number(g: Built) -> int:
    return g.add("mul", g.attention("causal"), g.add("number", g.add("value", attr=LENGTH - 1)))


def picked(g: Built) -> int:
    """The row that the last token says, of a causal head."""
    return g.add("pick", g.attention("causal"), g.add("value", attr=LENGTH - 1))


def picked_of_a_table(g: Built) -> int:
    """A row of a table, which reads nothing, that the last token says."""
    table = g.add("weight", attr=("W", (WIDTH, WIDTH)))
    return g.add("mul", g.attention("causal"), g.add("pick", table, g.add("value", attr=LENGTH - 1)))


def two_layers(g: Built) -> int:
    g.x = g.attention("causal")
    g.mixed = g.add("relu", g.x)
    g.scores = g.add("over_root", g.add("einsum", g.mixed, g.x, attr="je,ie->ji"), attr=WIDTH)
    return g.add("concat", g.attention("causal"), g.x, attr=1)


def turned(g: Built) -> int:
    """Positions along the last axis."""
    return g.add("view", g.mixed, attr=((WIDTH, LENGTH), 0, (1, WIDTH)))


def largest_over_positions(g: Built) -> int:
    """It reads all of them, beside a causal head that doesn't."""
    return g.add("add", g.attention("causal"), g.add("extremum", turned(g), attr="max"))


def sorted_over_positions(g: Built) -> int:
    """The first one in order is not the first position's."""
    in_order = g.add("ascending", turned(g))
    back = g.add("view", in_order, attr=((LENGTH, WIDTH), 0, (1, LENGTH)))
    return g.add("add", g.attention("causal"), back)


def sorted_at_each_position(g: Built) -> int:
    return g.add("ascending", g.attention("causal"))


def largest_at_each_position(g: Built) -> int:
    return g.add("extremum", g.attention("causal"), attr="min")


def chosen_by_the_last(g: Built) -> int:
    """Which of two values that read nothing later, a later token decides."""
    last = g.graph.select(g.mixed, 0, LENGTH - 1)
    head = g.attention("causal")
    return g.add("choose", last, g.constant(entries=[0.0]), head, g.add("relu", head))


HEADS = [largest_over_positions, sorted_over_positions, sorted_at_each_position, largest_at_each_position,
         chosen_by_the_last, causal, later_tokens, mask_as_data, mask_of_tokens, windows, one_row, exponentials, summed, swapped, transposed,
         read_twice, later_number, picked, picked_of_a_table, two_layers]  # fmt: skip


def every(length: int = LENGTH, vocab: int = VOCAB) -> np.ndarray:
    return np.array([*itertools.product(range(vocab), repeat=length)])


def plain(graph: Graph, weights: Weights, root: int, inputs: np.ndarray):
    """Centre and radius of each input by itself."""
    ball = Evaluation(graph, weights, Real(Float64()), inputs)[root]
    return [np.broadcast_to(a, (len(inputs), *graph.nodes[root].shape)) for a in ball[:2]]


def attack(graph: Graph, weights: Weights, root: int, inputs: np.ndarray) -> Shared:
    """The shared value holds what each input's own ball holds, up to that ball's width; and no entry changes with
    tokens that it is said not to read."""
    values = Shared(Prefixes(graph, [root]), weights, Real(Float64()), inputs)
    ball = values[root]
    mid, rad = plain(graph, weights, root, inputs)
    assert (np.abs(ball.mid - mid) <= ball.rad + rad).all()
    assert (ball.rad <= 4 * rad + 1e-300).all()
    bits = np.broadcast_to(reading(graph, [root])[root], graph.nodes[root].shape)
    for position in range(inputs.shape[1]):
        changed = inputs.copy()
        changed[:, position] = np.roll(changed[:, position], 1)
        other, wide = plain(graph, weights, root, changed)
        deaf = (bits & 1 << min(position, LAST)) == 0
        assert (np.abs(other - mid) <= rad + wide)[:, deaf].all()
    return values


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_a_graph_whose_nodes_read_what_one_may_overlook(head):
    g = Built()
    root = head(g)
    attack(g.graph, g.weights, root, every())
    for position in range(g.graph.nodes[root].shape[0]):
        row = g.graph.select(root, 0, position)
        attack(g.graph, g.weights, row, np.random.default_rng(position).permutation(every())[:50])


@pytest.mark.parametrize("shape", SHAPES[::7], ids=str)
def test_transformers(shape):
    torch.manual_seed(1)
    module = Transformer(shape, VOCAB, LENGTH, width=8).eval()
    model = capture(module, torch.zeros(1, LENGTH, dtype=torch.long)).captured
    root = model.graph.select(model.sites["output"], 0, LENGTH - 2)
    attack(model.graph, model.weights, root, every())


def test_random_modules():
    taken = 0
    for model, inputs in captured_on_tokens(8 + 2 * ROUNDS, inputs=70):
        attack(model.graph, model.weights, model.sites["output"], inputs)
        taken += 1
    assert taken > ROUNDS / 4


def test_what_a_position_reads():
    g = Built()
    of_causal = reading(g.graph, [causal(g)])
    pattern = of_causal[g.graph.add("softmax", g.scores, attr="causal")]
    assert of_causal[causal(g)].ravel().tolist() == [0b1, 0b11, 0b111, 0b1111]
    assert (pattern[0] == [1, ZERO, ZERO, ZERO]).all()
    for at_each in (sorted_at_each_position, largest_at_each_position):
        assert reading(g.graph, [root := at_each(g)])[root].ravel().tolist() == [0b1, 0b11, 0b111, 0b1111]
    assert reading(g.graph, [root := chosen_by_the_last(g)])[root].ravel().tolist() == [0b1001, 0b1011, 0b1111, 0b1111]
    for over_all in (largest_over_positions, sorted_over_positions):
        assert (reading(g.graph, [root := over_all(g)])[root] == 0b1111).all()
    assert reading(g.graph, [root := swapped(g)])[root].ravel().tolist() == [0b1001, 0b1111, 0b1111, 0b1111]


def test_positions_that_share_a_bit():
    length = LAST + 4
    g = Built(length)
    inputs = np.random.default_rng(0).integers(0, VOCAB, (90, length))
    inputs[:, : length - 2] = inputs[0, : length - 2]
    attack(g.graph, g.weights, g.graph.select(causal(g), 0, length - 1), inputs)


def test_a_prefix_is_evaluated_once():
    g = Built()
    inputs = every()
    values = attack(g.graph, g.weights, g.graph.select(two_layers(g), 0, LENGTH - 1), inputs)
    assert values.numbers < len(inputs) * sum(np.prod(node.shape) for node in g.graph.nodes)
    for n, rows in values.rows.items():
        positions = [j for j in range(LENGTH) if values.prefixes.reads[n] >> j & 1]
        assert len(np.unique(inputs[rows][:, positions], axis=0)) == len(rows) <= VOCAB ** len(positions)
    assert {len(rows) for rows in values.rows.values()} == {1, VOCAB, VOCAB**2, VOCAB**3, VOCAB**4}


class Watched(Shared):
    """`most`: numbers held at once, as seen."""

    most = 0

    def _compute(self, node, args):
        value = super()._compute(node, args)
        held = [v for n, v in self.values.items() if n not in self.known]
        numbers = [np.size(v.mid if isinstance(v, Ball) else v) for v in [*held, value]]
        self.most = max(self.most, sum(numbers))
        return value


@pytest.mark.parametrize("fixed", [0, 2])
def test_how_many_numbers_are_held_at_a_time_is_known_before(fixed):
    """All values of inputs that have some tokens in common, but for what these decide; what isn't needed any more makes
    room for others."""
    g, inputs = Built(), every()
    inputs = inputs[(inputs[:, :fixed] == 0).all(1)]
    prefixes = Prefixes(g.graph, [two_layers(g)])
    common = prefixes.common(g.weights, Real(Float64()), inputs)
    values = Watched(prefixes, g.weights, Real(Float64()), inputs, common)
    (root,) = prefixes.roots.values()
    kept = np.size(values.of([root])[root].mid)
    assert kept <= values.numbers
    assert 0.5 * values.numbers <= values.most <= values.numbers  # broadcast ones are smaller than their shape
    every_value = sum(len(rows) * np.prod(prefixes.graph.nodes[n].shape) for n, rows in values.rows.items())
    assert values.numbers < every_value / 2


@pytest.mark.parametrize("op", ["log", "sqrt", "rsqrt", "reciprocal"])
@pytest.mark.parametrize("fixed", [True, False], ids=["what is read is common", "what is read varies"])
def test_what_is_not_defined_is_not_shared_away(op, fixed):
    """A value that a mask multiplies by zero has to be one, on every input (found by an adversary)."""
    g, inputs = Built(), every()
    g.weights["E"] = np.abs(g.weights["E"]) * [[1.0], [2.0], [0.0 if op == "reciprocal" else -1.0]]
    g.mixed = g.add(op, g.x)
    root = g.graph.select(g.attention("causal"), 0, 0)
    inputs = inputs[inputs[:, 0] < (1 if fixed else 2)]
    prefixes = Prefixes(g.graph, [root])
    assert prefixes.reads[prefixes.roots[root]] == 1
    for some, defined in ((inputs, False), (inputs[(inputs < 2).all(1)], True)):
        for run in (plain, attack):
            if defined:
                run(g.graph, g.weights, root, some)
                continue
            with pytest.raises(Rejected):
                run(g.graph, g.weights, root, some)
        if not defined:
            with pytest.raises(Rejected):
                shared(prefixes, g.weights, Real(Float64()), some, lambda values: values[root])


def test_functions_that_are_not_defined_everywhere_are_named():
    names = {name for group in GROUPS.values() for name in group}
    assert {*PARTIAL} == {name for name in names if FUNCTIONS[name].positive or FUNCTIONS[name].root}


def test_blocks_are_the_whole():
    g, inputs = Built(), every()
    g.add("softmax", g.scores, attr="causal")
    root = g.add("einsum", causal(g), g.constant(2**14, entries=[1.0] * 2**14), attr="je,f->jef")
    parts = shared(Prefixes(g.graph, [root]), g.weights, Real(Float64()), inputs, lambda values: values.tokens)
    assert len(parts) > 1
    assert np.array_equal(np.concatenate(parts), inputs)


def test_a_block_of_which_less_is_shared_than_of_the_whole_is_cut_again(monkeypatch):
    g, inputs = Built(), every()
    prefixes = Prefixes(g.graph, [two_layers(g)])
    whole = Shared(prefixes, g.weights, Real(Float64()), inputs)
    monkeypatch.setattr(module, "PIECE", whole.numbers // 4)
    pieces = whole.pieces()
    assert any(len(Shared(prefixes, g.weights, Real(Float64()), piece).pieces()) > 1 for piece in pieces)
    parts = shared(prefixes, g.weights, Real(Float64()), inputs, lambda values: values.tokens)
    assert len(parts) > len(pieces)
    assert np.array_equal(np.concatenate(parts), inputs)


def test_what_blocks_have_in_common_is_kept_for_inputs_that_agree_in_it():
    """Inputs that follow agree with those before in all, some or none of the positions; another arithmetic computes
    everything by itself."""
    g, rng = Built(), np.random.default_rng(0)
    root = g.graph.select(two_layers(g), 0, LENGTH - 1)
    prefixes, float64 = Prefixes(g.graph, [root]), Real(Float64())
    blocks = [(np.arange(LENGTH) < n, rng.integers(0, VOCAB, LENGTH)) for n in (3, 3, 2, 4, 3, 1, 2, 0, 4, 2)]
    for fixed, first in [*blocks, *((fixed, 0 * first) for fixed, first in blocks)]:
        inputs = np.where(fixed, first, rng.integers(0, VOCAB, (20, LENGTH)))
        mid, rad = plain(g.graph, g.weights, root, inputs)
        for model in (float64, Real(Double()), float64):
            for ball in shared(prefixes, g.weights, model, inputs, lambda values: values[root]):
                assert ball.mid.dtype == model.ar.dtype
                assert (np.abs(ball.mid.real - mid) <= ball.rad + rad).all()
                assert (ball.rad <= 4 * rad + 1e-300).all()
            kept = prefixes.kept
            assert kept is not None and kept.semantics is model and bool(kept.values)


def test_inputs_that_follow_take_less_work():
    g = Built()
    root = g.graph.select(two_layers(g), 0, LENGTH - 1)
    prefixes, model, spent = Prefixes(g.graph, [root]), Real(Float64()), []
    for start in range(0, VOCAB**LENGTH, VOCAB):  # the last token alone changes
        began = model.ar.ops
        shared(prefixes, g.weights, model, every()[start : start + VOCAB], lambda values: values[root])
        spent.append(model.ar.ops - began)
    assert max(spent) == spent[0] and spent[1] < 0.75 * spent[0]


def test_a_root_that_is_rejected_leaves_the_others_on_all_inputs():
    """It reads the first token alone, which all of these have in common: it was tried on one of them."""
    g = Built()
    other = g.add("view", g.x, attr=((), WIDTH, ()))
    first = g.add("view", g.x, attr=((), 0, ()))
    broken = g.add("log", g.add("sub", first, first))
    inputs = every()[every()[:, 0] == 0]
    values = Shared(Prefixes(g.graph, [other, broken]), g.weights, Real(Float64()), inputs)
    with pytest.raises(Rejected):
        values[broken]
    assert np.array_equal(values[other].mid, g.weights["E"][inputs[:, 1], 0])
