"""A two-layer model completes a repetition: after ... a b ... a it says b.

Of the tokens all but the last are distinct, and the last repeats one of them, not the one before it.

mechverify prove proofs/induction.py -p at_least=best --out induction.cert
"""

from itertools import pairwise

from sympy import Eq, Piecewise

from mechverify import Accuracy, count, distinct, tokens, transformer


def claim(weights="toy_models/weights/induction_of_6_seed0.safetensors", at_least="1"):
    model = transformer(weights)
    *rest, last = x = tokens("x", length=model.n_ctx, vocab=model.d_vocab)
    answer = Piecewise(*((b, Eq(a, last)) for a, b in pairwise(rest)), (0, True))
    given = [distinct(*rest), Eq(count(last, *rest[:-1]), 1)]
    return Accuracy(model.logits[-1], equals=answer, over=x, given=given, at_least=at_least)
