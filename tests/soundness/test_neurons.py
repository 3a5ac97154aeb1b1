"""Rule fold behind ReLU neurons: random small networks, margins at and beside the true ones, every input looked at.

Over the reals python-flint says which inputs are right; under float32, programs that add in every order do. Margins are
chosen where a bound that is a little too tight gives a false count: just above and just below the margin of an input.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import pytest
from flint import arb, ctx, fmpq

from mechverify.kernel import Rejected, Unsupported, check
from mechverify.kernel.core.claim import Job
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.domain import Domain
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.fold.rule import InputClass, Partition
from mechverify.kernel.proof import prove
from tests import oracle
from tests.models import as_bytes, as_float64, random_weights
from tests.rounds import ROUNDS
from tests.soundness import float32, forge
from tests.soundness.float32 import random_program

BLOCK = "blocks.0."
SITES = ["mlp.pre", "mlp.post", "mlp_out", "resid_mid", "resid_post"]
STYLES = ["plain", "plain", "small", "large", "integer", "uniform", "saturated", "dead", "uneven", "subnormal",
          "cancelling"]  # fmt: skip
REFUSED = ("empty", "too large to be reduced", "too fine", "finite", "overflow", "may hold zero", "too wide", "bits", "windows",
           "contradict")  # fmt: skip
PROGRAMS = 12


def network(rng: np.random.Generator, style: str, vocab: int, length: int, single: bool) -> dict[str, np.ndarray]:
    """Weights (`single`: float32 numbers), scaled or rounded as `style` says."""
    m = int(rng.integers(1, 7))
    scale = {"small": 1e-5, "large": 20.0}.get(style, 1.0)
    w = random_weights(rng, vocab=vocab, length=length, d=int(rng.integers(1, 4)), e=int(rng.integers(1, 3)), scale=scale,
                       biases=bool(rng.random() < 0.6), out=int(rng.integers(2, 5)), mlp=m)  # fmt: skip
    w_in, w_out = f"{BLOCK}mlp.W_in", f"{BLOCK}mlp.W_out"
    match style:
        case "integer" | "uniform":  # exact ties, and neurons that read exactly zero
            w = {name: np.round(1.5 * value) for name, value in w.items()}
        case "saturated":
            w[f"{BLOCK}attn.W_Q"] *= float(rng.choice([30.0, 500.0]))
        case "dead":
            w[f"{BLOCK}mlp.b_in"] = rng.choice([-1000.0, 1000.0, 0.0, -1.0], m)
            w[w_in][:, rng.random(m) < 0.3] = 0
        case "uneven":  # each neuron of a scale of its own; what it adds is not
            by = 2.0 ** rng.integers(*((-40, 40) if single else (-300, 300)), m)
            w = {name: value.astype(np.float64) for name, value in w.items()}
            w[w_in], w[w_out] = w[w_in] * by, w[w_out] / by[:, None]
            if f"{BLOCK}mlp.b_in" in w:
                w[f"{BLOCK}mlp.b_in"] *= by
        case "subnormal":
            tiny, name = 2.0 ** float(-140 if single else rng.choice([-1060, -140])), str(rng.choice([w_in, w_out]))
            w = {name: value.astype(np.float64) for name, value in w.items()}
            w[name][rng.random(w[name].shape) < 0.5] *= tiny
        case "cancelling":  # pairs of neurons: c relu(z) - c relu(z + small)
            w[w_in][:, m // 2 : 2 * (m // 2)] = w[w_in][:, : m // 2]
            w[w_out][m // 2 : 2 * (m // 2)] = -w[w_out][: m // 2]
    if style == "uniform":
        w[f"{BLOCK}attn.W_Q"] *= 0
        w |= {f"{BLOCK}attn.b_Q": 0 * w[f"{BLOCK}attn.b_Q"]} if f"{BLOCK}attn.b_Q" in w else {}
    return {name: value.astype(np.float32 if single else value.dtype) for name, value in w.items()}


@dataclass
class Case:
    """A network, a mechanism that is mostly what the network does, and a domain."""

    rng: np.random.Generator
    semantics: str
    faithful: bool = False  # the mechanism is what the network does, everywhere

    def __post_init__(self):
        rng = self.rng
        self.style = str(rng.choice(STYLES))
        self.vocab, self.length = int(rng.integers(1 + (rng.random() < 0.9), 5)), int(rng.integers(1, 5))
        while self.vocab**self.length > 81:
            self.length -= 1
        self.position = self.length - 1 if rng.random() < 0.7 else int(rng.integers(self.length))
        self.weights = network(rng, self.style, self.vocab, self.length, self.semantics == "float32")
        self.site = "logits" if rng.random() < 0.8 or self.semantics == "float32" else BLOCK + str(rng.choice(SITES))
        everything = list(range(self.vocab))
        self.tokens = [everything] * self.length
        if rng.random() < 0.4:
            self.tokens = [sorted(rng.choice(self.vocab, int(rng.integers(1, self.vocab + 1)), replace=False).tolist())
                           for _ in range(self.length)]  # fmt: skip
        self.inputs = Domain(tuple(map(tuple, self.tokens))).inputs(0, int(np.prod([len(t) for t in self.tokens])))
        # of each input: the first tokens, which are all that the output reads
        self.prefix = (self.inputs[:, : self.position + 1] * self.vocab ** np.arange(self.position + 1)).sum(1)
        self.rows, self.target = self._mechanism()
        self.data = as_bytes(self.weights)

    @property
    def relu(self) -> bool:
        """Whether the output goes through the neurons."""
        return self.site.removeprefix(BLOCK) not in ("mlp.pre", "resid_mid")

    @property
    def index(self) -> list:
        """Rows of an expression that tells apart all that the output can tell apart."""
        n = self.position + 1
        rows: list = [["value", [], i] for i in range(n)]
        for i in range(n):
            rows += [["integer", [], self.vocab**i], ["product", [i, len(rows)], None]]
        return [*rows, ["sum", list(range(n + 1, len(rows), 2)), None]]

    def _mechanism(self) -> tuple[list, np.ndarray]:
        rng, best = self.rng, np.array([int(np.argmax([float(x.mid()) for x in y])) for y in self.outputs])
        pick = 1.0 if self.faithful else rng.random()
        if pick < 0.1:
            rows = [["value", [], i] for i in range(self.length)]
            rows += [[str(rng.choice(["max", "min", "sum"])), list(range(self.length)), None]]
        elif pick < 0.2:
            rows = [["integer", [], int(rng.choice([*best, len(self.outputs[0])]))]]
        else:  # a table of what the network does, now and then another output
            rows = self.index
            at, flips = len(rows) - 1, not self.faithful and rng.random() < 0.4
            rows.append(["integer", [], 0])
            for prefix in np.unique(self.prefix).tolist():
                value = int(best[np.flatnonzero(self.prefix == prefix)[0]])
                if flips and rng.random() < 0.15:
                    value = int(rng.integers(-1, len(self.outputs[0]) + 1))
                n = len(rows)
                rows += [["integer", [], prefix], ["eq", [at, n], None], ["integer", [], value],
                         ["where", [n + 1, n + 2, n - 1], None]]  # fmt: skip
        return rows, np.array([oracle.evaluate(rows, ids, range(self.vocab)) for ids in self.inputs.tolist()])

    @cached_property
    def outputs(self) -> list[list[arb]]:
        return self._outputs()

    def _outputs(self) -> list[list[arb]]:
        """The output at every input, over the reals."""
        model, found = oracle.Transformer(as_float64(self.weights)), {}
        for prefix, ids in zip(self.prefix.tolist(), self.inputs.tolist(), strict=True):
            if prefix not in found:
                found[prefix] = model.sites(ids[: self.position + 1], self.position)[self.site]
        return [found[prefix] for prefix in self.prefix.tolist()]

    @cached_property
    def programs(self) -> list[np.ndarray]:
        """The output at every input, by float32 programs."""
        return [random_program(self.rng).logits(self.weights, self.inputs, self.position) for _ in range(PROGRAMS)]

    def real_margins(self) -> list[Fraction]:
        """Of the inputs whose target is an output: what it exceeds the others by, within 2^-150 of it."""
        found = []
        for y, m in zip(self.outputs, self.target.tolist(), strict=True):
            if 0 <= m < len(y) and len(y) > 1:
                mid = min((y[m] - x for t, x in enumerate(y) if t != m), key=lambda a: float(a.mid())).mid()
                mantissa, exponent = mid.man_exp()
                found.append(Fraction(int(mantissa)) * Fraction(2) ** int(exponent))
        return found

    def program_margins(self) -> list[Fraction]:
        found = []
        for y in self.programs:
            for row, m in zip(y.astype(np.float64), self.target.tolist(), strict=True):
                if 0 <= m < len(row) and np.isfinite(row).all():
                    found.append(min(Fraction(row[m]) - Fraction(x) for t, x in enumerate(row) if t != m))
        return found

    def margin(self) -> Fraction:
        """At, beside or between the margins that inputs have."""
        margins = [a for a in (self.real_margins() if self.semantics == "real" else self.program_margins()) if a > 0]
        if not margins or self.rng.random() < 0.2:
            return Fraction(0)
        near = [1, 1, 1 - Fraction(1, 2**45), 1 + Fraction(1, 2**45), 1 - Fraction(1, 2**20), 1 + Fraction(1, 2**20),
                Fraction(9, 10), Fraction(11, 10)]  # fmt: skip
        chosen = min(margins) if self.rng.random() < 0.5 else margins[int(self.rng.integers(len(margins)))]
        value = chosen * near[int(self.rng.integers(len(near)))]
        cut = 1 << (value.denominator.bit_length() // 2 + 300)
        value = value if value.denominator.bit_length() < 1200 else Fraction(round(value * cut), cut)
        return value if max(value.numerator, value.denominator) < 10**390 else Fraction(0)

    def truth(self, margin: Fraction, bits: int = 200) -> Counts:
        """The number of inputs that are right in every evaluation, and in some. Over the reals they differ by ties, and by
        what these bits don't tell: saturated attention leaves differences of e^-1000."""
        if self.semantics == "real":
            with ctx.workprec(bits):
                outputs, exact = self.outputs if bits == 200 else self._outputs(), arb(fmpq(*margin.as_integer_ratio()))
                known = [oracle.is_right(y, m, exact) for y, m in zip(outputs, self.target.tolist(), strict=True)]
            return Counts(known.count(True), known.count(True) + known.count(None))
        right = np.array([[self._exceeds(row, m, margin) for row, m in zip(y, self.target.tolist(), strict=True)]
                          for y in self.programs])  # fmt: skip
        return Counts(int(right.all(0).sum()), int(right.any(0).sum()))

    @staticmethod
    def _exceeds(row: np.ndarray, m: int, margin: Fraction) -> bool:
        """Comparison of float64 differences, which are exact here or far from the margin."""
        if not 0 <= m < len(row):
            return False
        return all(Fraction(float(row[m])) - Fraction(float(x)) > margin for t, x in enumerate(row) if t != m)

    def document(self, margin: Fraction, proof: dict, right=(0, None)) -> dict:
        return forge.document(self.data, proof, equals=self.rows, tokens=self.tokens, vocab=self.vocab, length=self.length,
                              position=self.position, semantics=self.semantics, architecture="transformer_relu",
                              site=self.site, margin=margin if margin else None, right=right)  # fmt: skip

    def proof(self, job: Job, depth: int = 1) -> dict:
        """Splits and folds with random keys, trials, groups, grids and rivals; of cells that exist."""
        return self._proof(job, job.claim.domain, depth)

    def _proof(self, job: Job, domain: Domain, depth: int) -> dict:
        rng = self.rng
        if depth and domain.size > 1 and rng.random() < 0.3:
            position = int(rng.choice([i for i, t in enumerate(domain.tokens) if len(t) > 1]))
            first = [t for t in domain.tokens[position] if rng.random() < 0.5] or [domain.tokens[position][0]]
            first = first if len(first) < len(domain.tokens[position]) else first[1:]
            halves = domain.split(position, set(first))
            inside, outside = (self._proof(job, half, depth - 1) for half in halves)
            return {"rule": "split", "position": position, "first": first, "inside": inside, "outside": outside}
        if rng.random() < 0.07:
            return {"rule": "enumerate"}
        keys = []
        if (pick := rng.random()) < 0.4:
            keys = [self.index]
        elif pick < 0.7:
            keys = [[["value", [], int(rng.integers(self.length))]]]
        elif pick < 0.8:
            keys = [[*([["value", [], i] for i in range(self.length)]), ["sum", list(range(self.length)), None]]]
        trials = int(rng.choice([1, 2, 3, 8, 16])) if self.relu else None
        partition = Partition(job, domain, [Reader(k, "key") for k in keys], trials)
        cells, listed = [], rng.random()
        for key in partition.places:
            for q in InputClass(partition, key).sizes:
                rivals = [t for t in range(job.claim.outputs) if t != key[0]]
                if rng.random() < listed or not rivals:
                    cells.append([q, list(key), None, None])
                elif rng.random() < 0.9:
                    rng.shuffle(rivals)
                    cut, step = int(rng.integers(0, len(rivals) + 1)), int(rng.integers(-28, 3))
                    groups = [[step, g] for g in (rivals[:cut], rivals[cut:]) if g]
                    certain = [step, [int(rng.choice(rivals))]] if rng.random() < 0.7 else None
                    cells.append([q, list(key), groups, certain])
        only = None if rng.random() < 0.8 else [list(key) for key in partition.places if rng.random() < 0.6]
        if only is not None:
            cells = [c for c in cells if c[1] in only]
        return forge.fold(cells, keys=keys, only=only, trials=trials)


def attempt(case: Case, margin: Fraction, exact: bool, seen: Counter, proof: dict | None = None) -> Counts | None:
    """What the kernel proves by a random proof (or this one), compared with the truth; None if it refuses."""
    claim = read_claim(Reader(case.document(margin, {})["claim"], "claim"), case.data)
    seen["tried"] += 1
    with np.errstate(all="ignore"):
        try:
            job = Job(claim, Float64())
            proof = case.proof(job) if proof is None else proof
            job = Job(claim, Exact() if exact else Float64())
            bounds, _ = prove(job, Reader(proof, "proof"))
        except Unsupported as error:
            raise AssertionError((case.style, case.site, str(error))) from error
        except Rejected as error:
            seen["refused"] += 1
            assert any(text in str(error) for text in REFUSED), (case.style, str(error))
            return None
    truth = case.truth(margin)
    if case.semantics == "real" and bounds.low > truth.low:
        truth = case.truth(margin, 20_000)
    sound = bounds.low <= truth.low and (truth.low if case.semantics == "real" else truth.high) <= bounds.high
    assert sound, (case, case.style, case.site, margin, proof, exact, bounds, truth)
    seen["accepted"] += 1
    seen["tight"] += bounds == truth
    seen["low"] += bounds.low == truth.low > 0
    return bounds


def attack(seeds: range, semantics: str, turns: int = 4, exact_every: int = 10) -> Counter:
    """Random cases, margins and proofs; every fourth or so in exact arithmetic. What happened, by number."""
    seen: Counter = Counter()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        case = Case(rng, semantics)
        for turn in range(turns):
            margin = case.margin()
            attempt(case, margin, (seed * turns + turn) % exact_every == 0, seen)
    return seen


def neuron_by_neuron(case: Case, exact: bool) -> int:
    """At every input, what each neuron reads is in its cell's reach, and the output's differences are between the two forms
    that have lines for neurons (up to the rounding of numpy's softmax). The number of inputs in cells of several."""
    case.site = f"{BLOCK}mlp.post"
    del case.outputs
    rng = case.rng
    pick = rng.random()
    keys = [[["value", [], int(rng.integers(case.length))]]] if pick < 0.4 else [case.index] if pick < 0.5 else []
    model, found = oracle.Transformer(as_float64(case.weights)), {}
    job = Job(
        read_claim(Reader(case.document(case.margin(), {})["claim"], "claim"), case.data),
        (Exact if exact else Float64)(),
    )
    roots = [Reader(k, "key") for k in keys]
    with np.errstate(all="ignore"):
        try:
            partition = Partition(job, job.claim.domain, roots, int(rng.choice([1, 2, 3, 8, 16])))
            reach, neurons = partition.reach, partition.form.neurons
        except Rejected as error:
            assert any(text in str(error) for text in REFUSED), error
            return 0
    unit = Fraction(2) ** neurons.coefficient.exponent * Fraction(neurons.coefficient.mid[0, 0, 0, 0])
    low, high = (
        np.vectorize(lambda a, e=b.exponent: Fraction(a) * Fraction(2) ** e * unit, otypes=[object])(b.mid)
        for b in reach
    )
    families, sizes = {}, Counter()
    for ids, target, y in zip(case.inputs.tolist(), case.target.tolist(), case.outputs, strict=True):
        key = (target, *(oracle.evaluate(k, ids, range(case.vocab)) for k in keys))
        index, query = partition.places[key], ids[case.position]
        sizes[index, query] += 1
        prefix = tuple(ids[: case.position + 1])
        if prefix not in found:
            found[prefix] = model.sites(prefix, case.position)[f"{BLOCK}mlp.pre"]
        for j, z in enumerate(found[prefix]):
            a, b = (arb(fmpq(*x[index, query, j].as_integer_ratio())) for x in (low, high))
            assert not z < a and not z > b, (
                case.style,
                ids,
                j,
                float(low[index, query, j]),
                z,
                float(high[index, query, j]),
            )
        if exact or not 0 <= target < len(y):
            continue
        with np.errstate(all="ignore"):
            input_class = families.setdefault(key, InputClass(partition, key))
            base_low, base_high, value_low, value_high, _ = input_class.weights
        scores = np.array([partition.form.score.mid[min(query, len(partition.form.score.mid) - 1), t, i]
                           for i, t in enumerate(prefix)])  # fmt: skip
        p = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        ends = []
        for base, value in ((base_low, value_low), (base_high, value_high)):
            rows = np.array([value[min(query, len(value) - 1), t, i] for i, t in enumerate(prefix)])
            ends.append((base[min(query, len(base) - 1)] + p @ rows, np.abs(base).max() + np.abs(value).max()))
        for t in range(len(y)):
            true, fuzz = float((y[target] - y[t]).mid()) - float(job.claim.margin), 1e-9 * (1 + np.abs(scores).max())
            below, above = (ends[0][0][t] - fuzz * ends[0][1], ends[1][0][t] + fuzz * ends[1][1])
            assert below <= true <= above, (case.style, ids, t, below, true, above)
    return sum(size for size in sizes.values() if size > 1)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_what_neurons_read_is_in_reach_at_every_input(semantics, exact):
    several = 0
    for seed in range(15 if exact else 45):
        several += neuron_by_neuron(Case(np.random.default_rng(seed), semantics), exact)
    assert several > (100 if exact else 400)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_margins_are_proved_up_to_the_true_one_and_not_beyond(semantics, exact):
    """The least margin of a network, up to a millionth (float32: a tenth) where every prefix is a cell of its own, and half
    of it where cells are few; never a margin that is a millionth larger."""
    near = Fraction(1, 10 if semantics == "float32" else 10**6)
    seen: Counter = Counter()
    for seed in range(5 if exact else 11):
        case = Case(np.random.default_rng(seed), semantics, faithful=True)
        margins = case.real_margins() if semantics == "real" else case.program_margins()
        if not margins or min(margins) <= 0:
            continue
        seen["cases"] += 1
        for what, part, keys in (("near", 1 - near, [case.index]), ("beyond", 1 + Fraction(1, 10**6), [case.index]),
                                 ("half", Fraction(1, 2), [])):  # fmt: skip
            margin = (min(margins) * part).limit_denominator(10**100)
            trials = 16 if case.relu else None
            bounds = attempt(case, margin, exact, Counter(), forge.fold(keys=keys, trials=trials))
            seen[what] += bounds is not None and bounds.low == len(case.inputs)
    assert seen["beyond"] == 0 and seen["near"] > 0.8 * seen["cases"] < 5 * seen["half"], seen
    assert seen["cases"] > (2 if exact else 7), seen


def test_a_certificate_of_the_random_kind_is_accepted_as_a_file():
    """From the bytes on, with what was proved; one right input more is refused, in both arithmetics."""
    for seed in range(12):
        case = Case(np.random.default_rng(seed), ("real", "float32")[seed % 2])
        margin, seen = case.margin(), Counter()
        claim = read_claim(Reader(case.document(margin, {})["claim"], "claim"), case.data)
        with np.errstate(all="ignore"):
            proof = case.proof(Job(claim, Float64()))
        exact = seed % 4 < 2
        if (bounds := attempt(case, margin, exact, seen, proof)) is None:
            continue
        theorem = check(forge.file(case.document(margin, proof, bounds), case.data), exact=exact)
        assert theorem.right == bounds and theorem.claim.margin == margin
        for stated in (bounds._replace(low=bounds.low + 1), bounds._replace(high=bounds.high - 1)):
            with pytest.raises(Rejected):
                check(forge.file(case.document(margin, proof, stated), case.data), exact=exact)


def test_the_sum_over_neurons_is_widened_for_every_order():
    """As written, 2^24 + 0.99 + 0.99 + ... - 2^24 loses every 0.99; over the reals there are 298 of them."""
    m = 300
    weights = {name: np.ones(shape, np.float32) for name, shape in {
        "embed.W_E": (2, 1), "pos_embed.W_pos": (1, 1), "unembed.W_U": (1, 2), f"{BLOCK}mlp.W_in": (1, m),
        f"{BLOCK}mlp.W_out": (m, 1), **{f"{BLOCK}attn.W_{c}": (1, 1, 1) for c in "QKVO"}}.items()}  # fmt: skip
    for name in ("pos_embed.W_pos", f"{BLOCK}attn.W_V"):
        weights[name][:] = 0
    weights["unembed.W_U"][0, 1] = 0
    weights[f"{BLOCK}mlp.W_out"][:, 0] = [2.0**24, *[0.99] * (m - 2), 3000 - 2.0**24]
    logits = float32.Program(np.random.default_rng(0), "as written").logits(weights, np.zeros((1, 1), int), 0)[0]
    margin = Fraction(float(logits[0] - logits[1]))
    assert margin < 3010
    data = as_bytes(weights)
    for semantics, claimed, provable in (("float32", margin, False), ("float32", 2000, True), ("real", 3290, True)):
        doc = forge.document(data, forge.fold(trials=4), equals=[["integer", [], 0]], vocab=2, length=1, position=0,
                             semantics=semantics, architecture="transformer_relu", margin=Fraction(claimed))  # fmt: skip
        with np.errstate(all="ignore"):
            bounds, _ = prove(
                Job(read_claim(Reader(doc["claim"], "claim"), data), Float64()), Reader(doc["proof"], "proof")
            )
        assert (bounds.low == 2) == provable


@pytest.mark.parametrize("margin", [Fraction(-1), Fraction(-1, 10**9)])
def test_a_negative_margin_is_refused(margin):
    case = Case(np.random.default_rng(1), "real")
    with pytest.raises(Rejected, match="margin"):
        read_claim(Reader(case.document(margin, {})["claim"], "claim"), case.data)


@pytest.mark.parametrize("semantics", ["real", "float32"])
@pytest.mark.parametrize("seed", range(ROUNDS // 3))
def test_accepted_bounds_hold_the_truth(seed, semantics):
    attack(range(seed, seed + 1), semantics)


if __name__ == "__main__":  # a longer campaign: python -m tests.soundness.test_neurons real 1000 2000
    total: Counter = Counter()
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        try:
            total += attack(range(number, number + 1), sys.argv[1])
            total["in cells of several"] += neuron_by_neuron(
                Case(np.random.default_rng(number), sys.argv[1]), number % 9 == 0
            )
        except Exception as problem:
            total["problems"] += 1
            print(number, type(problem).__name__, str(problem)[:1500], flush=True)
        if number % 100 == 99:
            print(number, dict(total), flush=True)
    print(dict(total))
    sys.exit(bool(total["problems"]))
