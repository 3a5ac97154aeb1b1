"""Rule `nested` against brute force: every enclosure by itself on every input, and the counts, whatever the witness says."""

from contextlib import suppress
from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np
import pytest
from sympy import And, Eq, Integer, Ne, Or, Piecewise

from mechverify import count, distinct, tokens
from mechverify.claims.mechanisms import compile_mechanism
from mechverify.kernel import Rejected, check
from mechverify.kernel.core.architectures.transformer import transformer, transformer_relu
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.errors import Unsupported
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.core.mechanism import add_expression
from mechverify.kernel.core.meter import Meter
from mechverify.kernel.core.semantics import Real
from mechverify.kernel.counting import automaton
from mechverify.kernel.counting import guard as counted
from mechverify.kernel.counting.apart import apart, is_apart, sequences
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.counting.known import conditions_of
from mechverify.kernel.nested import ranges
from mechverify.kernel.nested.layers import two_layers
from mechverify.kernel.nested.ranges import Along, Row, highest
from mechverify.kernel.nested.rule import Cells, Family, Model, Rows, exponentials, largest_sum, least_mean, weighed
from mechverify.kernel.nested.scores import Scores
from mechverify.kernel.nested.sums import Columns, Given, Term, Window, possible, windows
from mechverify.kernel.proof import prove
from tests import oracle
from tests.models import as_bytes, as_float64, random_weights
from tests.rounds import ROUNDS
from tests.soundness import forge

SLACK = 1e-9


# --- the model, by itself ---------------------------------------------------------------------------------------------


def row(weights, layer, x, j, bias=True):
    """What the attention of a layer adds to row j of x, its queries, keys, values, and weights, in float64."""
    w = {k.rsplit(".", 1)[1]: v for k, v in weights.items() if k.startswith(f"blocks.{layer}.")}
    heads, _, e = w["W_Q"].shape
    part = {c: w.get(f"b_{c}", np.zeros((heads, e))) for c in "QKV"}
    q = np.einsum("d,hde->he", x[j], w["W_Q"]) + part["Q"]
    k, v = (np.einsum("id,hde->hie", x[: j + 1], w[f"W_{c}"]) + part[c][:, None] for c in "KV")
    scores = np.einsum("he,hie->hi", q, k) / np.sqrt(e)
    share = np.exp(scores - scores.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    out = np.einsum("hi,hie,hed->d", share, v, w["W_O"]) + w.get("b_O", 0)
    return out, q, k, v, scores


def first(weights, x):
    h = weights["embed.W_E"][list(x)] + weights["pos_embed.W_pos"][: len(x)]
    return np.stack([h[j] + row(weights, 0, h, j)[0] for j in range(len(x))])


def parts(weights, x, pin):
    """Direct, and of each head of the second layer the query and keys, what each position adds if it is attended to
    alone, and the scores."""
    h, unembed = first(weights, x), weights["unembed.W_U"]
    _, q, k, v, scores = row(weights, 1, h, pin)
    direct = (h[pin] + weights.get("blocks.1.attn.b_O", 0)) @ unembed + weights.get("unembed.b_U", 0)
    q, value = q / np.sqrt(q.shape[1]), v @ weights["blocks.1.attn.W_O"] @ unembed
    return direct, [*zip(q, k, value, scores, strict=True)]


def mean(row, x):
    """The row's vector at an input, from its tables' centres."""
    own, at = x[row.pin], np.arange(len(x))
    share = row.factor.mid[:, own, x, at]
    share = share / share.sum(1, keepdims=True)
    return row.base.mid[own] + np.einsum("gj,gj...->...", share, row.value.mid[:, x, at])


def random_claim(rng):
    """A claim about a model of two layers with one head each, or two, its weights and their bytes. The mechanism is an output
    that the model favours, a token, or what followed the last token where it stood before; an id means another
    integer at times, which may be no output."""
    vocab, length = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    weights = random_weights(
        rng, vocab=vocab, length=length, d=3, e=2, layers=2, heads=int(rng.choice([1, 1, 2])), scale=float(rng.choice([0.3, 0.8, 2.0])),
        biases=bool(rng.random() < 0.7),
    )  # fmt: skip
    pin, x = int(rng.integers(length)), tokens("x", length=length, vocab=vocab)
    if rng.random() < 0.6:
        weights["unembed.b_U"] = weights.get("unembed.b_U", np.zeros(vocab, np.float32)).copy()
        weights["unembed.b_U"][0] += rng.choice([0.5, 2])
    domain = [sorted(rng.choice(vocab, int(rng.integers(1, vocab + 1)), replace=False).tolist()) for _ in range(length)]
    follows = sum((Piecewise((x[j + 1], Eq(x[j], x[pin])), (0, True)) for j in range(length - 1)), Integer(0))
    equals = [Integer(0), Integer(0), x[int(rng.integers(length))] + 0, follows][int(rng.integers(4))]
    values = rng.permutation(vocab + 1)[:vocab].tolist() if rng.random() < 0.5 else [*range(vocab)]
    data, margin = as_bytes(weights), Fraction(1, 4) if rng.random() < 0.2 else None
    shape = dict(tokens=domain, vocab=vocab, length=length, position=pin, values=values, margin=margin)
    doc = forge.document(data, {}, equals=compile_mechanism(equals, x), **shape)
    doc |= {"version": 5, "cost": None}
    if rng.random() < 0.5:
        given = And(Or(Eq(x[0], x[-1]), Ne(x[pin], 0)), x[0] <= 1)
        if rng.random() < 0.6:
            some = sorted(rng.choice(length, int(rng.integers(2, min(length, 3) + 1)), replace=False).tolist())
            given = And(given, distinct(*(x[i] for i in some)))
        given = compile_mechanism(given, x)
        if any(oracle.evaluate(given, t, values) for t in product(*domain)):
            doc["claim"]["given"] = given
    return doc, as_float64(weights), data


def job_of(doc, data, arithmetic=None):
    claim = read_claim(Reader(doc["claim"], "claim"), data)
    return Job(claim, arithmetic or Float64())


# --- each enclosure ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(ROUNDS // 4))
def test_the_parts_are_those_of_the_model(seed):
    """N1: queries, keys, direct and values are the model's, and the output is made of them as N1 says."""
    rng = np.random.default_rng(seed)
    vocab, length, heads = int(rng.integers(2, 4)), int(rng.integers(2, 5)), int(rng.integers(1, 3))
    shape = dict(vocab=vocab, length=length, layers=2, heads=heads, out=5)
    weights = as_float64(random_weights(rng, biases=seed % 3 > 0, **shape))
    graph, pin = Graph(length, tuple(range(vocab))), int(rng.integers(length))
    output = graph.select(transformer(graph, weights)["logits"], 0, pin)
    found = two_layers(graph, weights, Real(Float64()), output)
    assert found.pin == pin and len(found.heads) == heads
    assert all(sorted(h.keys) == sorted(h.values) == [*range(pin + 1)] for h in found.heads)
    direct, rows = Row(Float64(), found.direct), [Rows(Float64(), head) for head in found.heads]
    model = oracle.Transformer(weights)
    for x in map(np.array, product(range(vocab), repeat=length)):
        left, each = parts(weights, x, pin)
        np.testing.assert_allclose(mean(direct, x), left, rtol=0, atol=SLACK)
        total = left
        for head, (q, k, value, scores) in zip(rows, each, strict=True):
            np.testing.assert_allclose(mean(head.asking, x), q, rtol=0, atol=SLACK)
            for i in head.keys:
                np.testing.assert_allclose(mean(head.keys[i], x), k[i], rtol=0, atol=SLACK)
                np.testing.assert_allclose(mean(head.values[i], x), value[i], rtol=0, atol=SLACK)
            share = np.exp(scores - scores.max())
            total = total + share / share.sum() @ value
        expected = [float(y) for y in model.logits(x.tolist(), pin)]
        np.testing.assert_allclose(total, expected, rtol=0, atol=SLACK)


@pytest.mark.parametrize("kind", ["three layers", "one layer", "relu", "no residual"])
def test_what_is_not_two_layers_is_refused(kind):
    rng = np.random.default_rng(0)
    layers = {"three layers": 3, "one layer": 1}.get(kind, 2)
    mlp = 3 if kind == "relu" else 0
    weights = as_float64(random_weights(rng, vocab=3, length=3, layers=layers, mlp=mlp))
    graph = Graph(3, (0, 1, 2))
    sites = (transformer_relu if mlp else transformer)(graph, weights)
    output = graph.select(sites["logits"], 0, 2)
    if kind == "no residual":
        output = graph.select(sites["blocks.1.attn_out"], 0, 2)
        weights.pop("blocks.1.attn.b_O")
        graph = Graph(3, (0, 1, 2))
        output = graph.select(transformer(graph, weights)["blocks.1.attn_out"], 0, 2)
    with pytest.raises(Unsupported):
        two_layers(graph, weights, Real(Float64()), output)


def random_row(rng, ar, pin, vocab, length, directions):
    """Any row: heads that attend anywhere, factors that vary a thousandfold, values of either sign."""
    heads = int(rng.integers(1, 4))
    shape = heads, vocab, vocab, length
    row = Row.__new__(Row)
    row.pin, row.attends = pin, rng.random((heads, length)) < 0.7
    row.attends[:, int(rng.integers(length))] = True
    factor = np.exp(rng.normal(size=shape) * rng.choice([0.1, 1, 3], (heads, 1, 1, 1)))
    row.factor = ar.exact(np.where(row.attends[:, None, None], factor, 0.0))
    base = rng.normal(size=(directions, vocab))
    value = rng.normal(size=(directions, heads, vocab, length)) * rng.choice([0, 0.1, 1], (1, heads, 1, 1))
    return row, Along(ar.exact(base), ar.exact(value))


def random_box(rng, vocab, length):
    return [np.sort(rng.choice(vocab, int(rng.integers(1, vocab + 1)), replace=False)) for _ in range(length)]


def random_apart(rng, length):
    """No positions, or two or more."""
    some = rng.choice(length, int(rng.integers(0, length + 1)), replace=False).tolist()
    return frozenset(some if len(some) > 1 else [])


def differ(x, apart):
    return len({x[i] for i in apart}) == len(apart)


some_exactly = pytest.mark.parametrize(
    ("seed", "exactly"),
    [(seed, exactly) for exactly, every in ((False, 1), (True, 10)) for seed in range(0, 2 * ROUNDS, every)],
)


@some_exactly
def test_rows_are_at_most_their_bounds(seed, exactly, monkeypatch):
    """N2, for any box and any row, at position 0 too, which has no token before it; in one part, or several."""
    rng = np.random.default_rng(seed)
    ar, vocab, length = Exact() if exactly else Float64(), int(rng.integers(1, 4)), int(rng.integers(1, 5))
    pin, box = int(rng.integers(length)), random_box(rng, vocab, length)
    row, along = random_row(rng, ar, pin, vocab, length, 2)
    given, apart = None, random_apart(rng, length)
    monkeypatch.setattr(ranges, "PART", int(rng.choice([1, 2**18])))
    if rng.random() < 0.5:
        there = rng.integers(length, size=2)
        given = Given(there, np.array([int(rng.integers(len(box[j]))) for j in there]))
    bound = ar.approximate(highest(ar, row, along, box, apart, given))
    factor, value, base = (ar.approximate(x) for x in (row.factor, along.value, along.base))
    reached = np.full(bound.shape, -np.inf)
    for x in product(*box):
        if not differ(x, apart):
            continue
        at, own = np.arange(length), int(x[pin])
        share = factor[:, own, list(x), at]
        share = share / share.sum(1, keepdims=True)
        now = base[:, own] + np.einsum("gj,dgj->d", share, value[:, :, list(x), at])
        p = int(np.searchsorted(box[pin - 1], x[pin - 1])) if pin else 0
        c = int(np.searchsorted(box[pin], own))
        as_given = np.array(
            [given is None or x[given.position[d]] == box[given.position[d]][given.place[d]] for d in (0, 1)]
        )
        assert (now <= bound[:, p, c] + SLACK)[as_given].all()
        reached[as_given, p, c] = np.maximum(reached[:, p, c], now)[as_given]
    if all(len(box[j]) == 1 for j in range(length) if j not in (pin, pin - 1)):
        there = np.isfinite(reached)
        np.testing.assert_allclose(bound[there], reached[there], atol=1e-6)  # nothing is left open


@pytest.mark.parametrize("seed", range(2 * ROUNDS))
def test_sums_over_windows_are_at_most_the_largest(seed):
    rng = np.random.default_rng(seed)
    ar, box = Float64(), random_box(rng, 3, int(rng.integers(1, 5)))
    terms = [rng.normal(size=(2, len(box[i - 1]) if i else 1, len(box[i]))) for i in range(len(box))]
    apart = random_apart(rng, len(box))
    if rng.random() < 0.5:
        terms[-1] = terms[-1][:, :1, :1]
    expected = np.full(2, -np.inf)
    for x in product(*(range(len(here)) for here in box)):
        here = [int(tokens[k]) for tokens, k in zip(box, x, strict=True)]
        if any({i - 1, i} <= apart and here[i - 1] == here[i] for i in range(1, len(box))):
            continue
        total = np.zeros(2)
        for i, term in enumerate(terms):
            rows, columns = term.shape[1:]
            total += term[:, x[i - 1] if i and rows > 1 else 0, x[i] if columns > 1 else 0]
        expected = np.maximum(expected, total)
    found = largest_sum(ar, [ar.exact(t) for t in terms], [possible(i, box, apart) for i in range(len(box))])
    assert (expected <= found + SLACK).all()
    if not apart or all(len(tokens) == 3 for tokens in box):  # every token can follow some other
        np.testing.assert_allclose(found, expected, rtol=0, atol=SLACK)


def test_exponentials_are_at_most_their_bounds():
    for ar in (Float64(), Exact()):
        x = np.array([[-1e5, -699.0, -3.0, 0.0, 59.0]])
        found = exponentials(ar, {0: ar.exact(x)})
        assert found is not None
        y = ar.approximate(found[0])
        assert (y >= np.exp(x)).all() and (y <= np.exp(x) * (1 + 1e-9) + 1e-40).all()
        assert exponentials(ar, {0: ar.exact(x), 1: ar.exact(x + 2)}) is None


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_differences_of_scores_are_at_most_their_bounds(seed):
    """N3, with any number of heads in the first layer, rows that attend anywhere, and parts of boxes."""
    rng = np.random.default_rng(seed)
    assert sum(differences_hold(rng) for _ in range(6)) > 0


def differences_hold(rng) -> int:
    """How many there were, of random scores: none where tokens that are to differ can't."""
    ar, vocab, length, size, compared = Float64(), int(rng.integers(1, 4)), int(rng.integers(1, 4)), 2, 0
    pin = int(rng.integers(length))

    def some(i):
        row, along = random_row(rng, ar, i, vocab, length, size)
        row.base, row.value = (x.map(lambda a: np.moveaxis(a, 0, -1)) for x in along)
        return row

    asking, keys = some(pin), {i: some(i) for i in range(length) if i == pin or rng.random() < 0.8}
    box = random_box(rng, vocab, length)
    query, reference = int(rng.choice(box[pin])), int(rng.choice([*keys]))
    box[pin] = np.array([query])
    differing = random_apart(rng, length)
    scores = Scores(ar, asking, keys, query, box, reference, differing)
    part = [np.sort(rng.choice(t, int(rng.integers(1, len(t) + 1)), replace=False)) for t in box]
    for outer, by_token in product((box, part), (False, True)):
        bounds = scores.differences(outer, by_token)
        for x in product(*outer):
            if not differ(x, differing):
                continue
            asked = mean(asking, np.array(x))
            score = {i: asked @ mean(row, np.array(x)) for i, row in keys.items()}
            for i, bound in bounds.items():
                at = tuple(int(a.ravel()[0]) for a in windows(i, outer, [np.array([t]) for t in x]))
                which = int(np.searchsorted(outer[reference], x[reference])) if len(bound.mid) > 1 else 0
                assert score[i] - score[reference] <= bound.mid[which][at] + SLACK, (i, reference)
                compared += i != reference
    return compared


def random_window(rng):
    """Any positions known, along any axes; and a ratio of terms that may depend on what is known."""
    length, ar = int(rng.integers(1, 5)), Float64()
    box = random_box(rng, 4, length)
    known = rng.choice(length, int(rng.integers(0, min(length, 3) + 1)), replace=False).tolist()
    axis = dict(zip(known, rng.permutation(3).tolist(), strict=False))
    apart = random_apart(rng, length)
    window = Window(ar, axis, box, apart)
    sizes = [1, 1, 1]
    for j, k in axis.items():
        sizes[k] = len(box[j])

    def some(scale):
        shape = [n if rng.random() < 0.7 else 1 for n in sizes]
        return scale * rng.normal(size=(*shape, len(Columns(box).token)))

    return ar, box, axis, apart, window, some


def sequences_of(box, axis, apart):
    """Inputs that satisfy what is asked, with their columns and the place of the known tokens along the axes."""
    start = np.cumsum([0, *map(len, box)])
    for places in product(*(range(len(here)) for here in box)):
        x = [int(here[k]) for here, k in zip(box, places, strict=True)]
        if differ(x, apart):
            at = [0, 0, 0]
            for j, k in axis.items():
                at[k] = places[j]
            yield at, [int(start[j]) + k for j, k in enumerate(places)]


def at_place(a, at):
    return a[tuple(k if n > 1 else 0 for k, n in zip(at, a.shape, strict=False))]


@pytest.mark.parametrize("seed", range(3 * ROUNDS))
def test_sums_of_terms_are_at_most_the_largest_for_any_price(seed):
    """N8. With no two tokens that have to differ, nothing is lost."""
    rng = np.random.default_rng(seed)
    ar, box, axis, apart, window, some = random_window(rng)
    terms = ar.exact(some(1.0)[..., window.free])
    prices = [None, window.price(terms.mid)]
    if len(window.differs):
        prices.append(np.maximum(rng.normal(size=(1, 1, 1, window.several)), 0))
    reached: dict = {}
    for at, columns in sequences_of(box, axis, apart):
        each = at_place(terms.mid, at)
        now = sum(each[int(np.searchsorted(window.free, c))] for c in columns if c in window.free)
        for price in prices:
            assert now <= at_place(window.most(terms, price).mid, at) + SLACK
        key = tuple(at)
        reached[key] = max(now, reached.get(key, -np.inf))
    if not apart:
        for key, now in reached.items():
            assert at_place(window.most(terms).mid, key) <= now + SLACK


@some_exactly
def test_ratios_are_at_most_their_lines(seed, exactly, monkeypatch):
    """N2 and N7, one by one and together with sums of terms, whatever the trial value and the prices are."""
    rng = np.random.default_rng(seed)
    ar, box, axis, apart, window, some = random_window(rng)
    if exactly:
        ar = window.ar = Exact()
    ratios = [Term(ar.exact(np.exp(some(float(rng.choice([0.1, 1, 2]))))), ar.exact(some(1.0))) for _ in range(2)]
    if rng.random() < 0.3:

        def anything(known, free, alike):
            price = np.maximum(rng.normal(size=(1, 1, 1, window.several)), 0) if len(window.differs) else None
            return rng.normal(size=(1, 1, 1)), price

        monkeypatch.setattr(window, "_trial", anything)
    flat = ar.exact(some(1.0))
    lines = [tuple(map(ar.approximate, window.line(ratio))) for ratio in ratios]
    tops = [ar.approximate(window.highest(ratio)) for ratio in ratios]
    both = ar.approximate(window.together(ar.exact(np.ones((1, 1, 1))), ratios, [flat]))
    wide = [ar.approximate(window.all_columns(ar.exact(each))) for _, each in lines]
    for at, columns in sequences_of(box, axis, apart):
        total = 1 + sum(at_place(ar.approximate(flat), at)[c] for c in columns)
        for ratio, (constant, _), terms, top in zip(ratios, lines, wide, tops, strict=True):
            e, u = (at_place(ar.approximate(x), at)[columns] for x in ratio)
            now = (e * u).sum() / e.sum()
            assert now <= at_place(top, at) + SLACK
            assert now <= at_place(constant, at) + sum(at_place(terms, at)[c] for c in columns) + SLACK
            total += now
        assert total <= at_place(both, at) + SLACK


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_bounds_of_one_ratio_lose_little_beside_its_largest_value(seed):
    """Where no tokens have to differ; a few steps of the search for a trial value are nearly enough."""
    rng = np.random.default_rng(seed)
    ar, box, axis, _, _, some = random_window(rng)
    window = Window(ar, axis, box, frozenset())
    ratio = Term(ar.exact(np.exp(some(0.1))), ar.exact(some(1.0)))
    found, reached = window.together(ar.exact(np.zeros((1, 1, 1))), [ratio], []).mid, {}
    alone, shared = window.highest(ratio).mid, 1 in axis.values()
    for at, columns in sequences_of(box, axis, frozenset()):
        e, u = (at_place(x.mid, at)[columns] for x in ratio)
        now, key = (e * u).sum() / e.sum(), tuple(at)
        reached[key] = max(now, reached.get(key, -np.inf))
    for key, now in reached.items():
        assert at_place(found, key) <= now + 0.05 + SLACK
        assert shared or at_place(alone, key) <= now + 0.01 + SLACK  # one trial value for all along the second axis


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_sequences_of_different_tokens_are_counted(seed):
    """N5: of an automaton those that keep some positions apart; and of a cell those that satisfy the guard, whose tokens
    are in its box."""
    rng = np.random.default_rng(seed)
    length, groups = int(rng.integers(1, 5)), []
    states = [1, *rng.integers(1, 4, size=length - 1).tolist(), 1]
    for i in range(length):
        parts = np.array_split(rng.permutation(4), int(rng.integers(1, 4)))
        groups.append(Layer(states[i], [(t, rng.integers(-1, states[i + 1], size=states[i])) for t in parts if len(t)]))
    apart, found = random_apart(rng, length), 0
    for x in product(range(4), repeat=length):
        state = 0
        for token, layer in zip(x, groups, strict=True):
            following = next(f for tokens, f in layer.groups if token in tokens)
            state = following[state] if state >= 0 else -1
        found += state >= 0 and differ(x, apart)
    assert sequences(Meter(), groups, apart) == found


@pytest.mark.parametrize("values, kept", [([0, 1, 2], {0, 1, 3}), ([1, 1, 2], set())])
def test_positions_are_apart_where_all_pairs_are(values, kept):
    """Of 0, 1, 3 and 1, 2; not where two tokens mean the same."""
    x, graph = tokens("x", length=4, vocab=3, values=values), Graph(4, tuple(values))
    rows = compile_mechanism(And(distinct(x[0], x[1], x[3]), Ne(x[1], x[2]), Eq(x[0], x[2]), Ne(x[1], 1)), x)
    asked = conditions_of(graph, add_expression(graph, Reader(rows, "given")))
    found = apart(graph, asked)
    assert found == kept and sum(is_apart(graph, n, found) for n in asked) == len(kept)


def test_factors_where_the_reference_is_not_told_apart_are_the_largest():
    """N4: in a part of a box, of the tokens that its reference has left."""
    ar, rng = Float64(), np.random.default_rng(0)
    box = [np.arange(3)] * 3
    part = [np.array([0, 2]), np.array([1, 2]), np.array([0, 1])]
    family = Family.__new__(Family)
    x = ar.exact(rng.random((3, 3, 3)))  # [tokens at the reference, tokens before, own tokens]
    found = family._part(x, 1, 2, box, part)
    expected = [[max(x.mid[at, a, b] for at in part[2]) for b in part[1]] for a in part[0]]
    np.testing.assert_array_equal(ar.approximate(found), expected)
    told_once = family._part(x.at[:1], 1, 2, box, part)
    np.testing.assert_array_equal(ar.approximate(told_once), x.mid[0][np.ix_(part[0], part[1])])


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_terms_of_cells_are_at_least_their_bounds(seed):
    """N4: direct and values, with the weights, on every input of every cell and of parts of cells; what is decided is
    right."""
    rng = np.random.default_rng(seed)
    doc, weights, data = random_claim(rng)
    job = job_of(doc, data)
    model = Model(job)
    for query in job.claim.domain.tokens[model.pin]:
        domain = job.claim.domain.split(model.pin, {query})[0]
        cells = Cells(model, domain, query, [], some_conditions(rng, job))
        whole = [cells.cell(key) for key in cells.classes.places]
        references = [int(rng.choice([*h.keys])) for h in model.heads]
        family = Family(model, query, references, bool(rng.random() < 0.5), whole)
        for cell in [*whole, *(c for w in whole for c in w.cut(int(rng.integers(domain.length)), [0, 2]))]:
            if cell.size and cell._narrowed[1]:  # no input keeps the guard: there is nothing to show
                assert cell.asked == 0
            elif cell.size and 0 <= cell.wanted < job.claim.outputs:
                others, alone = [t for t in range(cell.outputs) if t != cell.wanted], bool(rng.random() < 0.5)
                with suppress(TooWide):
                    decided = partial(cell.decided, family, alone)
                    compare(cell, family, weights, alone, decided, cell.wanted, others, model.margin)
                for rival in others:
                    with suppress(TooWide):
                        decided = partial(cell.beaten, family, alone, rival)
                        compare(cell, family, weights, alone, decided, rival, [cell.wanted], -model.margin)


def some_conditions(rng, job):
    """Of the guard's."""
    if not job.claim.guarded:
        return []
    number = len(conditions_of(job.further(), job.claim.guard))
    return [i for i in range(number) if rng.random() < 0.7]


class TooWide(Exception):
    """Scores that differ by hundreds: the kernel says so, and nothing else."""


def compare(cell, family, weights, alone, decide, first, others, margin):
    """Losses of the direct part and of each head, with and without a trial value, and their means: of one output below
    others, or a rival below the right one."""
    model, rivals = cell.model, np.array(others, int)
    ar = model.ar
    try:
        factors, decided = family.factors(cell.box, alone), decide()
    except Rejected as error:
        assert "known to be positive" in str(error)
        raise TooWide from None
    direct, losses = cell._direct(first, rivals, margin), [cell._losses(head, first, rivals) for head in model.heads]
    if any(f is None for f in factors):
        assert not decided or len(factors) > 1
        return
    shift = ar.exact(np.linspace(-1, 1, len(rivals))[:, None, None])
    moved = [{i: ar.top(ar.add(x, shift)) for i, x in loss.items()} for loss in losses]
    whole = cell._with_direct(losses[0], direct)
    terms = [weighed(ar, m, f) for m, f in zip([whole, *moved], [factors[0], *factors], strict=True)]
    means = [least_mean(ar, loss, f, cell._possible) for loss, f in zip(losses, factors, strict=True)]
    for x in product(*cell.box):
        if not differ(x, cell.apart):
            continue
        left, heads = parts(weights, x, model.pin)
        over = [y[..., first, None] - y[..., rivals] for y in (left, *(value for _, _, value, _ in heads))]
        over[0] = over[0] - float(margin)
        at = [int(np.searchsorted(tokens, t)) for tokens, t in zip(cell.box, x, strict=True)]
        lead = over[0]
        for h, (_, _, _, scores) in enumerate(heads):
            share = np.exp(scores - scores[family.references[h]])
            holds(terms[1 + h], share[:, None] * (over[1 + h] - shift.mid[:, 0, 0]), at)
            now = share @ over[1 + h] / share.sum()
            lead = lead + now
            assert means[h] is None or (now >= means[h].mid - SLACK * (1 + np.abs(now))).all()
            if not h:
                holds(terms[0], share[:, None] * (over[1] + over[0]), at)
        if decided:
            assert (lead > 0).all()


def holds(bounds, values, at):
    for i, value in enumerate(values):
        rows, columns = bounds[i].mid.shape[1:]
        bound = bounds[i].mid[:, at[i - 1] if i and rows > 1 else 0, at[i] if columns > 1 else 0]
        assert (value >= -bound - SLACK * (1 + np.abs(value) + np.abs(bound))).all()


# --- whole proofs -----------------------------------------------------------------------------------------------------


def truth(claim, weights):
    """Inputs of the whole domain that are right, or don't satisfy the guard, by python-flint's balls."""
    model, values = oracle.Transformer(weights), claim["domain"]["values"]
    margin, right = Fraction(claim.get("margin", 0)), 0
    margin = oracle.arb(margin.numerator) / margin.denominator
    for x in product(*claim["domain"]["tokens"]):
        outside = "given" in claim and not oracle.evaluate(claim["given"], x, values)
        wanted = oracle.evaluate(claim["equals"], x, values)
        right += outside or oracle.is_right(model.logits(x, claim["position"]), wanted, margin) is True
    return right


def random_node(rng, cell, depth=2):
    if not cell.size or rng.random() < 0.1:
        return None
    rivals = [t for t in range(cell.outputs) if t != cell.wanted]
    if rivals and rng.random() < 0.4:
        return {"rival": int(rng.choice(rivals)), "alone": bool(rng.random() < 0.5)}
    if not depth or rng.random() < 0.6:
        return bool(rng.random() < 0.5)
    position, tokens = int(rng.integers(len(cell.layers))), [t for t in range(3) if rng.random() < 0.5]
    sides = [random_node(rng, part, depth - 1) for part in cell.cut(position, tokens)]
    return dict(zip(("position", "tokens", "inside", "outside"), (position, tokens, *sides), strict=True))


def random_proof(rng, job):
    """Any entry of the witness: families that needn't fit, cuts, keys, some of the guard's conditions."""
    model, keys = Model(job), [[["value", [], 0]]] if rng.random() < 0.4 else []
    conditions = some_conditions(rng, job)
    families = []
    for query in job.claim.domain.tokens[model.pin]:
        domain = job.claim.domain.split(model.pin, {query})[0]
        cells = Cells(model, domain, query, [Reader(k, "keys") for k in keys], conditions)
        places = [*cells.classes.places]
        rng.shuffle(places)
        half = int(rng.integers(len(places) + 1))
        for some in (places[:half], places[half:]):
            rows = [[[int(k) for k in key], random_node(rng, cells.cell(tuple(key)))] for key in some]
            references = [int(rng.choice([*head.keys])) for head in model.heads]
            about = {"references": references, "by_token": bool(rng.random() < 0.5)}
            families.append({"query": query, **about, "cells": rows})
    return {"rule": "nested", "keys": keys, "conditions": conditions, "families": families}


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_bounds_hold_the_truth(seed):
    rng = np.random.default_rng(seed)
    doc, weights, data = random_claim(rng)
    expected = truth(doc["claim"], weights)
    others = int(np.prod([len(t) for t in doc["claim"]["domain"]["tokens"]])) - job_of(doc, data).claim.total
    for turn in range(3):
        job = job_of(doc, data, Exact() if turn == 2 and seed % 6 == 0 else None)
        with np.errstate(all="ignore"):
            proof = random_proof(rng, job)
            try:
                bounds, _ = prove(job, Reader(proof, "proof"))
            except Rejected as error:
                assert "known to be positive" in str(error)
                continue
        assert bounds.low <= expected <= bounds.high, (proof, bounds, expected)
        doc["proof"], low, high = proof, max(bounds.low - others, 0), bounds.high - others
        for stated in ((low, high), (low + 1, high), (low, high - 1)):
            doc["conclusion"]["right_at_least"], doc["conclusion"]["right_at_most"] = map(str, stated)
            if stated == (low, high):
                assert check(forge.file(doc, data)).right == stated
            else:
                with pytest.raises(Rejected):
                    check(forge.file(doc, data))


def test_no_share_is_told_of_cells_that_hold_more_than_the_guard_lets_through():
    """Half of each cell is decided, which counts; the cell is told as open."""
    partly = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        doc, _, data = random_claim(rng)
        job = job_of(doc, data)
        if not job.claim.guarded:
            continue
        with np.errstate(all="ignore"):
            model, families = Model(job), []
            for query in job.claim.domain.tokens[model.pin]:
                domain = job.claim.domain.split(model.pin, {query})[0]
                cells = Cells(model, domain, query, [], [])
                for key in cells.classes.places:
                    tokens = cells.cell(key).box[0][:1].tolist()
                    node = {"position": 0, "tokens": tokens, "inside": True, "outside": None}
                    references = [min(head.keys) for head in model.heads]
                    row = [[int(k) for k in key], node]
                    families.append({"query": query, "references": references, "by_token": False, "cells": [row]})
            proof = {"rule": "nested", "keys": [], "conditions": [], "families": families}
            try:
                found, _ = prove(job, Reader(proof, "proof"))
            except Rejected:
                continue
        told = [(size, wrong) for *_, size, wrong in job.found.cells]
        assert all(wrong in ((0, 0), (0, size)) for size, wrong in told), (seed, told)
        partly += found.low > sum(size for size, wrong in told if wrong == (0, 0))
    assert partly


@pytest.mark.parametrize("conditions, low, high", [([0, 1], 6, 6), ([0], 4, 8), ([], 0, 8)])
def test_inputs_that_may_break_the_guard_are_not_counted_as_wrong(conditions, low, high):
    """The mechanism says what is no output; two of eight inputs satisfy the guard."""
    weights = random_weights(np.random.default_rng(0), vocab=2, length=3, d=3, e=2, layers=2, heads=1)
    x, data = tokens("x", length=3, vocab=2), as_bytes(weights)
    shape = dict(tokens=[[0, 1]] * 3, vocab=2, length=3, position=2, values=[0, 1])
    doc = forge.document(data, {}, equals=compile_mechanism(Integer(5), x), **shape) | {"version": 5, "cost": None}
    doc["claim"]["given"] = compile_mechanism(And(Eq(x[0], 0), Ne(x[1], 0)), x)
    families = [{"query": q, "references": [0], "by_token": True, "cells": [[[5], None]]} for q in (0, 1)]
    proof = {"rule": "nested", "keys": [], "conditions": conditions, "families": families}
    assert prove(job_of(doc, data), Reader(proof, "proof"))[0] == (low, high)


def test_a_witness_that_counts_twice_or_speaks_of_nothing_is_rejected():
    doc, _, data = random_claim(np.random.default_rng(4))
    job = job_of(doc, data)
    model = Model(job)
    query = job.claim.domain.tokens[model.pin][0]
    domain = job.claim.domain.split(model.pin, {query})[0]
    key = next(iter(Cells(model, domain, query, [], []).classes.places))
    row = [[int(k) for k in key], False]

    def rejects(match, cells=(row,), reference=0, where=query, conditions=(), twice=False):
        family = {"query": where, "references": [reference] * len(model.heads), "by_token": True, "cells": [*cells]}
        families = [family, family] if twice else [family]
        proof = {"rule": "nested", "keys": [], "conditions": [*conditions], "families": families}
        with pytest.raises(Rejected, match=match):
            prove(job, Reader(proof, "proof"))

    rejects("listed twice", cells=[row, row])
    rejects("listed twice", twice=True)
    rejects("no cell", cells=[[[99], False]])
    rejects("not attended", reference=9)
    rejects("don't exist", where=9)
    rejects("has no conditions", conditions=[0])
    rejects("no rival", cells=[[row[0], {"rival": row[0][0], "alone": False}]])
    node: object = None
    for _ in range(66):
        node = {"position": 0, "tokens": [0, 1, 2], "inside": node, "outside": None}
    rejects("more than 64", cells=[[row[0], node]])


@pytest.mark.parametrize("seed", range(ROUNDS // 4))
def test_guards_that_look_back_are_counted_token_by_token(seed, monkeypatch):
    """With few states allowed, the number is that of listing."""
    rng = np.random.default_rng(seed)
    vocab, length = int(rng.integers(2, 4)), 4
    x, values = tokens("x", length=length, vocab=vocab), rng.permutation(vocab + 2)[:vocab].tolist()
    rows = compile_mechanism(And(Eq(count(x[-1], *x[:-1]), 1), Ne(x[-2], x[-1])), x)
    domain = random_box(rng, vocab, length)
    graph = Graph(length, tuple(values))
    guard = add_expression(graph, Reader(rows, "given"))
    expected = sum(oracle.evaluate(rows, t, values) for t in product(*(d.tolist() for d in domain)))
    monkeypatch.setattr(automaton, "STATE_LIMIT", int(rng.choice([0, 2, 6])))
    monkeypatch.setattr(counted, "listed", None)
    part = Domain(tuple(tuple(d.tolist()) for d in domain))
    try:
        assert counted.size(Meter(), graph, guard, part) == expected
    except TypeError:
        assert automaton.STATE_LIMIT < 6  # it would have been listed


@pytest.mark.parametrize("alone", [False, True])
def test_a_part_without_inputs_that_keep_the_guard_shows_nothing(alone):
    """The one token of position 0 is all that a part lets stand at position 1, and they are to differ: all of its inputs
    count as right, as those do that the claim isn't about."""
    weights = random_weights(np.random.default_rng(0), vocab=3, length=3, d=3, e=2, layers=2, heads=1)
    x, data = tokens("x", length=3, vocab=3), as_bytes(weights)
    domain = dict(tokens=[[2], [0, 1, 2], [0, 1]], vocab=3, length=3, position=2, values=[0, 1, 2])
    document = forge.document(data, {}, equals=compile_mechanism(Integer(0), x), **domain)
    document |= {"version": 5, "cost": None}
    document["claim"]["given"] = compile_mechanism(Ne(x[0], x[1]), x)
    node = {"position": 1, "tokens": [2], "inside": alone, "outside": None}
    families = [{"query": q, "references": [0], "by_token": True, "cells": [[[0], node]]} for q in (0, 1)]
    witness = {"rule": "nested", "keys": [], "conditions": [], "families": families}
    found, _ = prove(job_of(document, data), Reader(witness, "proof"))
    assert found == (2, 6)  # the two that break the guard, of six
