"""A network of two tokens adds them modulo p: how it does so is in modular_addition_inside.py.

mechverify prove proofs/modular_addition.py --out margin.cert                   # the smallest margin of all pairs
mechverify prove proofs/modular_addition.py -p what=accuracy --semantics float32
"""

from typing import Literal

from mechverify import Accuracy, Bounds, Mod, capture, pair_mlp, tokens
from mechverify.graph.adapters import load

WEIGHTS = "toy_models/weights/add_mod_59_seed0.safetensors"


def claim(weights=WEIGHTS, what: Literal["margin", "accuracy"] = "margin", at_least="0"):
    if what == "accuracy":
        network = pair_mlp(weights)
        x = tokens("x", length=2, vocab=network.d_vocab)
        return Accuracy(network.logits, equals=Mod(x[0] + x[1], network.d_vocab), over=x, at_least=1)
    adapted = load(weights)
    model = capture(adapted.module, adapted.example)
    p, logits = model.captured.vocab, model["logits"]
    x = tokens("x", length=2, vocab=p)
    right = logits[Mod(x[0] + x[1], p)]
    return Bounds([right - logits[Mod(x[0] + x[1] + d, p)] for d in range(1, p)], over=x, at_least=at_least)
