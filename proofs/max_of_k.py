"""The model's answer at the last position is the largest of its input tokens.

mechverify prove proofs/max_of_k.py -p weights=mine.safetensors -p at_least=best --out max.cert
"""

from sympy import Max

from mechverify import Accuracy, tokens, transformer


def claim(weights="toy_models/weights/max_of_10_seed0.safetensors", at_least="0.998"):
    model = transformer(weights)
    x = tokens("x", length=model.n_ctx, vocab=model.d_vocab)
    return Accuracy(model.logits[-1], equals=Max(*x), over=x, at_least=at_least)
