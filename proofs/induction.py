"""A two-layer model completes a repetition: after ... a b ... a it says b.

The last token stands once before, not right before the end. The others are distinct, or any but that one.

mechverify prove proofs/induction.py -p at_least=best --out induction.cert
mechverify prove proofs/induction.py -p weights=mine.safetensors -p others=any -p token=0 -p earliest=3 -p latest=3
"""

from itertools import pairwise

from sympy import Eq, Ne, Piecewise

from mechverify import Accuracy, count, distinct, tokens, transformer

SHIPPED = "toy_models/weights/induction_of_6_seed0.safetensors"


def claim(weights=SHIPPED, others="distinct", token=None, earliest="0", latest=None, at_least="1"):
    """`token`: the repeated one (None: any), which stands first at a position from `earliest` to `latest`."""
    model = transformer(weights)
    n, vocab = model.n_ctx, model.d_vocab
    repeated = [*range(vocab)] if token is None else [int(token)]
    *rest, last = x = tokens("x", length=n, vocab=vocab, allowed=[[*range(vocab)]] * (n - 1) + [repeated])
    answer = sum(Piecewise((b, Eq(a, last)), (0, True)) for a, b in pairwise(rest))
    start, stop = int(earliest), n - 2 if latest is None else int(latest) + 1
    given = [Eq(count(last, *rest[start:stop]), 1), *(Ne(a, last) for a in rest[:start] + rest[stop:])]
    given += [distinct(*rest)] if others == "distinct" else []
    return Accuracy(model.logits[-1], equals=answer, over=x, given=given, at_least=at_least)
