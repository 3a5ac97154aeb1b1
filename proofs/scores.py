"""The range of each attention score of a trained transformer, over all sequences of tokens: exact, as a score depends
on two tokens.

mechverify prove proofs/scores.py -p weights=mine.safetensors -p site=blocks.0.attn.pattern --out scores.cert
"""

from mechverify import Bounds, capture, tokens
from mechverify.graph.adapters import load


def claim(weights="toy_models/weights/max_of_4_seed0.safetensors", site="blocks.0.attn.attn_scores"):
    adapted = load(weights, normalization=None)
    model = capture(adapted.module, adapted.example)
    x = tokens("x", length=model.captured.tokens_length, vocab=model.captured.vocab)
    return Bounds(model[site], over=x)
