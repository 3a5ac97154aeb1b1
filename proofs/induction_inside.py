"""What the heads of an induction model carry: values of one input put into runs on others say what comes out.

mechverify prove proofs/induction_inside.py                  # the last position's mix says what followed in ITS input
mechverify prove proofs/induction_inside.py -p what=rest     # as strong as the rest ever is, over all other inputs
mechverify prove proofs/induction_inside.py -p what=previous -p at_least=best   # a head's mix says what stood before
"""

from itertools import pairwise
from typing import Literal

import torch
from sympy import And, Eq, Ne, Piecewise
from torch import nn

from mechverify import Accuracy, Mod, Part, Share, capture, count, distinct, interchanged, load, lookup, tokens

SHIPPED = "toy_models/weights/induction_of_6_seed0.safetensors"
LOW = [-10.9, -11.2, -19.6, -7.7, -10.8, -7.7, -4.3, -14.2]  # of the logits without the last mix
HIGH = [-0.4, -1.1, -6.4, -0.7, -2.1, 1.3, 2.0, -3.9]


class Terms(nn.Module):
    """The two terms of the last logits, sites of [vocab]: what the last head's mix adds, and the rest."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, ids):
        model = self.model
        rest = model.blocks[0](model.embed(ids) + model.pos_embed(ids))
        return {"rest": model.unembed(rest)[:, -1], "mixed": model.blocks[1].attn(rest)[:, -1] @ model.unembed.W_U}


def repetition(x):
    """... a b ... a, and b."""
    *rest, last = x
    followed = sum(Piecewise((b, Eq(a, last)), (0, True)) for a, b in pairwise(rest))
    return [distinct(*rest), Eq(count(last, *rest[:-1]), 1), Ne(rest[-1], last)], followed


def claim(weights=SHIPPED, what: Literal["followed", "rest", "previous"] = "followed", position=1, at_least="1"):
    model = load(weights, normalization=None)
    n, vocab, i = model.n_ctx, model.d_vocab, int(position)
    x = tokens("x", length=n, vocab=vocab)
    if what == "previous":  # an input without a repetition, and layer 0's mix from one that had the last token before
        source = tokens("x", length=n, vocab=vocab, allowed=[[*range(vocab)]] * (i + 1) + [[0]] * (n - 1 - i))
        moved, xy = interchanged(model, Part("blocks.0.attn.z", i), over=x, source=source)
        given = [distinct(*x), Eq(xy[n + i - 1], x[-1]), distinct(*xy[n : n + i + 1])]
        return Accuracy(moved["output"][-1], equals=xy[i], over=xy, given=given, at_least=at_least)
    terms = capture(Terms(model.module).eval(), torch.zeros(1, n, dtype=torch.long), vocab=vocab)
    (given, answer), mixed = repetition(x), terms["output.mixed"]
    if what == "rest":
        inside = [c for low, r, high in zip(LOW, terms["output.rest"], HIGH, strict=True) for c in (low < r, r < high)]
        return Share(And(*inside), over=x, given=given, at_least=at_least)
    right, *others = (Mod(answer + d, vocab) for d in range(vocab))
    leads = [mixed[right] + lookup(LOW, right) > mixed[b] + lookup(HIGH, b) for b in others]
    return Share(And(*leads), over=x, given=given, at_least=at_least)
