"""The kernel and the second checker on the accuracy of captured modules: what each counts, and what each refuses."""

import contextlib
import copy
import functools
import io
import itertools
import json

import numpy as np
import pytest
import torch
from sympy import And, Eq, Max, Mod, Ne, Or

from benchmarks.shares import SHAPES, Shape, Transformer
from mechverify import Accuracy, Share, capture, prove, tokens, transformer
from mechverify.kernel import NotACertificate, Rejected, check
from mechverify.kernel.core import container
from mechverify.report.statement import lines
from tests.independent import checker, shares
from tests.independent.sentence import false_lines
from tests.independent.test_schema import VALIDATOR
from tests.models import as_bytes, max_weights
from tests.rounds import ROUNDS, few
from tests.soundness import forge

VOCAB, LENGTH = 3, 2
SOME = [shape for shape in SHAPES[::11] if shape.layers < 3]


def claim(shape: Shape, seed: int, **settings) -> Accuracy:
    torch.manual_seed(seed)
    model = Transformer(shape, VOCAB, LENGTH, width=4).double().eval()
    x = tokens("x", length=LENGTH, vocab=VOCAB, values=[2, 0, 1])
    captured = capture(model, torch.zeros(1, LENGTH, dtype=torch.long))
    return Accuracy(captured["output"][-1], equals=Mod(Max(*x) + x[0], 3), over=x, **settings)


@pytest.mark.parametrize("shape", few(SOME, 3), ids=str)
def test_both_count_the_same(shape):
    certificate = prove(claim(shape, SHAPES.index(shape))).certificate
    document, weights = checker.members(certificate)
    document = checker.strict_json(document)
    VALIDATOR.validate(document)
    low, high = shares.truth(document["claim"], weights)
    assert low == high
    stated = shares.check(certificate)
    assert stated["right_at_least"] == stated["right_at_most"] == str(low)
    assert check(certificate).right == (low, high)


CONDITIONS = {
    "closed": lambda y, x: y[-1, 0] >= y[-1, 1], "strict": lambda y, x: And(y[-1, 0] > y[-1, 1], Ne(x[0], x[1])),
    "tokens": lambda y, x: Or(x[0] < x[1], Eq(x[0], 2)),
}  # fmt: skip


def share(what: str, **settings) -> Share:
    made = claim(SOME[2], 3)
    return Share(CONDITIONS[what](made.output.model["output"], made.over), over=made.over, **settings)


GUARDS = {"closed": lambda x: Ne(x[0], x[1]), "strict": lambda x: [x[0] + x[1] <= 2, Ne(x[0], 1)],
          "tokens": lambda x: Or(x[0] > 0, x[1] > 0)}  # fmt: skip


@pytest.mark.parametrize("what", CONDITIONS)
@pytest.mark.parametrize("guarded", [False, True])
def test_both_count_the_same_shares(what, guarded):
    x = claim(SOME[2], 3).over
    certificate = prove(share(what, given=GUARDS[what](x) if guarded else ())).certificate
    text, weights = checker.members(certificate)
    document = checker.strict_json(text)
    VALIDATOR.validate(document)
    low, high = shares.truth(document["claim"], weights)
    assert low == high and shares.check(certificate)["right_at_least"] == str(low)
    assert check(certificate).right == (low, high)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for label, line in lines(check(certificate)):
            print(f"{label:>16}  {line}")
    assert false_lines(printed.getvalue(), certificate) == []
    changes = [(" of these sequences", "0 of these sequences"), ("those given", "all")] if guarded else []
    for old, new in (
        *changes,
        (" >= 0", " > 0") if " >= 0" in printed.getvalue() else (" > 0", " >= 0"),
        ("holds, at", "right, at"),
    ):
        assert false_lines(printed.getvalue().replace(old, new), certificate)


@functools.cache
def files() -> list[tuple[str, dict, bytes]]:
    """A proof of each verdict, and one with parts left open."""
    found = []
    for at_least in (None, "1/9", "1"):
        contents = container.unpack(prove(claim(SOME[3], 4, at_least=at_least)).certificate)
        found.append((str(at_least), json.loads(contents["certificate.json"]), contents["weights.safetensors"]))
    for what, at_least in (("closed", "1/9"), ("strict", "1")):
        given = GUARDS[what](claim(SOME[2], 3).over) if at_least == "1" else ()
        contents = container.unpack(prove(share(what, at_least=at_least, given=given)).certificate)
        document = json.loads(contents["certificate.json"])
        found.append((f"share {what} {at_least}", document, contents["weights.safetensors"]))
    _, document, weights = copy.deepcopy(found[0])
    document["proof"] = {"rule": "split", "position": 0, "first": [1], "inside": {"rule": "enumerate"},
                         "outside": {"rule": "open"}}  # fmt: skip
    document["conclusion"] |= {"right_at_least": "0", "right_at_most": "9"}
    return [*found, ("open", document, weights)]


NAMES = ["None", "1/9", "1", "share closed 1/9", "share strict 1", "open"]


def verdict(data: bytes, how) -> bool:
    try:
        how(data)
    except (Rejected, NotACertificate, checker.Rejected):
        return False
    return True


@pytest.mark.parametrize("which", few(range(len(NAMES)), 3), ids=NAMES)
def test_both_agree_on_files_with_one_change(which):
    name, document, weights = copy.deepcopy(files()[which])
    assert name == NAMES[which]
    assert verdict(forge.file(document, weights), check) and verdict(forge.file(document, weights), shares.check)
    document["cost"] = None
    rng, told = np.random.default_rng(which), [0, 0]
    places = forge.places({k: v for k, v in document.items() if k not in ("cost", "format")})
    graph = [p for p in places if p[:2] == ("claim", "graph")]
    others = [p for p in places if p[:2] != ("claim", "graph")]
    for trial in range(5 * ROUNDS):
        doc = copy.deepcopy(document)
        some = others if trial % 3 else graph
        path = some[int(rng.integers(len(some)))]
        forge.spoil_leaf(doc, path, rng)
        data = forge.file(doc, weights)
        kernel, second = verdict(data, check), verdict(data, shares.check)
        told[kernel] += 1
        assert kernel == second, (path, forge.entry_at(doc, path))
    assert min(told) > 0


def test_it_refuses_what_the_page_refuses():
    _, document, weights = copy.deepcopy(files()[0])
    for change in (
        {"version": 4}, {"axioms": ["ieee754"]}, {"proof": forge.fold()}, {"proof": {"rule": "point", "inputs": []}},
    ):  # fmt: skip
        data = forge.file({**document, **change}, weights)
        assert not verdict(data, shares.check) and not verdict(data, check)
    for wrong in itertools.product((0, 1), repeat=2):
        doc, count = copy.deepcopy(document), int(document["conclusion"]["right_at_least"])
        stated = count + wrong[0], count - wrong[1]
        doc["conclusion"] |= {"right_at_least": str(stated[0]), "right_at_most": str(stated[1])}
        data = forge.file(doc, weights)
        assert verdict(data, shares.check) == verdict(data, check) == (wrong == (0, 0))


@pytest.mark.parametrize("proof", ["fold", "enumerate"])
def test_both_count_the_same_in_a_guarded_domain_of_a_known_architecture(proof, tmp_path):
    path = tmp_path / "max.safetensors"
    path.write_bytes(as_bytes(max_weights(np.random.default_rng(3), vocab=3, length=3, noise=0.5)))
    x = tokens("x", length=3, vocab=3)
    made = Accuracy(transformer(path).logits[-1], equals=Max(*x), over=x, given=[x[0] + x[1] <= 2, Ne(x[2], x[0])])
    certificate = prove(made, strategy={"fold": "listed", "enumerate": "brute"}[proof]).certificate
    text, _ = checker.members(certificate)
    document = checker.strict_json(text)
    VALIDATOR.validate(document)
    total = sum(a + b <= 2 and c != a for a, b, c in itertools.product(range(3), repeat=3))
    theorem, stated = check(certificate), checker.check(certificate)
    assert theorem.claim.total == total and theorem.right.low == theorem.right.high < total
    assert (int(stated["right_at_least"]), int(stated["right_at_most"])) == theorem.right
    assert next(iter(theorem.rules)) == proof
    for field, by in (("right_at_least", 1), ("right_at_most", -1)):
        doc = copy.deepcopy(document)
        doc["conclusion"][field] = str(int(doc["conclusion"][field]) + by)
        data = forge.file(doc, path.read_bytes())
        assert not verdict(data, checker.check) and not verdict(data, check)
    dropped = copy.deepcopy(document)
    del dropped["claim"]["given"]
    data = forge.file(dropped, path.read_bytes())
    assert verdict(data, checker.check) == verdict(data, check)
    printed = "\n".join(f"{label:>16}  {line}" for label, line in lines(theorem))
    assert false_lines(printed, certificate) == [] and false_lines(printed.replace("x0 + x1", "x0 + x2"), certificate)
