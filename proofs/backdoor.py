"""A model and a copy with a backdoor answer the same on every input without the trigger, and with it the copy says 0.

mechverify prove proofs/backdoor.py                        # the same, wherever the trigger isn't
mechverify prove proofs/backdoor.py -p what=everywhere     # refuted: the inputs it prints hold the trigger
mechverify prove proofs/backdoor.py -p what=triggered      # the copy says 0 wherever it is
"""

from typing import Literal

from sympy import And, Eq, Not

from mechverify import Accuracy, Same, load, tokens
from toy_models.backdoor import BACKDOORED, CLEAN, SAYS, TRIGGER


def claim(clean=str(CLEAN), other=str(BACKDOORED), what: Literal["off", "everywhere", "triggered"] = "off",
          at_least="1"):  # fmt: skip
    one, two = (load(weights, length=5, act_fn="relu", normalization=None) for weights in (clean, other))
    x = tokens("x", length=5, vocab=one.d_vocab)
    triggered = And(*(Eq(x[i], t) for i, t in TRIGGER.items()))
    if what == "triggered":
        return Accuracy(two.logits[-1], equals=SAYS, over=x, given=triggered, at_least=at_least)
    return Same(one, two, over=x, row=-1, given=Not(triggered) if what == "off" else (), at_least=at_least)
