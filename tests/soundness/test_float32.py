"""Theorems under `float32` against float32 programs that add in every order, and the roundings that fool others.

The models here put one rounding each in the light: the sums of a matrix product, of scores, of the softmax, of the
attended values, the axiom's error of exp. What the kernel says must hold for every program, and a program must come
near the ends of what it says, or the test would prove nothing.
"""

from fractions import Fraction

import numpy as np
import pytest

from mechverify.kernel import Rejected, check
from mechverify.kernel.core.arithmetic import Arithmetic
from mechverify.kernel.core.attention import softmax
from mechverify.kernel.core.claim import Claim, Job
from mechverify.kernel.core.evaluate import Evaluation
from mechverify.kernel.core.exact import Exact
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.float32 import Float32
from mechverify.kernel.core.float64 import Float64
from mechverify.kernel.core.judging import decide
from mechverify.kernel.core.kinds import read_claim
from mechverify.kernel.proof import prove
from tests import oracle
from tests.models import as_bytes, max_weights, random_weights
from tests.soundness import float32, forge
from tests.soundness.float32 import Program, random_program
from tests.soundness.test_differential import kept_cells, random_proof

ZERO = [["integer", [], 0]]
PROGRAMS = 10


def shape_of(weights: dict, vocab: int, length: int, **more) -> dict:
    return dict(tokens=[list(range(vocab))] * length, vocab=vocab, length=length, position=length - 1) | more


def claim_of(weights: dict, semantics: str, **shape) -> tuple[dict, Claim]:
    data = as_bytes(weights)
    doc = forge.document(data, {"rule": "enumerate"}, semantics=semantics, **shape)
    return doc, read_claim(Reader(doc["claim"], "claim"), data)


def enclosure(claim: Claim, arithmetic: Arithmetic, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the logits, [inputs, out], as fractions (exact) or float64."""
    job = Job(claim, arithmetic)
    with np.errstate(all="ignore"):
        ball = Evaluation(claim.graph, claim.weights, job.semantics, inputs)[claim.output]
        low, high = job.ar.lower(ball), job.ar.upper(ball)
    unit = Fraction(2) ** ball.exponent if low.dtype == object else 1.0
    return tuple(np.broadcast_to(a * unit, (len(inputs), claim.outputs)) for a in (low, high))


def proved(doc: dict, claim: Claim, exact: bool = False) -> tuple[int, int]:
    with np.errstate(all="ignore"):
        return prove(Job(claim, (Exact if exact else Float64)()), Reader(doc["proof"], "proof"))[0]


def targets(doc: dict, inputs: np.ndarray) -> np.ndarray:
    values = doc["claim"]["domain"]["values"]
    return np.array([oracle.evaluate(doc["claim"]["equals"], ids, values) for ids in inputs.tolist()])


# --- what the kernel says holds for every program ---------------------------------------------------------------------


def wild(rng: np.random.Generator) -> tuple[dict, int, int]:
    """Weights of many scales, with layers, heads and biases; some cancel, some are subnormal, some nearly overflow."""
    vocab, length = int(rng.integers(2, 5)), int(rng.integers(1, 5))
    if rng.random() < 0.25:
        return max_weights(rng, vocab=vocab, length=length, noise=float(rng.choice([0.05, 0.6]))), vocab, length
    scale = float(rng.choice([2.0**-70, 2.0**-30, 1e-3, 0.3, 1.0, 3.0, 10.0]))
    many = scale < 100 and rng.random() < 0.4
    weights = random_weights(
        rng, vocab=vocab, length=length, d=int(rng.integers(1, 7)), e=int(rng.integers(1, 4)), scale=scale,
        heads=int(rng.integers(1, 3)), layers=2 if many else 1, biases=bool(rng.random() < 0.5),
    )  # fmt: skip
    if rng.random() < 0.3:  # one tensor of another scale: 2^-140 is subnormal
        name = str(rng.choice(sorted(weights)))
        weights[name] = (weights[name] * np.float32(2.0 ** int(rng.choice([-140, -60, 12])))).astype(np.float32)
    return weights, vocab, length


@pytest.mark.parametrize("seed", range(60))
def test_no_program_contradicts_the_kernel(seed):
    """Logits in the enclosure, input by input; counts of right inputs between the bounds of every proof."""
    rng = np.random.default_rng(seed)
    refused = "overflow", "too large", "too wide", "hold zero"  # some of the wildest
    while True:
        weights, vocab, length = wild(rng)
        position = int(rng.integers(length))
        rows = [["value", [], i] for i in range(length)]
        rows.append([str(rng.choice(["max", "min"])), list(range(length)), None])
        doc, claim = claim_of(weights, "float32", equals=rows, **shape_of(weights, vocab, length, position=position))
        inputs = claim.domain.inputs(0, claim.domain.size)
        try:
            low, high = enclosure(claim, Float64(), inputs)
            break
        except Rejected as error:
            assert any(text in str(error) for text in refused), error
    right, wrong = decide(Job(claim, Float64()), inputs)
    bounds = [proved(doc, claim)]
    for _ in range(3):
        doc["proof"] = random_proof(rng, doc)
        try:
            with np.errstate(all="ignore"):
                kept_cells(doc["proof"], Job(claim, Float64()), claim.domain)
            bounds.append(proved(doc, claim, exact=len(bounds) == 3))
        except Rejected as error:
            unfit = "one attention head", "reads", "empty", "too fine", "mixes", "linear", "go through attention"
            assert any(text in str(error) for text in (*unfit, *refused)), error
    target = targets(doc, inputs)
    for _ in range(PROGRAMS):
        program = random_program(rng)
        logits = program.logits(weights, inputs, position)
        assert ((low <= logits) & (logits <= high)).all(), program
        found = float32.is_right(logits, target)
        assert not (found & wrong).any() and not (~found & right).any(), program
        assert all(b.low <= found.sum() <= b.high for b in bounds), (program, bounds)


def test_the_exact_arithmetic_says_the_same_of_float32():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        weights = random_weights(rng, vocab=2, length=2, scale=float(rng.choice([1e-3, 1.0, 5.0])))
        _, claim = claim_of(weights, "float32", equals=ZERO, **shape_of(weights, 2, 2))
        inputs = claim.domain.inputs(0, 4)
        low, high = enclosure(claim, Exact(), inputs)
        for _ in range(8):
            logits = random_program(rng).logits(weights, inputs, 1).astype(np.float64)
            fractions = np.vectorize(Fraction, otypes=[object])(logits)
            assert ((low <= fractions) & (fractions <= high)).all()
        rough, _ = enclosure(claim, Float64(), inputs)
        width = np.array((high - low).astype(float))
        assert (np.abs(rough - low.astype(float)) <= 1e-3 * width).all()


def head(d: int, length: int, vocab: int = 2, out: int = 2, e: int = 1) -> dict[str, np.ndarray]:
    """A one-head model of zeros."""
    shapes = {"embed.W_E": (vocab, d), "pos_embed.W_pos": (length, d), "unembed.W_U": (d, out), "unembed.b_U": (out,)}
    shapes |= {f"blocks.0.attn.W_{c}": (1, d, e) for c in "QKV"} | {"blocks.0.attn.W_O": (1, e, d)}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def long_unembedding() -> tuple[dict, int]:
    """1 + 2^-24 + 2^-24 + ...: one order of the sum loses every small term, another none."""
    w = head(200, 1)
    w["embed.W_E"][:] = 1
    w["unembed.W_U"][:, 0] = 2.0**-24
    w["unembed.W_U"][0, 0] = 1
    return w, 1


def long_scores() -> tuple[dict, int]:
    """The same in one of two scores q . k near 2^9."""
    w = head(2, 2, e=256)
    w["pos_embed.W_pos"][:] = np.eye(2)
    w["blocks.0.attn.W_Q"][0, 1] = 1
    key = w["blocks.0.attn.W_K"][0]
    key[0], key[:, 0] = 2.0**-11, 2.0**13
    w["blocks.0.attn.W_V"][0, :, 0] = -1, 1
    return written(w), 2


def long_mean() -> tuple[dict, int]:
    """The same in the sum of attended values, with weights 2^-7."""
    w = head(1, 128)
    w["pos_embed.W_pos"][:] = 2.0**-17
    w["pos_embed.W_pos"][0] = 2.0**7
    w["blocks.0.attn.W_V"][:] = 1
    return written(w), 128


def long_softmax() -> tuple[dict, int]:
    """The same in the sum of the softmax: 127 factors of 2^-24 beside a 1, whose position alone has a value."""
    w = head(2, 128)
    w["pos_embed.W_pos"][:, 0] = 1
    w["pos_embed.W_pos"][0] = 0, 1
    w["blocks.0.attn.W_Q"][0, 0] = 1
    w["blocks.0.attn.W_K"][0, 0] = -np.log(2) * 24.001
    w["blocks.0.attn.W_V"][0, 1] = 1
    return written(w), 128


def two_values() -> tuple[dict, int]:
    """(p_0 - p_1) 2^10 with p near 1/2: the error of exp that the axiom allows."""
    w = head(2, 2)
    w["pos_embed.W_pos"][:] = np.eye(2)
    w["blocks.0.attn.W_V"][0, :, 0] = 2.0**10, -(2.0**10)
    return written(w), 2


def large_scores() -> tuple[dict, int]:
    """Scores near 2^11 that differ by 1: the quotient by sqrt(d_head) decides the difference."""
    w = head(2, 2, e=3)
    w["pos_embed.W_pos"][:] = np.eye(2)
    w["blocks.0.attn.W_Q"][0, 1, 0] = 1
    w["blocks.0.attn.W_K"][0, :, 0] = 4095.7, 4096.9
    w["blocks.0.attn.W_V"][0, :, 0] = 1, -1
    return written(w), 2


def small_numbers() -> tuple[dict, int]:
    """Products below 2^-126, flushed or not, enlarged again by the unembedding."""
    w = head(64, 1, e=64)
    w["embed.W_E"][:] = 1.99 * 2.0**-70
    w["blocks.0.attn.W_V"][0] = 2.0**-57
    w = written(w)
    w["blocks.0.attn.W_O"][0, :, -1] = 1
    w["unembed.W_U"][-1, 0] = 2.0**100
    return w, 1


def written(w: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Attention writes its first value to an axis of its own, which is logit 0."""
    new = {k: np.pad(v, _padding(k)) for k, v in w.items()}
    new["blocks.0.attn.W_O"][0, 0, -1] = 1
    new["unembed.W_U"][-1, 0] = 1
    return new


def _padding(name: str) -> list[tuple[int, int]]:
    """One more axis of the residual stream."""
    axis = {"embed.W_E": (0, 1), "pos_embed.W_pos": (0, 1), "unembed.W_U": (1, 0), "blocks.0.attn.W_O": (0, 0, 1)}
    return [(0, n) for n in axis.get(name, (0, 1, 0) if ".W_" in name else (0,))]


def added_vectors() -> tuple[dict, int]:
    """Embedding, attention's bias and the unembedding's: each addition rounds (2^24 + 1 is no float32)."""
    w = head(1, 1)
    w["embed.W_E"][:] = 1
    w["pos_embed.W_pos"][:] = 2.0**24
    w["blocks.0.attn.b_O"] = np.array([1], np.float32)
    w["unembed.W_U"][0, 0] = 1
    w["unembed.b_U"][0] = 1
    return w, 1


SITES = {  # the share of the radius that some program's deviation should reach
    long_unembedding: 0.7, long_scores: 0.2, long_mean: 0.2, long_softmax: 0.2, two_values: 0.12, large_scores: 0.01,
    small_numbers: 0.2, added_vectors: 0.5,
}  # fmt: skip


@pytest.mark.parametrize("site", SITES, ids=lambda f: f.__name__)
def test_each_rounding_is_covered_and_not_by_far(site):
    """Programs stay in the enclosure and come near its ends; the enclosure of the real function is left behind."""
    rng = np.random.default_rng(5)
    weights, length = site()
    shape = shape_of(weights, 2, length, equals=ZERO)
    low, high, real_low, real_high = (
        bound[0, 0] for semantics in ("float32", "real")
        for bound in enclosure(claim_of(weights, semantics, **shape)[1], Float64(), np.zeros((1, length), int))
    )  # fmt: skip
    reached, outside = 0.0, False
    for _ in range(100):
        program = random_program(rng)
        got = float(program.logits(weights, np.zeros((1, length), int), length - 1)[0, 0])
        assert low <= got <= high, program
        reached = max(reached, abs(2 * got - low - high) / (high - low))
        outside |= not real_low <= got <= real_high
    assert outside, "float32 and real semantics can't be told apart here"
    assert reached >= SITES[site], reached


@pytest.mark.parametrize("site", SITES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("rule", ["enumerate", "listed", "fold"])
def test_no_threshold_that_a_program_misses_is_certified(site, rule):
    """Output 1 is a constant, set to the smallest value of output 0 that a program found: a tie there, so "always
    right" is false under float32, though true over the reals; and the other way round with the largest value."""
    rng = np.random.default_rng(6)
    weights, length = site()
    tokens = np.zeros((1, length), int)
    found = [random_program(rng).logits(weights, tokens, length - 1)[0, 0] for _ in range(40)]
    proof = {"enumerate": {"rule": "enumerate"}, "listed": forge.fold([[0, [0], None, None]]), "fold": forge.fold()}[
        rule
    ]
    one = dict(equals=ZERO, tokens=[[0]] * length, vocab=1, length=length, position=length - 1)

    def accepted(threshold: np.float32, right: tuple[int, int], semantics: str) -> bool:
        data = as_bytes({**weights, "unembed.b_U": np.array([0, threshold], np.float32)})
        try:
            check(forge.file(forge.document(data, proof, right=right, semantics=semantics, **one), data))
        except Rejected:
            return False
        return True

    least, most = min(found), max(found)
    below = np.nextafter(most, np.float32(-np.inf))
    assert not accepted(least, (1, 1), "float32") and not accepted(below, (0, 0), "float32")
    if rule != "fold" and least < most:
        assert accepted(least, (1, 1), "real") or accepted(below, (0, 0), "real")
    far = np.float32(2 * abs(most) + 1)
    assert accepted(-far, (1, 1), "float32")
    assert rule == "fold" or accepted(far, (0, 0), "float32")


SCORES = {
    "equal": (0, 0), "near": (0.01, 0), "apart": (3, -4), "three": (-1, 0.5, 1),
    "a difference halfway between two float32 numbers": (30 + 2.0**-19, -30),
    "a sum that loses its small terms": (0, *[-16.64] * 199),
}  # fmt: skip


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_a_softmax_by_itself(scores):
    """Of exact scores: what remains is the error of exp, of the sum and of the quotient."""
    exact = np.array(scores, np.float32)
    model = Float32(Float64())
    ball = softmax(model, model.ar.exact(exact.astype(float)), np.ones(len(scores), bool))
    low, high = model.ar.lower(ball), model.ar.upper(ball)
    rng, reached = np.random.default_rng(7), 0.0
    for _ in range(300):
        pattern = random_program(rng).softmax(exact).astype(float)
        assert ((low <= pattern) & (pattern <= high)).all()
        reached = max(reached, (np.abs(pattern - ball.mid) / (high - low)).max() * 2)
    assert reached >= 0.1


@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_contraction_by_itself(n):
    """Of exact numbers of all sizes; some sums cancel to nothing."""
    model, rng = Float32(Float64()), np.random.default_rng(n)
    for _ in range(40):
        x, matrix = (rng.normal(size=shape).astype(np.float32) for shape in ((30, 2 * n), (2 * n, 3)))
        x = (x * np.float32(2.0) ** rng.integers(-75, 2, (30, 1))).astype(np.float32)
        matrix = (matrix * np.float32(2.0) ** rng.integers(-75, 20, (1, 3))).astype(np.float32)
        x[:10, n:], matrix[n:] = x[:10, :n], -matrix[:n]
        ball = model.contract("nd,dv->nv", *(model.ar.exact(a.astype(float)) for a in (x, matrix)))
        low, high = model.ar.lower(ball), model.ar.upper(ball)
        for _ in range(8):
            got = random_program(rng).product(x, matrix)
            assert ((low <= got) & (got <= high)).all()


@pytest.mark.parametrize("e", [2, 3, 7, 32, 50])
def test_a_quotient_by_the_root_by_itself(e):
    model, rng = Float32(Float64()), np.random.default_rng(e)
    x = (rng.normal(size=4_000) * 2.0 ** rng.integers(-140, 60, 4_000)).astype(np.float32)
    ball = model.div(model.ar.exact(x.astype(float)), model.sqrt(model.ar.rational(Fraction(e))))
    low, high = model.ar.lower(ball), model.ar.upper(ball)
    for flags in np.ndindex(2, 2):
        program = Program(rng, reciprocal=bool(flags[0]), flush=bool(flags[1]))
        near = np.float32(e**0.5)
        for root in (near, np.nextafter(near, np.float32(0 if near > e**0.5 else e))):  # those on either side
            got = program.quotient(x, root)
            assert ((low <= got) & (got <= high)).all()


def test_what_overflows_on_its_way_is_refused():
    """2^130 > 2^129 over the reals; both are infinite in float32, a tie: of such inputs nothing is said."""
    weights = head(1, 1)
    weights["embed.W_E"][:] = 2.0**100
    weights["unembed.W_U"][0] = 2.0**30, 2.0**29
    data, shape = as_bytes(weights), shape_of(weights, 2, 1, equals=ZERO)
    for proof in ({"rule": "enumerate"}, forge.fold()):
        check(forge.file(forge.document(data, proof, right=(2, 2), **shape), data))
        refused = "overflow" if proof["rule"] == "fold" else "right inputs stated"
        for right in ((2, 2), (1, 2), (0, 1)):
            with pytest.raises(Rejected, match=refused):
                check(forge.file(forge.document(data, proof, right=right, semantics="float32", **shape), data))


# --- false theorems ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("rule", ["enumerate", "fold"])
def test_real_bounds_are_refused_under_float32(seed, rule):
    """Outputs 0 and 1 agree but for 10^-9 in the bias: always right over the reals, a tie in float32."""
    rng = np.random.default_rng(seed)
    vocab, length, layered = 3, 3, seed % 3 == 2 and rule == "enumerate"
    size_of = dict(layers=2, scale=0.5) if layered else {}
    weights = random_weights(rng, vocab=vocab, length=length, **size_of)
    weights["unembed.W_U"][:, 1] = weights["unembed.W_U"][:, 0]
    weights["unembed.b_U"][:] = [1e-9, 0, -200]
    proof = {"rule": "enumerate"} if rule == "enumerate" else forge.fold()
    shape = shape_of(weights, vocab, length, equals=ZERO)
    data, size = as_bytes(weights), vocab**length

    def stated(semantics: str, right: tuple[int, int]) -> bytes:
        return forge.file(forge.document(data, proof, right=right, semantics=semantics, **shape), data)

    assert check(stated("real", (size, size))).right == (size, size)
    inputs = np.stack(np.unravel_index(np.arange(size), (vocab,) * length), -1)
    logits = random_program(rng).logits(weights, inputs, length - 1)
    truly = int(float32.is_right(logits, np.zeros(size, int)).sum())
    assert truly < size // 2
    for exact in (False, True):
        for low in (size, truly + 1):
            with pytest.raises(Rejected, match="right inputs stated"):
                check(stated("float32", (low, size)), exact=exact)
        assert check(stated("float32", (0, size)), exact=exact).right == (0, size)
    doc = forge.document(data, proof, right=(size, size), semantics="float32", **shape)
    doc["axioms"] = ["ieee754"]  # and neither does leaving out the axiom help
    with pytest.raises(Rejected, match="axioms"):
        check(forge.file(doc, data))


def test_a_refutation_over_the_reals_is_none_under_float32():
    """Output 1 is larger by 10^-9 everywhere: wrong over the reals; in float32 a tie, or anything else, per program."""
    weights = random_weights(np.random.default_rng(0), vocab=2, length=2)
    weights["unembed.W_U"][:, 1] = weights["unembed.W_U"][:, 0]
    weights["unembed.b_U"][:] = [0, 1e-9]
    proof = {"rule": "counterexample", "inputs": [[0, 0], [0, 1], [1, 0], [1, 1]]}
    data = as_bytes(weights)
    for semantics, fine in (("real", True), ("float32", False)):
        doc = forge.document(data, proof, right=(0, 0), semantics=semantics, equals=ZERO, at_least="1/2",
                             verdict="REFUTED", **shape_of(weights, 2, 2))  # fmt: skip
        if fine:
            assert check(forge.file(doc, data)).verdict == "REFUTED"
        else:
            with pytest.raises(Rejected, match="not shown to be wrong"):
                check(forge.file(doc, data))


# --- numbers that fool other tools ------------------------------------------------------------------------------------


def absorbed(c: float, values: list[float], dtype: type = np.float32, through: str = "b_O") -> dict[str, np.ndarray]:
    """Logits (x_t + c - c, 1/2) for token t: c is added by W_pos and taken off by attention's bias, or by the
    unembedding."""
    w = {name: value.astype(dtype) for name, value in head(2, 2, vocab=len(values)).items()}
    w["embed.W_E"][:, 0] = values
    w["embed.W_E"][:, 1] = 1
    w["pos_embed.W_pos"][:, 0] = c
    w["unembed.W_U"][0, 0] = 1
    w["unembed.b_U"][1] = 0.5
    if through == "b_O":
        w["blocks.0.attn.b_O"] = np.array([-c, 0], dtype)
    elif through == "W_U":
        w["unembed.W_U"][1, 0] = -c
    else:  # both positions attend to the vector (0, 1) and move it by -c
        w["blocks.0.attn.W_V"][0, :, 0] = 0, -c
        w["blocks.0.attn.W_O"][0, 0] = 1, 0
    return w


LARGE = [["value", [], 1], ["integer", [], 2], ["lt", [0, 1], None]]  # 0 if the last token is 2 or more, else 1
X = [0.0, 0.25, 0.75, 1.0, 640.0]  # right: 1, 1, 0, 0, 0


@pytest.mark.parametrize("through", ["b_O", "W_U", "attention"])
@pytest.mark.parametrize("proof", [{"rule": "enumerate"}, forge.fold()], ids=["enumerate", "fold"])
def test_x_plus_c_minus_c(through, proof):
    weights = absorbed(2.0**25, X, through=through)
    data, n = as_bytes(weights), len(X)
    shape = shape_of(weights, n, 2, equals=LARGE)

    def theorem(semantics: str, right: tuple[int, int], exact: bool = False):
        return check(forge.file(forge.document(data, proof, semantics=semantics, right=right, **shape), data),
                     exact=exact)  # fmt: skip

    for exact in (False, True):
        assert theorem("real", (n * n, n * n), exact).right == (n * n, n * n)
        with pytest.raises(Rejected, match="right inputs stated"):
            theorem("float32", (n * n, n * n), exact)
        with pytest.raises(Rejected, match="right inputs stated"):
            theorem("float32", (n + 1, n * n), exact)
        # 640 is far enough from 1/2, but not where integer weights make exact arithmetic's unit coarse
        sure = 0 if exact and through == "W_U" and proof["rule"] == "fold" else n
        assert theorem("float32", (sure, n * n), exact).right == (sure, n * n)
    inputs = np.stack(np.unravel_index(np.arange(n * n), (n, n)), -1)
    logits = Program(np.random.default_rng(0), "as written").logits(weights, inputs, 1)
    target = np.where(inputs[:, 1] >= 2, 0, 1)
    assert float32.is_right(logits, target)[inputs[:, 1] == 4].all()
    assert not float32.is_right(logits, target)[np.isin(inputs[:, 1], (2, 3))].any()


@pytest.mark.parametrize("through", ["b_O", "W_U", "attention"])
def test_x_plus_c_minus_c_in_float64(through):
    """c = 2^54 eats x in float64: the kernel asks for twice its digits, and exact arithmetic says the same. Such weights
    are float32 numbers, but the next ones aren't: float32 doesn't speak of them."""
    weights = absorbed(2.0**54, X[:4], np.float64, through)
    data, shape = as_bytes(weights), shape_of(weights, 4, 2, equals=LARGE)

    def file(right, semantics="real", data=data):
        return forge.file(forge.document(data, {"rule": "enumerate"}, right=right, semantics=semantics, **shape), data)

    inputs = np.stack(np.unravel_index(np.arange(16), (4, 4)), -1)
    plainly = float32.is_right(float32.plain(weights, inputs, 1), np.where(inputs[:, 1] >= 2, 0, 1))
    assert plainly.sum() == 8  # float64 says 0 > 1/2 is false for x = 0.75 and 1
    assert check(file((0, 16))).right == (0, 16)
    assert check(file((16, 16))).right == (16, 16)
    for right in ((8, 8), (0, 8), (0, 15)):
        with pytest.raises(Rejected, match="right inputs stated"):
            check(file(right))
    # attention's 1/2 + 1/2 is known to 128 bits, which is plenty for 2^54
    assert check(file((16, 16)), exact=True).right == (16, 16)
    with pytest.raises(Rejected, match="right inputs stated"):
        check(file((0, 15)), exact=True)
    tenth = absorbed(2.0**54, [0.1, 0.2, 0.7, 0.9], np.float64, through)
    with pytest.raises(Rejected, match="float32 weights"):
        check(file((0, 16), "float32", as_bytes(tenth)))


ULPS = [(-1, False), (0, False), (1, True)]


@pytest.mark.parametrize(("ulps", "right"), ULPS)
@pytest.mark.parametrize("rule", ["enumerate", "fold", "listed"])
def test_a_margin_of_zero_and_one_ulp_either_side(ulps, right, rule):
    """Both logits are the float32 0.1 up to `ulps`; a tie is wrong. Under float32 the outputs are computed exactly
    here, but the kernel can't know, and must leave all three open."""
    weights = head(1, 1)
    a = np.float32(0.1)
    weights["embed.W_E"][:] = 1
    weights["unembed.W_U"][0] = a + ulps * np.spacing(a), a
    data = as_bytes(weights)
    proof = {"enumerate": {"rule": "enumerate"}, "fold": forge.fold([[t, [0], [[-1000, [1]]], [-1000, [1]]]
                                                                     for t in (0, 1)]),
             "listed": forge.fold([[t, [0], None, None] for t in (0, 1)])}[rule]  # fmt: skip

    def accepted(stated: tuple[int, int], semantics: str, exact: bool) -> bool:
        doc = forge.document(data, proof, right=stated, semantics=semantics, equals=ZERO, **shape_of(weights, 2, 1))
        try:
            check(forge.file(doc, data), exact=exact)
        except Rejected:
            return False
        return True

    truth, lie = ((2, 2), (0, 0)) if right else ((0, 0), (2, 2))
    for exact in (False, True):
        assert not accepted(lie, "real", exact)
        for stated in (truth, lie):
            assert not accepted(stated, "float32", exact)
        if rule != "fold":  # its grid may not take a step that fine
            assert accepted((0, 2), "float32", exact)
    if rule == "enumerate" or (rule == "listed" and ulps):
        assert accepted(truth, "real", True)
        assert accepted(truth, "real", False) == (ulps != 0)


@pytest.mark.parametrize("score", [80.0, 110.0, 1e3, 1e6, 1e12])
def test_saturated_softmax(score):
    """The second position's weight is e^-score: positive over the reals, 0 in float32 from some 104 on, where the tie
    that it breaks is wrong. A wrong claim must not be certified on either side."""
    weights = head(2, 2)
    weights["pos_embed.W_pos"][:] = np.eye(2)
    weights["blocks.0.attn.W_Q"][0, 1] = 1
    weights["blocks.0.attn.W_K"][0, 1] = score
    weights["blocks.0.attn.W_V"][0, 0] = 1
    extra = written(weights)  # logits (e^-score / (1 + e^-score), 0)
    data, tokens = as_bytes(extra), np.zeros((1, 2), int)
    gone = float(Program(np.random.default_rng(0)).logits(extra, tokens, 1)[0, 0]) == 0
    assert gone == (score > 104)
    for rule in ({"rule": "enumerate"}, forge.fold(), forge.fold([[0, [0], None, None]])):
        for exact in (False, True):
            for semantics in ("real", "float32"):
                for stated in ((1, 1), (0, 0), (0, 1)):
                    doc = forge.document(data, rule, right=stated, semantics=semantics, equals=ZERO,
                                         tokens=[[0]] * 2, vocab=1, length=2, position=1)  # fmt: skip
                    try:
                        check(forge.file(doc, data), exact=exact)
                        accepted = True
                    except Rejected as error:
                        accepted = False
                        assert "internal error" not in str(error)
                    if stated == (0, 0) or (semantics == "float32" and gone and stated == (1, 1)):
                        assert not accepted
    if score < 100:
        for rule, exact in (({"rule": "enumerate"}, False), (forge.fold(), True)):
            doc = forge.document(data, rule, right=(1, 1), equals=ZERO, tokens=[[0]] * 2, vocab=1, length=2,
                                 position=1)  # fmt: skip
            assert check(forge.file(doc, data), exact=exact).right == (1, 1)


def test_huge_logits_saturate_and_stay_decided():
    """Scores some 3,000 apart pick one position outright: the logits, near 10^7, are that position's."""
    weights = head(2, 2)
    weights["embed.W_E"][:, 1] = 3, 5
    weights["pos_embed.W_pos"][0, 0] = 1
    weights["blocks.0.attn.W_Q"][0, 1] = 1
    weights["blocks.0.attn.W_K"][0, 0] = 600
    weights["blocks.0.attn.W_V"][0, 1] = 1e3
    weights = written(weights)
    weights["unembed.W_U"][-1, 0] = 1e3
    weights["unembed.b_U"][1] = 4e6
    data, first = as_bytes(weights), [["value", [], 0], ["integer", [], 1], ["lt", [0, 1], None]]  # 1 if x0 = 0
    for semantics in ("real", "float32"):
        for rule in ({"rule": "enumerate"}, forge.fold()):
            doc = forge.document(data, rule, right=(4, 4), semantics=semantics, equals=first,
                                 **shape_of(weights, 2, 2))  # fmt: skip
            for exact in (False, True):
                assert check(forge.file(doc, data), exact=exact).right == (4, 4)
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    for seed in range(20):
        logits = random_program(np.random.default_rng(seed)).logits(weights, inputs, 1)
        assert float32.is_right(logits, (inputs[:, 0] == 0).astype(int)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_subnormal_weights_and_negative_zero(semantics, dtype):
    """A subnormal that the model enlarges decides over the reals; under float32 underflow may take it."""
    least = 2.0**-149 if dtype is np.float32 else 5e-324
    weights = {k: v.astype(dtype) for k, v in head(2, 1).items()}
    weights["embed.W_E"][:] = [[least, -0.0], [-0.0, 1]]
    weights["unembed.W_U"][0, 0] = 2.0**100
    weights["unembed.W_U"][1, 1] = -0.0
    weights["unembed.b_U"][:] = -0.0, 0.0
    data = as_bytes(weights)
    shape = shape_of(weights, 2, 1, equals=ZERO)
    if dtype is np.float64 and semantics == "float32":
        with pytest.raises(Rejected, match="float32 weights"):
            check(forge.file(forge.document(data, {"rule": "enumerate"}, semantics="float32", **shape), data))
        return
    # input 0 is right by 2^100 * least; input 1 has logits -0 and 0, a tie, and is wrong
    stated = {(1, 1): semantics == "real", (2, 2): False, (0, 0): False, (0, 2): True}
    for right, truth in stated.items():
        doc = forge.document(data, {"rule": "enumerate"}, right=right, semantics=semantics, **shape)
        try:
            accepted = check(forge.file(doc, data), exact=True).right == right
        except Rejected:
            accepted = False
        assert accepted == truth, right
    plus = forge.document(data, {"rule": "counterexample", "inputs": [[1]]}, right=(0, 1), semantics="real", **shape)
    assert check(forge.file(plus, data), exact=True).right == (0, 1)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_weights_that_are_no_numbers(semantics, dtype, bad):
    for name in ("embed.W_E", "blocks.0.attn.W_K", "unembed.b_U"):
        weights = {k: v.astype(dtype) for k, v in head(2, 1).items()}
        weights[name].reshape(-1)[-1] = bad
        data = as_bytes(weights)
        for exact in (False, True):
            with pytest.raises(Rejected, match="finite"):
                shape = shape_of(weights, 2, 1, equals=ZERO)
                check(forge.file(forge.document(data, {"rule": "enumerate"}, semantics=semantics, **shape), data),
                      exact=exact)  # fmt: skip


def test_negative_zero_weights_change_nothing():
    """Every zero weight as -0.0: the same bounds."""
    weights = max_weights(np.random.default_rng(3), vocab=3, length=2, noise=0.0)
    signed = {k: np.where(v == 0, np.float32(-0.0), v) for k, v in weights.items()}
    assert any(np.signbit(v[v == 0]).any() for v in signed.values())
    for semantics in ("real", "float32"):
        for rule in ({"rule": "enumerate"}, forge.fold([[q, [0], None, None] for q in range(3)])):
            found = []
            for w in (weights, signed):
                doc, claim = claim_of(w, semantics, equals=ZERO, **shape_of(w, 3, 2))
                doc["proof"] = rule
                found.append(tuple(proved(doc, claim)))
            assert found[0] == found[1] == (1, 1)


# --- float64 notebooks ------------------------------------------------------------------------------------------------


def exact_logits(weights: dict, tokens: list[int]) -> list[Fraction]:
    """In rationals, for a one-layer model without queries (every score is 0, so the pattern is 1/n)."""
    w = {k: np.vectorize(Fraction, otypes=[object])(v) for k, v in weights.items()}
    n = len(tokens)
    x = [w["embed.W_E"][t] + w["pos_embed.W_pos"][i] for i, t in enumerate(tokens)]
    mean = sum(row @ w["blocks.0.attn.W_V"][0] for row in x) * Fraction(1, n)
    out = x[-1] + mean @ w["blocks.0.attn.W_O"][0] + w.get("blocks.0.attn.b_O", 0)
    return list(out @ w["unembed.W_U"] + w["unembed.b_U"])


def near_ties(kind: str):
    """Random float64 models of one input whose two outputs agree to the last bits, by choice of one bias."""
    rng = np.random.default_rng({"sum": 0, "mean": 1, "decimal": 2}[kind])
    while True:
        d, n = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        w = {k: v.astype(np.float64) for k, v in head(d, n, vocab=1).items()}
        names = ["embed.W_E", "pos_embed.W_pos", "unembed.W_U"]
        names += ["blocks.0.attn.W_V", "blocks.0.attn.W_O"] if kind == "mean" else []
        for name in names:
            values = rng.normal(size=w[name].shape)
            w[name] = np.round(values, 1) if kind == "decimal" else values
        y = exact_logits(w, [0] * n)
        w["unembed.b_U"][0] = float(y[1] - y[0])  # nearest float64: the margin is what that rounding left, or 0
        yield w, n


def naive(weights: dict, n: int) -> bool:
    with np.errstate(all="ignore"):
        return bool(float32.is_right(float32.plain(weights, np.zeros((1, n), int), n - 1), np.zeros(1, int))[0])


def fooled() -> list[tuple[str, dict, int, bool]]:
    """(name, weights, length, whether output 0 is right) of models on which plain float64 says the contrary."""
    result = []
    for kind, wanted in (("sum", 5), ("mean", 5), ("decimal", 5)):
        found = 0
        for w, n in near_ties(kind):
            y = exact_logits(w, [0] * n)
            if naive(w, n) != (y[0] > y[1]):
                result.append((f"{kind} {found}", w, n, y[0] > y[1]))
                found += 1
            if found == wanted:
                break

    def made(name: str, a: list[float], b: float, right: bool) -> None:
        """Output 0: the sum of `a` (embedding, positions, attention's bias, unembedding's); output 1: b."""
        w = {k: v.astype(np.float64) for k, v in head(1, 1, vocab=1).items()}
        w["embed.W_E"][:], w["pos_embed.W_pos"][:], w["unembed.W_U"][0, 0] = a[0], a[1], 1
        w["blocks.0.attn.b_O"] = np.array([a[2]])
        w["unembed.b_U"][:] = a[3], b
        result.append((name, w, 1, right))

    made("-0.1 - 0.2", [-0.1, -0.2, 0.0, 0.0], -0.30000000000000004, True)
    made("1e16 + 1 - 1e16", [1.0, 1e16, -1e16, 0.0], 0.5, True)
    made("2^54 + 1 - 2^54", [1.0, 2.0**54, -(2.0**54), 0.0], 0.5, True)
    made("1 + 2^-60 > 1", [1.0, 2.0**-60, 0.0, 0.0], 1.0, True)
    made("a sum that overflows on its way", [1e308, 1e308, -1.5e308, 0.0], 1e307, True)
    w = {k: v.astype(np.float64) for k, v in head(1, 1, vocab=1).items()}
    w["embed.W_E"][:], w["unembed.W_U"][0, 0] = 1e-200, 1e-200
    result.append(("a product that underflows", w, 1, True))
    return result


FOOLED = fooled()


@pytest.mark.parametrize(("name", "weights", "n", "right"), FOOLED, ids=[row[0] for row in FOOLED])
def test_where_float64_is_fooled_the_kernel_is_not(name, weights, n, right):
    y = exact_logits(weights, [0] * n)
    assert (y[0] > y[1]) == right and naive(weights, n) != right
    data = as_bytes(weights)

    def accepted(proof: dict, stated: tuple[int, int], exact: bool) -> bool:
        doc = forge.document(data, proof, right=stated, equals=ZERO, tokens=[[0]] * n, vocab=1, length=n,
                             position=n - 1)  # fmt: skip
        try:
            check(forge.file(doc, data), exact=exact)
        except Rejected as error:
            assert "internal error" not in str(error)
            return False
        return True

    truth, lie = ((1, 1), (0, 0)) if right else ((0, 0), (1, 1))
    proofs = [{"rule": "enumerate"}, forge.fold(), forge.fold([[0, [0], None, None]]),
              forge.fold([[0, [0], [[-900, [1]]], [-900, [1]]]])]  # fmt: skip
    for proof in proofs:
        for exact in (False, True):
            assert not accepted(proof, lie, exact)
    # an exact tie through attention's thirds stays open; whatever differs, and every tie of sums, is decided
    if y[0] != y[1] or not np.any(weights["blocks.0.attn.W_V"]):
        assert accepted(proofs[0], truth, True)


def test_a_bias_may_start_the_sum():
    """torch.addmm adds 300 products of 0.99 to 2^24 one by one, and each of them is lost."""
    d, block = 300, "blocks.0."
    weights = {"embed.W_E": np.ones((2, d)), "pos_embed.W_pos": np.zeros((1, d)), "unembed.W_U": np.zeros((d, 2)),
               **{f"{block}attn.W_{c}": np.zeros((1, d, 1)) for c in "QKV"}, f"{block}attn.W_O": np.zeros((1, 1, d)),
               f"{block}mlp.W_in": np.full((d, 1), 0.99), f"{block}mlp.b_in": np.array([2.0**24]),
               f"{block}mlp.W_out": np.eye(1, d), f"{block}mlp.b_out": -(2.0**24) * np.eye(1, d)[0]}  # fmt: skip
    weights = {name: a.astype(np.float32) for name, a in weights.items()}
    program = Program(np.random.default_rng(0), order="as written", joined=True)
    pre = program.product(np.ones((1, d), np.float32), weights[f"{block}mlp.W_in"], weights[f"{block}mlp.b_in"])
    assert pre[0, 0] == 2.0**24
    for proof in ({"rule": "enumerate"}, forge.fold(trials=8)):
        doc = forge.document(as_bytes(weights), proof, equals=[["integer", [], 0]], vocab=2, length=1, position=0,
                             semantics="float32", architecture="transformer_relu", site=f"{block}mlp_out",
                             margin=Fraction(200), right=(2, 2), verdict="PROVED", at_least="1/1")  # fmt: skip
        with pytest.raises(Rejected, match="right inputs stated"):
            check(forge.file(doc, as_bytes(weights)))
