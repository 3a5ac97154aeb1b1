"""Where the last token stands once before, the model's answer there is the token that followed it.

mechverify prove proofs/induction.py -p weights=mine.safetensors -p token=0 -p position=3 --out induction.cert
"""

from sympy import Eq, Ne, Piecewise

from mechverify import Accuracy, count, tokens, transformer


def claim(weights, token=None, position=None, earliest="0", at_least="1"):
    """Any token, first at any position from `earliest` on; or `token`; or that one, at `position`. The others are any
    but the repeated one."""
    model = transformer(weights)
    n, vocab = model.n_ctx, model.d_vocab
    allowed = [[*range(vocab)] for _ in range(n)]
    if token is not None:
        allowed[-1] = [int(token)]
    if position is not None:
        at, others = int(position), [t for t in range(vocab) if t != int(token)]
        allowed = [[int(token)] if i in (at, n - 1) else others for i in range(n)]
        x = tokens("x", length=n, vocab=vocab, allowed=allowed)
        return Accuracy(model.logits[-1], equals=x[at + 1], over=x, at_least=at_least)
    x = tokens("x", length=n, vocab=vocab, allowed=allowed)
    follows = sum(Piecewise((x[j + 1], Eq(x[j], x[-1])), (0, True)) for j in range(n - 2))
    once = [Eq(count(x[-1], *x[:-1]), 1), Ne(x[-2], x[-1]), *(Ne(x[i], x[-1]) for i in range(int(earliest)))]
    return Accuracy(model.logits[-1], equals=follows, over=x, given=once, at_least=at_least)
