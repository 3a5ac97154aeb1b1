"""The range of each attention score of a trained transformer, over all sequences of tokens: exact, as a score depends
on two tokens.

mechverify prove proofs/scores.py -p weights=mine.safetensors -p site=blocks.0.attn.pattern --out scores.cert
"""

from mechverify import Bounds, load, tokens


def claim(weights="toy_models/weights/max_of_4_seed0.safetensors", site="blocks.0.attn.attn_scores"):
    model = load(weights, normalization=None)
    x = tokens("x", length=model.length, vocab=model.d_vocab)
    return Bounds(model[site], over=x)
