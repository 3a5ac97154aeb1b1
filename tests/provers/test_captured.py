"""Accuracy of captured modules: exactly what an enumeration in float64 finds, and nothing more."""

import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from sympy import Max, Mod
from torch import nn

from benchmarks.shares import SHAPES, Shape, Transformer
from mechverify import Accuracy, capture, prove, tokens, transformer
from mechverify.certificate.write import write
from mechverify.claims.errors import ClaimError
from mechverify.kernel import check
from mechverify.kernel.core.elsewhere import doubled, exactly
from mechverify.provers.accuracy import enumerate as running
from mechverify.provers.accuracy import falsify as looking
from mechverify.provers.accuracy.falsify import Evidence
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.base import Budget
from mechverify.report.statement import lines
from tests.models import as_bytes, max_weights

VOCAB, LENGTH = 4, 3


def random_model(shape: Shape, seed: int, vocab=VOCAB, length=LENGTH) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(shape, vocab, length, width=8).double().eval()


def captured(model, length=LENGTH):
    return capture(model, torch.zeros(1, length, dtype=torch.long))


def right(model: nn.Module, position: int, mechanism, vocab=VOCAB, length=LENGTH) -> torch.Tensor:
    """By how much the mechanism's output leads, of every input; -inf where it is none."""
    ids = torch.cartesian_prod(*[torch.arange(vocab)] * length)
    with torch.no_grad():
        logits = model.double()(ids)
    logits = logits if logits.ndim == 2 else logits[:, position]
    target = torch.tensor([mechanism(row) for row in ids.tolist()])
    possible = (target >= 0) & (target < logits.shape[1])
    at = torch.where(possible, target, 0)[:, None]
    lead = logits.gather(1, at)[:, 0] - logits.scatter(1, at, -torch.inf).amax(1)
    return torch.where(possible, lead, -torch.inf)


FEW = SHAPES[::5]  # among them every layer, head, norm, activation and mask


@pytest.mark.parametrize(
    "shape", [pytest.param(s, marks=() if s in FEW else pytest.mark.campaign) for s in SHAPES], ids=str
)
def test_every_shape_is_counted_exactly(shape):
    seed = SHAPES.index(shape)
    model, position = random_model(shape, seed), seed % LENGTH
    x = tokens("x", length=LENGTH, vocab=VOCAB)
    truth = right(model, position, lambda t: sum(t) % 4)
    assert truth.abs().min() > 1e-9
    count = int((truth > 0).sum())
    assert 0 < count < VOCAB**LENGTH
    outcome = prove(Accuracy(captured(model)["output"][position], equals=Mod(sum(x), 4), over=x))
    assert outcome.verdict == "BOUNDED" and outcome.reasons == []
    assert outcome.theorem.right == (count, count) and outcome.theorem.axioms == ("ieee754", "capture")


SHAPE = Shape(2, 4, "before", "gelu", True)
MODEL = random_model(SHAPE, 5)


@pytest.fixture(scope="module")
def model():
    return captured(MODEL)


@pytest.fixture
def x():
    return tokens("x", length=LENGTH, vocab=VOCAB)


def leads(position=-1):
    return right(MODEL, position, lambda t: sum(t) % 4)


def test_a_share_that_is_reached_is_proved_and_one_more_input_refutes_it(model, x):
    count = int((leads() > 0).sum())
    reached = prove(Accuracy(model["output"][-1], equals=Mod(sum(x), 4), over=x, at_least=f"{count}/64"))
    assert reached.verdict == "PROVED" and reached.theorem.right.low >= count
    missed = prove(Accuracy(model["output"][-1], equals=Mod(sum(x), 4), over=x, at_least=f"{count + 1}/64"))
    assert missed.verdict == "REFUTED" and len(missed.theorem.wrong)
    ids = torch.cartesian_prod(*[torch.arange(VOCAB)] * LENGTH).tolist()
    assert all(leads()[ids.index(row)] < 0 for row in missed.theorem.wrong.tolist())


def test_margins_are_exact(model, x):
    """Between two leads, and beside one of them."""
    found = sorted(v for v in leads().tolist() if v > 0)
    for i in (1, len(found) - 1):
        for margin, count in ((found[i] - 1e-6, len(found) - i), (found[i] + 1e-6, len(found) - i - 1)):
            outcome = prove(Accuracy(model["output"][-1], equals=Mod(sum(x), 4), over=x, margin=str(margin)))
            assert outcome.theorem.right == (count, count)


def test_the_largest_margin_on_all_inputs(x):
    """A model that says what it reads, by a lead that is known."""

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.diag(torch.tensor([1.0, 2.0, 0.5, 1.5])))

        def forward(self, ids):
            return nn.functional.embedding(ids, self.table)

    outcome = prove(Accuracy(captured(Reads().eval())["output"][-1], equals=x[-1], over=x, at_least=1, margin="best"))
    assert outcome.verdict == "PROVED" and 0.5 - 1e-5 < outcome.theorem.claim.margin < 0.5
    one = Accuracy(captured(Reads().eval())["output"][-1], equals=x[-1], over=x, at_least=1, margin="0.5")
    assert prove(one).verdict == "REFUTED"


def test_the_largest_margin_on_a_share_of_the_inputs(model, x):
    """The least lead of the right ones, and of the 3 best ones, to nine digits; a bit more is too much."""
    found = sorted(leads().tolist(), reverse=True)
    right = sum(v > 0 for v in found)
    for count in (right, 3):
        share = Fraction(count, len(found))
        outcome = prove(Accuracy(model["output"][-1], equals=Mod(sum(x), 4), over=x, at_least=share, margin="best"))
        margin = outcome.theorem.claim.margin
        assert outcome.verdict == "PROVED" and found[count - 1] - 2e-9 < margin < found[count - 1]
        more = Accuracy(
            model["output"][-1], equals=Mod(sum(x), 4), over=x, at_least=share, margin=margin + Fraction(2, 10**9)
        )
        assert prove(more).verdict == "REFUTED"


def test_ties_and_targets_that_are_no_output_are_wrong(x):
    class Even(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [2.0, 1.0]]))

        def forward(self, ids):
            return nn.functional.embedding(ids, self.table)[:, -1]

    # of the last token: 0 a tie, 1 says 1, 2 says 1 (the mechanism 2, no output), 3 says 0 (the mechanism 3)
    outcome = prove(Accuracy(captured(Even().eval())["output"], equals=x[-1], over=x))
    assert outcome.theorem.right == (16, 16) and outcome.reasons == []  # the tie in exact arithmetic


class Curved(nn.Module):
    """Of the last token, logits [tanh(1) + gap, tanh(1)]: exact only if `gap` is below what float64 encloses."""

    def __init__(self, gap: float):
        super().__init__()
        self.gap = nn.Parameter(torch.tensor([[gap, 0.0]] * 4, dtype=torch.float64))

    def forward(self, ids):
        row = nn.functional.embedding(ids, self.gap)[:, -1]
        return torch.tanh(row * 0 + 1) + row


@pytest.mark.parametrize(("gap", "count"), [(1e-18, 64), (-1e-18, 0), (1e-36, 64), (-1e-36, 0), (0.0, None)])
def test_what_float64_leaves_open_is_run_in_exact_arithmetic_if_that_tells(x, gap, count):
    """Two values of tanh that are equal have balls around them even there: that tie stays open, and is not tried twice."""
    outcome = prove(Accuracy(captured(Curved(gap).eval())["output"], equals=0, over=x))
    assert outcome.theorem.right == ((0, 64) if count is None else (count, count))
    assert (outcome.reasons == []) == (count is not None)
    if count is None:
        assert any("of 64 inputs enclosures don't show whether they are right" in r for r in outcome.reasons)


def test_a_few_open_inputs_are_run_at_once():
    x = tokens("x", length=LENGTH, vocab=VOCAB, allowed=[range(4), [1], [2]])
    assert prove(Accuracy(captured(Curved(1e-18).eval())["output"], equals=0, over=x)).theorem.right == (4, 4)


def test_more_open_inputs_than_there_is_time_for_stay_open(x, monkeypatch):
    claim = Accuracy(captured(Curved(1e-36).eval())["output"], equals=0, over=x)
    monkeypatch.setattr(running, "OPEN", 63)
    assert prove(claim).theorem.right == (0, 64)
    monkeypatch.setattr(running, "OPEN", 64)
    monkeypatch.setattr(running, "LONGEST", 1e-9)
    assert prove(claim).theorem.right == (0, 64)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.layers == 3][::12], ids=str)
def test_deep_models_are_replayed_in_exact_arithmetic(shape):
    """The enclosure of an output is far below what float64 can be, and lies within float64's own."""
    x = tokens("x", length=LENGTH, vocab=VOCAB)
    claim = Accuracy(captured(random_model(shape, 0))["output"][-1], equals=Mod(sum(x), 4), over=x)
    job = running.AccuracyProblem.of(claim, "real").job
    some = np.array([[0, 1, 2], [3, 3, 0]])

    def evaluate(model):
        return running.Evaluation(job.claim.graph, job.claim.weights, model, some)[job.claim.output]

    wide, twice, fine = evaluate(job.semantics), doubled(job, evaluate), exactly(job, evaluate)
    unit = Fraction(2) ** fine.exponent
    for entry in np.ndindex(wide.mid.shape):
        near, off = (Fraction(a[entry]) * unit for a in np.broadcast_arrays(fine.mid, fine.rad))
        assert off < Fraction(1, 2**80)
        assert abs(near - Fraction(wide.mid[entry])) <= Fraction(wide.rad[entry])
        centre = Fraction(twice.mid[entry].real) + Fraction(twice.mid[entry].imag)
        assert abs(near - centre) <= Fraction(twice.rad[entry]) + off < Fraction(wide.rad[entry]) / 2**40


@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_what_the_kernel_cannot_tell_is_not_stated(semantics, tmp_path):
    """Two outputs differ by two millionths where they lead: by more than torch's float64 errs, and by less than
    float32 evaluations may."""
    weights = max_weights(np.random.default_rng(0), vocab=4, length=3, noise=0.0)
    weights["unembed.W_U"][:, 0] = weights["unembed.W_U"][:, 1]
    weights["unembed.b_U"] = np.array([2e-6, 0.0, 0.0, 0.0], np.float32)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(as_bytes(weights))
    model, x = transformer(path), tokens("x", length=3, vocab=4)
    outcome = prove(Accuracy(model.logits[-1], equals=0, over=x), semantics=semantics)
    low, high = outcome.theorem.right
    assert (low == high) == (semantics == "real") and "the kernel doesn't confirm" not in " ".join(outcome.reasons)


def test_a_mechanism_of_what_tokens_mean(model):
    """And fewer of them: position 1 takes two."""
    x = tokens("x", length=3, vocab=4, values=[3, -1, 0, 7], allowed=[range(4), [1, 3], range(4)])
    outcome = prove(Accuracy(model["output"][-1], equals=Mod(Max(*x), 4), over=x))
    ids = torch.cartesian_prod(torch.arange(4), torch.tensor([1, 3]), torch.arange(4))
    with torch.no_grad():
        said = MODEL(ids)[:, -1].argmax(1)
    means = torch.tensor([3, -1, 0, 7])[ids].amax(1) % 4
    assert outcome.theorem.right == (int((said == means).sum()),) * 2 and outcome.theorem.claim.domain.size == 32


def test_a_decoder_of_ones_own_is_a_list_of_expressions(model, x):
    """The sign of a difference of two inner values; a part of the output alone."""
    ids = torch.cartesian_prod(*[torch.arange(VOCAB)] * LENGTH)
    with torch.no_grad():
        logits = MODEL(ids)[:, -1]
    out = model["output"]
    sign = prove(Accuracy([0, out[-1, 1] - out[-1, 2]], equals=Mod(x[0], 2), over=x))
    truth = int((((logits[:, 1] - logits[:, 2]) > 0) == (ids[:, 0] % 2 == 1)).sum())
    assert sign.theorem.right == (truth, truth)
    text = dict(lines(sign.theorem))
    assert text["claim"] == "strict argmax [0, (output[2, 1] - output[2, 2])] = (x0 mod 2)"
    some = prove(Accuracy(out[-1, 1:], equals=Mod(x[0], 3), over=x))
    truth = int((logits[:, 1:].argmax(1) == ids[:, 0] % 3).sum())
    assert some.theorem.right == (truth, truth)


def test_a_domain_is_run_as_far_as_time_allows():
    """In parts of at most an eighth of what there is time for, however small that is: next to none of it is left."""
    x, model = tokens("x", length=LENGTH, vocab=VOCAB), captured(MODEL)
    claim = Accuracy(model["output"][-1], equals=Mod(sum(x), 4), over=x)
    problem = running.AccuracyProblem.of(claim, "real")
    count, before = int((leads() > 0).sum()), (0, 64)
    for most in (0, 3, 8, 24, 63, 64):
        found = running.enumerated(problem, Budget(), most, 0.0, 2.0**-20)
        low, high = found.right
        assert before[0] <= low <= count <= high <= before[1] and most - most // 8 <= 64 - (high - low) <= most
        assert (found.reason is None) == (most == 64) and (found.proof is None) == (most == 0)
        before = low, high
        if found.proof is not None:
            theorem = check(running_file(problem, claim, found))
            assert theorem.right == found.right and ("open" in theorem.rules) == (most < 64)


def running_file(problem, claim, found):
    return write(problem.document, claim.output.model.data, found.proof, "BOUNDED", found.right)


def test_what_cannot_be_run_is_said(monkeypatch):
    monkeypatch.setattr(running, "WHOLE", 8)
    monkeypatch.setattr(running, "LONGEST", 1e-9)
    monkeypatch.setattr("mechverify.provers.accuracy.find.PROVERS", [running.Enumerate()])
    x, model = tokens("x", length=LENGTH, vocab=VOCAB), captured(MODEL)
    outcome = prove(Accuracy(model["output"][-1], equals=Mod(sum(x), 4), over=x))
    assert outcome.verdict == "UNKNOWN"
    assert any(re.search("64 inputs are too many to run, with time for about 0", r) for r in outcome.reasons)


def test_what_one_input_takes_is_what_the_check_takes(monkeypatch):
    """Wide enclosures make the kernel ask for more digits, of the inputs that they leave open."""
    monkeypatch.setattr(running, "BLURRED", 0.0)
    asked = []
    monkeypatch.setattr(running, "decide", lambda job, some: asked.append(some))
    problem = running.AccuracyProblem.of(
        Accuracy(captured(MODEL)["output"][-1], equals=0, over=tokens("x", length=LENGTH, vocab=VOCAB)), "real"
    )
    monkeypatch.setattr(running, "TRIAL", 4)
    limited = Budget(deadline=1e9, end=1e9)
    each, near = running._tried(problem, limited)
    ids = np.array([[0, 0, k] for k in range(4)] + [[0, 1, k] for k in range(4)])
    assert 0 < each.seconds < np.inf and 0 < each.work < np.inf and near == running.CLOSE
    assert len(asked) == 1 and np.array_equal(asked[0], ids)  # neighbours: an eighth of all
    monkeypatch.setattr(running, "SIDE", 4)  # as few as the samples: these, then
    running._tried(problem, limited)
    assert len(asked) == 2 and len(asked[1]) == 4 and not np.array_equal(asked[1], ids[:4])


def test_wrong_inputs_that_only_the_enumeration_met_refute(monkeypatch):
    nothing = Evidence(np.zeros((0, 3), np.int64), np.zeros(0, np.int64), 1.0, 0, 1.0)
    monkeypatch.setattr("mechverify.provers.accuracy.find.falsify", lambda problem, budget: nothing)
    x, model = tokens("x", length=LENGTH, vocab=VOCAB), captured(MODEL)
    outcome = prove(Accuracy(model["output"][-1], equals=Mod(sum(x), 4), over=x, at_least=1))
    assert outcome.verdict == "REFUTED" and len(outcome.theorem.wrong)


REFUSED = {
    "another length": (lambda m, x: (m["output"][-1], tokens("x", length=2, vocab=4)), "reads 3 tokens of 4"),
    "another vocabulary": (lambda m, x: (m["output"][-1], tokens("x", length=3, vocab=5)), "reads 3 tokens of 4"),
    "no row": (lambda m, x: (m["output"], x), r"say which row is read, as in output\[-1\]"),
    "no such row": (lambda m, x: (m["output"][3], x), r"output\[3\]: the site has shape \(3, 4\)"),
    "a matrix": (lambda m, x: (m["blocks.0.pattern"][0], x), r"pattern\[0\] has shape \(3, 3\), which is not one vec"),
    "no site": (lambda m, x: (3, x), "Accuracy needs a model's site"),
    "no tokens": (lambda m, x: (m["output"][-1], 3), "Accuracy needs a model's site"),
    "ids": (lambda m, x: (m["tokens"], x), "tokens are ids, not a vector of outputs"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_claim_is_said(what, model, x):
    make, message = REFUSED[what]
    output, over = make(model, x)
    with pytest.raises(ClaimError, match=message):
        Accuracy(output, equals=x[0], over=over)


def test_real_inputs_are_refused():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(4, 4)

        def forward(self, ids, shift):
            return self.table(ids)[:, -1] + shift

    model = capture(Shifted().eval(), torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 4))
    x = tokens("x", length=3, vocab=4)
    with pytest.raises(ClaimError, match=r"reads real inputs, of shapes \(\(4,\),\).*ask for Bounds or Holds"):
        Accuracy(model["output"], equals=x[0], over=x)


def test_the_module_is_compared_on_the_claims_domain(x):
    """One that computes differently for larger batches of ids is noticed where the claim is made."""
    model = captured(MODEL)
    claim = Accuracy(model["output"][-1], equals=x[0], over=x)
    assert claim.output.captured.captured.compared.inputs > model.captured.compared.inputs


def test_a_share_that_is_met_exactly_does_not_seem_false(monkeypatch):
    """Then few of the wrong inputs are replayed, though the float that is nearest to the share lies below it."""
    model, x = random_model(SHAPES[0], seed=0), tokens("x", length=LENGTH, vocab=VOCAB)
    ids = torch.cartesian_prod(*[torch.arange(VOCAB)] * LENGTH)
    with torch.no_grad():
        wrong = model(ids).argmax(-1)[:, -1] != ids.amax(1)
    output = capture(model, torch.zeros(1, LENGTH, dtype=torch.long))["output"][-1]
    replayed = []
    monkeypatch.setattr(looking, "WORST", 3)
    monkeypatch.setattr(looking, "replay", lambda problem, margins, some: (replayed.append(len(some)), (some, some))[1])
    number = len(ids)
    for more in (0, 1):
        share = Fraction(number - int(wrong.sum()) + more, number)
        claim = Accuracy(output, equals=Max(*x), over=x, at_least=share)
        looking.falsify(AccuracyProblem.of(claim, "real"), Budget())
    assert wrong.sum() > 3 and replayed == [3, int(wrong.sum())]
    assert looking._worth_replaying(AccuracyProblem.of(claim.changed(at_least=Fraction(1555, 3481)), "real"),
                                    1555 / 3481) == 3  # fmt: skip
    assert Fraction(1555 / 3481) < Fraction(1555, 3481)
