"""Rule `ratios` against brute force: every enclosure by itself, and the counts, whatever the witness says."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from mechverify.kernel import Rejected, check
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.counting.automaton import Layer
from mechverify.kernel.proof import prove
from mechverify.kernel.ratios.linear import Box, Expansion, Lead
from mechverify.kernel.ratios.rule import Partition
from tests import oracle
from tests.cases import MECHANISMS
from tests.models import as_bytes, as_float64, max_weights, random_weights
from tests.rounds import ROUNDS
from tests.soundness import forge
from tests.soundness.float32 import is_right, random_program


def several_heads(rng, *, vocab, length, heads, style):
    """Weights: noisy max-of-k models (a head each that is nearly right), or random ones."""
    if style != "max":
        scale = {"large": 4.0, "tiny": 1e-9}.get(style, 1.5)
        weights = random_weights(rng, vocab=vocab, length=length, d=4, heads=heads, scale=scale)
        return {k: np.round(v).astype(np.float32) for k, v in weights.items()} if style == "integer" else weights
    each = [max_weights(rng, vocab=vocab, length=length, noise=0.15, slope=2.0) for _ in range(heads)]
    weights = dict(each[0])
    for name in "QKVO":
        key = f"blocks.0.attn.W_{name}"
        weights[key] = np.concatenate([w[key] for w in each]) / (heads if name == "O" else 1)
    return {k: v.astype(np.float32) for k, v in weights.items()}


def random_claim(rng, style=None, semantics="real", margin=None):
    """A claim document about a model of one to four heads, its weights and their bytes."""
    from mechverify import tokens
    from mechverify.claims.mechanisms import compile_mechanism

    vocab, length, heads = int(rng.integers(2, 5)), int(rng.integers(2, 4)), int(rng.integers(1, 5))
    style = style or str(rng.choice(["max", "random", "large", "tiny", "integer"]))
    weights = several_heads(rng, vocab=vocab, length=length, heads=heads, style=style)
    x = tokens("x", length=length, vocab=vocab)
    name, expression, _ = MECHANISMS[int(rng.integers(len(MECHANISMS)))]
    rows = compile_mechanism(expression(x), x)
    domain = [sorted(rng.choice(vocab, int(rng.integers(1, vocab + 1)), replace=False).tolist()) for _ in range(length)]
    domain = [list(range(vocab))] * length if rng.random() < 0.5 else domain
    shape = dict(equals=rows, tokens=domain, vocab=vocab, length=length, position=int(rng.integers(length)))
    data = as_bytes(weights)
    doc = forge.document(data, {}, semantics=semantics, margin=margin, **shape)
    doc |= {"version": 5, "cost": None}
    return f"{style} {name} {heads} heads", doc, weights, data


def truth(claim, weights):
    """How many inputs are right, a tie being wrong, by python-flint's balls."""
    model, margin = oracle.Transformer(as_float64(weights)), Fraction(claim.get("margin", 0))
    margin = oracle.arb(margin.numerator) / margin.denominator
    targets = (
        (x, oracle.evaluate(claim["equals"], x, claim["domain"]["values"])) for x in product(*claim["domain"]["tokens"])
    )
    return sum(oracle.is_right(model.logits(x, claim["position"]), m, margin) is True for x, m in targets)


def programs(rng, claim, weights):
    """How many inputs some float32 programs get right."""
    inputs = np.array([*product(*claim["domain"]["tokens"])])
    target = np.array([oracle.evaluate(claim["equals"], x, claim["domain"]["values"]) for x in inputs.tolist()])
    runs = [random_program(rng).logits(weights, inputs, claim["position"]) for _ in range(4)]
    return [int(is_right(logits, target).sum()) for logits in runs]


def random_node(rng, cell, depth=2):
    """Any entry of the witness: points anywhere, groups that need not cover, cuts."""
    if not cell.size or rng.random() < 0.1:
        return None
    length = len(cell.layers)
    if depth and rng.random() < 0.3:
        positions = [i for i in range(length) if rng.random() < 0.7] or [0]
        tokens = [t for t in range(5) if rng.random() < 0.5]
        parts = [random_node(rng, c, depth - 1) for c in cell.parts(positions, tokens)]
        return {"cut": {"positions": positions, "tokens": tokens}, "parts": parts}
    points = rng.choice(cell.box.tokens, (int(rng.integers(1, 4)), length)).tolist()
    rivals = cell.rivals.tolist()
    groups, certain, step = None, None, int(rng.integers(-14, 0))
    if rng.random() < 0.7:
        rng.shuffle(rivals)
        cut = int(rng.integers(0, len(rivals) + 1))
        groups = [[int(rng.integers(len(points))), step, g] for g in (rivals[:cut], rivals[cut:]) if g]
        groups = groups[:1] if rng.random() < 0.2 else groups
        if rivals and rng.random() < 0.5:
            certain = [int(rng.integers(len(points))), step, [int(rng.choice(rivals))]]
    return {"points": points, "groups": groups, "certain": certain}


def random_proof(rng, job, domain):
    keys = [[["value", [], 0]]] if rng.random() < 0.2 else []
    partition = Partition(job, domain, [Reader(rows, "keys") for rows in keys])
    cells = []
    for input_class in partition.classes():
        if not input_class.impossible:
            cells += [[q, list(input_class.key), random_node(rng, input_class.cell(q))] for q in input_class.sizes]
    return {"rule": "ratios", "keys": keys, "cells": cells}


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_bounds_hold_the_truth(seed):
    rng = np.random.default_rng(seed)
    semantics = "float32" if seed % 4 == 3 else "real"
    margin = Fraction(int(rng.integers(8)), 4) if seed % 4 == 2 else None
    name, doc, weights, data = random_claim(rng, semantics=semantics, margin=margin)
    claim = read_claim(Reader(doc["claim"], "claim"), data)
    low = truth(doc["claim"], weights)
    counted = programs(rng, doc["claim"], weights) if semantics == "float32" else [low]
    for turn in range(4):
        job = Job(claim, Exact() if turn == 3 else Float64())
        with np.errstate(all="ignore"):
            try:
                proof = random_proof(rng, job, claim.domain)
                bounds, _ = prove(job, Reader(proof, "proof"))
            except Rejected as error:
                expected = "too large to be reduced", "too fine", "finite", "overflow", "known to be positive"
                assert any(text in str(error) for text in expected), (name, error)
                continue
        assert bounds.low <= min(counted) and max(counted) <= bounds.high, (name, proof, bounds, counted)
        doc["proof"] = proof
        doc["conclusion"]["right_at_least"], doc["conclusion"]["right_at_most"] = str(bounds.low), str(bounds.high)
        assert check(forge.file(doc, data), exact=turn == 3).right == bounds
        doc["conclusion"]["right_at_least"] = str(bounds.low + 1)
        with pytest.raises(Rejected, match="right inputs stated"):
            check(forge.file(doc, data), exact=turn == 3)


def cells(rng, style):
    """Cells of a random model, some of them parts of cut ones, with the domain's inputs that each holds."""
    _, doc, _, data = random_claim(rng, style=style)
    claim = read_claim(Reader(doc["claim"], "claim"), data)
    job = Job(claim, Float64())
    inputs = [*product(*claim.domain.tokens)]
    values = [oracle.evaluate(doc["claim"]["equals"], x, claim.domain.tokens and [*range(9)]) for x in inputs]
    for input_class in Partition(job, claim.domain, []).classes():
        if input_class.impossible:
            continue
        for query in input_class.sizes:
            cell = input_class.cell(query)
            here = [
                x for x, m in zip(inputs, values, strict=True) if m == input_class.key[0] and x[claim.position] == query
            ]
            assert len(here) == cell.size
            yield cell, here
            if rng.random() < 0.5:
                positions = [i for i in range(len(cell.layers)) if rng.random() < 0.7] or [0]
                tokens = [t for t in range(5) if rng.random() < 0.5]
                for count, part in enumerate(cell.parts(positions, tokens)):
                    some = [x for x in here if sum(x[i] in tokens for i in positions) == count]
                    assert part.size == len(some)
                    if some:
                        yield part, some


def exact_ratios(form, right, x):
    """Per head: weights e^(s - largest) [length] and values [length, out] of the right output's lead, in float64."""
    q, at = x[form.pin], np.arange(len(x))
    row, deep = (q if n > 1 else 0 for n in (form.score.mid.shape[1], form.value.mid.shape[1]))
    score = np.where(form.attends, form.score.mid[:, row, x, at], -np.inf)
    value = form.value.mid[:, deep, x, at]
    base = form.base.mid[q if len(form.base.mid) > 1 else 0]
    return score, value[..., right, None] - value, base[right] - base


@pytest.mark.parametrize("style", ["max", "random", "large"])
@pytest.mark.parametrize("seed", range(max(2, ROUNDS // 10)))
def test_every_enclosure_of_a_cell_holds_on_every_input(seed, style):
    """Its tables are those of the model, and so is what is bounded from them, below and above."""
    rng = np.random.default_rng(1000 * seed + len(style))
    with np.errstate(all="ignore"):
        for cell, inputs in cells(rng, style):
            if not len(cell.rivals) or not cell.box.usable:
                continue
            box, lead, form = cell.box, cell.lead(cell.rivals), cell.input_class.form
            for x in inputs:
                score, value, base = exact_ratios(form, cell.input_class.right, np.array(x))
                at = box.index[[*x]], np.arange(len(x))
                weight, exact = box.factor.mid[:, *at], np.exp(score - score.max(1, keepdims=True))
                np.testing.assert_allclose(
                    weight / weight.sum(1)[:, None], exact / exact.sum(1)[:, None], atol=1e-9, rtol=1e-9
                )
                np.testing.assert_allclose(lead.value.mid[:, *at], value[..., cell.rivals], atol=1e-9, rtol=1e-9)
                np.testing.assert_allclose(lead.base.mid, base[cell.rivals], atol=1e-9, rtol=1e-9)
            point = rng.choice(box.tokens, len(cell.layers)).tolist()
            for some in (lead, -lead):
                compare(box, some, point, inputs)


@pytest.mark.parametrize("seed", range(4 * ROUNDS))
def test_every_enclosure_of_a_box_holds_on_every_input(seed):
    """Any factors and values: heads that matter little, flat ones, masses that vary a thousandfold, and leads about zero,
    so that every bound is nearly reached."""
    rng = np.random.default_rng(seed)
    heads, tokens, length, rivals = (int(rng.integers(1, n)) for n in (4, 5, 5, 4))
    pin, ar = int(rng.integers(length)), Float64()
    factor = np.exp(rng.normal(size=(heads, tokens, length)) * rng.choice([0.1, 1, 3], (heads, 1, 1)))
    if length > 1 and rng.random() < 0.3:
        factor[0, :, (pin + 1) % length] = 0
    value = rng.normal(size=(heads, tokens, length, rivals)) * rng.choice([0, 0.1, 1], (heads, 1, 1, 1))
    layers = [Layer(1, [(np.array([0]) if i == pin else np.arange(tokens), np.array([0]))]) for i in range(length)]
    box = Box(ar, layers, np.arange(tokens), ar.exact(factor), pin)
    inputs = [*product(*([0] if i == pin else range(tokens) for i in range(length)))]
    ratios = [(factor[:, x, range(length), None] * value[:, x, range(length)]).sum(1) for x in inputs]
    masses = [factor[:, x, range(length)].sum(1)[:, None] for x in inputs]
    sums = np.array([(r / z).sum(0) for r, z in zip(ratios, masses, strict=True)])
    base = -np.quantile(sums, rng.choice([0.0, 0.1, 0.5, 0.9]), axis=0) + rng.choice([0, 0.01])
    point = rng.choice(tokens, length).tolist()
    compare(box, Lead(ar.exact(base), ar.exact(value)), point, inputs)


def compare(box, lead, point, inputs):
    """The masses, the ranges of R and of R / Z, the condition on wrong inputs, the linear form and its least value: each
    by itself, on every input."""
    around, everyone = Expansion(box, lead, point), np.arange(lead.value.mid.shape[-1])
    linear = around.linear(everyone)
    low, high, few, many = (b.mid for b in (around.low, around.high, around.few, around.many))
    most = around._where_not_positive(everyone).mid
    slack = 1e-9 * (1 + np.abs(lead.value.mid).max() + np.abs(lead.base.mid).max())
    for x in inputs:
        at = box.index[[*x]], np.arange(len(x))
        weight = box.factor.mid[:, *at]
        mass = weight.sum(1)[:, None]
        now = lead.base.mid + ((weight / mass)[..., None] * lead.value.mid[:, *at]).sum((0, 1))
        assert (box.light.mid <= mass * (1 + 1e-12)).all() and (mass <= box.heavy.mid * (1 + 1e-12)).all()
        assert (few <= (1 + 1e-12) / mass).all() and (1 / mass <= many * (1 + 1e-12)).all()
        rest = around.rest.mid[:, *at].sum(1)
        scaled = slack * mass
        assert (low - scaled <= rest).all() and (rest <= high + scaled).all()
        assert (around.ratio.mid - slack <= rest / mass).all()
        np.testing.assert_allclose(around.base.mid + (rest / mass).sum(0), now, rtol=0, atol=slack)
        assert (now[around.decided] > -slack).all()
        wrong = now <= 0
        assert (rest <= most + scaled)[:, wrong].all()
        sums = (linear.terms.mid - linear.terms.rad)[*at].sum(0)
        anywhere = around.base.mid + np.minimum(rest * few, rest * many).sum(0)  # for any 1 / Z of the box
        assert (sums <= anywhere + slack)[wrong].all() and (sums <= now + slack)[wrong].all()
        assert (linear.least - slack <= sums).all()
        assert (now[linear.least > slack] > 0).all()


def test_files_of_earlier_versions_have_no_such_rule():
    _, doc, _, data = random_claim(np.random.default_rng(0))
    doc |= {"proof": {"rule": "ratios", "keys": [], "cells": []}, "version": 2}
    del doc["cost"]
    with pytest.raises(Rejected, match="ratios"):
        check(forge.file(doc, data))


def test_rivals_that_win_on_different_inputs_are_counted_each():
    """Two heads that attend evenly, so that every form is exact: outputs 1 and 2 win on one input each."""
    weights = {f"blocks.0.attn.W_{c}": np.zeros((2, 4, 3)) for c in "QK"}
    weights |= {"embed.W_E": np.eye(4, 3) @ np.eye(3, 4), "pos_embed.W_pos": np.zeros((2, 4))}
    weights |= {"blocks.0.attn.W_V": np.stack([np.eye(4, 3)] * 2), "blocks.0.attn.W_O": np.stack([np.eye(3, 4)] * 2)}
    weights |= {"unembed.W_U": np.eye(4), "unembed.b_U": np.array([0.5, 0, 0, 0])}
    data = as_bytes({k: v.astype(np.float32) for k, v in weights.items()})
    groups = [[0, -10, [t]] for t in (1, 2, 3)]
    part = {"points": [[0, 3]], "groups": groups, "certain": [0, -10, [2]]}
    proof = {"rule": "ratios", "keys": [], "cells": [[3, [0], part]]}
    shape = dict(equals=[["integer", [], 0]], tokens=[[0, 1, 2], [3]], vocab=4, length=2, position=1)
    doc = forge.document(data, proof, right=(1, 2), **shape) | {"version": 5, "cost": None}
    assert check(forge.file(doc, data)).right == (1, 2)
    more = doc | {"conclusion": doc["conclusion"] | {"right_at_least": "2"}}
    with pytest.raises(Rejected, match="proved: 1 to 2"):
        check(forge.file(more, data))
    for missing in range(2):
        part["groups"] = groups[:missing] + groups[missing + 1 :]
        with pytest.raises(Rejected, match="proved: 0"):
            check(forge.file(doc, data))
