"""How a transformer finds the largest token: it attends more to larger tokens, and copies what it attends to.

mechverify prove proofs/max_of_k_inside.py --out scores.cert           # by how much a score grows with the token
mechverify prove proofs/max_of_k_inside.py -p what=copies -p least=8   # by how much a token's own logit leads
"""

from typing import Literal

from mechverify import Bounds, Mod, load, tokens

WEIGHTS = "toy_models/weights/max_of_4_seed0.safetensors"


def claim(weights=WEIGHTS, what: Literal["scores", "copies"] = "scores", position=0, least=0, at_least=""):
    model, start = load(weights, normalization=None), int(least)
    score, copied, vocab = model.qk(0, 0, query=-1, key=int(position))[0], model.ov(0, 0)[0], model.d_vocab
    x = tokens("x", length=1, vocab=vocab, allowed=None if what == "scores" else range(start, vocab))
    steps = [score[t + 1] - score[t] for t in range(start, vocab - 1)]
    margins = [copied[x[0]] - copied[Mod(x[0] + d, vocab)] for d in range(1, vocab)]
    return Bounds(steps if what == "scores" else margins, over=x, at_least=at_least or None)
