"""Strategies of rule `compact` on a small model: what they find is what the kernel proves, and no more than is true."""

import numpy as np
import pytest
from sympy import Max, Min

from mechverify import Accuracy, tokens, transformer
from mechverify.certificate.write import write
from mechverify.kernel import Rejected, check
from mechverify.kernel.core.counts import Counts
from mechverify.kernel.core.errors import Unsupported
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.accuracy.strategies import chosen
from mechverify.provers.accuracy.strategies.compact_proofs import COMPACT_PROOFS
from mechverify.provers.base import Budget
from tests.models import as_bytes, max_weights, random_mlp


def problem(path, mechanism=Max, semantics="real") -> AccuracyProblem:
    model = transformer(path, act_fn="relu") if "mlp" in path.name else transformer(path)
    x = tokens("x", length=3, vocab=6)
    return AccuracyProblem.of(Accuracy(model.logits[-1], equals=mechanism(*x), over=x, at_least="best"), semantics)


@pytest.mark.parametrize("name", COMPACT_PROOFS)
def test_a_strategy_states_what_the_kernel_proves(name, small_model):
    task = problem(small_model)
    attempt, exact = chosen(name).find(task, Budget()), chosen("fold").find(task, Budget()).right
    assert attempt.right.low <= exact.low and attempt.right.high == 6**3
    data = small_model.read_bytes()
    for change in (0, 1):
        stated = Counts(attempt.right.low + change, attempt.right.high)
        certificate = write(task.document, data, attempt.proof, "BOUNDED", stated)
        if change:
            with pytest.raises(Rejected, match="right inputs stated"):
                check(certificate)
        else:
            assert check(certificate).right == stated


def test_more_is_shown_for_more(small_model):
    task = problem(small_model)
    low = {name: chosen(name).find(task, Budget()).right.low for name in ("tokens", "cubic", "rivals", "refined")}
    assert 0 < low["tokens"] <= low["cubic"] <= low["rivals"] == low["refined"]


def test_the_order_of_tokens_follows_the_mechanism(tmp_path):
    weights = max_weights(np.random.default_rng(3), noise=0.02)
    weights["blocks.0.attn.W_K"] = -weights["blocks.0.attn.W_K"]
    path = tmp_path / "min.safetensors"
    path.write_bytes(as_bytes(weights))
    attempt = chosen("subcubic").find(problem(path, Min), Budget())
    assert attempt.right.low > 50 and attempt.proof["passes"][0]["tokens"] == "descending"


def test_what_the_rule_does_not_cover_is_unsupported(small_model, tmp_path):
    with pytest.raises(Unsupported, match="real"):
        chosen("tokens").find(problem(small_model, semantics="float32"), Budget())
    rng = np.random.default_rng(0)
    path = tmp_path / "mlp.safetensors"
    path.write_bytes(as_bytes(max_weights(rng) | random_mlp(rng, 7, 3)))
    with pytest.raises(Unsupported):
        chosen("subcubic").find(problem(path), Budget())
