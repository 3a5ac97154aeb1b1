"""At its last position the model says whether the sum of its tokens is negative, zero or positive.

mechverify prove proofs/running_sum.py -p length=20 --semantics float32 --out sum.cert    # all 11^20 inputs
mechverify prove proofs/running_sum.py -p length=6 -p margin=best --out margin.cert       # and by how much it is right
"""

from sympy import sign

from mechverify import Accuracy, tokens, transformer


def claim(weights="toy_models/weights/running_sum_seed0.safetensors", length=20, margin="0", at_least="1"):
    model = transformer(weights, act_fn="relu")
    reach = model.d_vocab // 2  # ids 0 .. reach, then -reach .. -1
    values = [*range(reach + 1), *range(-reach, 0)]
    x = tokens("x", length=length, vocab=model.d_vocab, values=values)
    return Accuracy(model.logits[-1], equals=sign(sum(x)) + 1, over=x, at_least=at_least, margin=margin)
