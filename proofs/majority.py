"""At its last position the model says which of three candidates has the most votes, or that nobody leads alone.

mechverify prove proofs/majority.py -p length=20 --semantics float32 --out majority.cert    # all 3^20 inputs
mechverify prove proofs/majority.py -p length=9 -p margin=best --out margin.cert            # and by how much
"""

from sympy import Max, Piecewise

from mechverify import Accuracy, count, tokens, transformer


def claim(weights="toy_models/weights/majority_seed0.safetensors", length=20, margin="0", at_least="1"):
    model = transformer(weights, act_fn="relu")
    x = tokens("x", length=length, vocab=model.d_vocab)
    a, b, c = (count(candidate, *x) for candidate in range(3))
    leader = Piecewise((0, a > Max(b, c)), (1, b > Max(a, c)), (2, c > Max(a, b)), (3, True))
    return Accuracy(model.logits[-1], equals=leader, over=x, at_least=at_least, margin=margin)
