"""Where a head looks, on every sequence: the share of its attention that one position gets, at least and at most.

mechverify prove proofs/attention.py                              # the first layer's previous-token head, at position 3
mechverify prove proofs/attention.py -p position=5 -p at_least=0.02
mechverify prove proofs/attention.py -p weights=two_layers.safetensors -p layer=1 -p position=7 -p source=4
"""

from mechverify import Bounds, load, tokens


def claim(weights="toy_models/weights/induction_of_6_seed0.safetensors", length=6, layer=0, head=0, position=3,
          source=None, at_least=None, repeated=None):  # fmt: skip
    """`source`: the position that is looked at, by default the one before; `repeated`: positions (`3,7`) that hold
    token 0, which stands nowhere else."""
    model = load(weights, length=int(length), normalization=None)
    position = int(position)
    source = position - 1 if source is None else int(source)
    same = [int(i) for i in repeated.split(",")] if repeated else []
    everything, others = range(model.d_vocab), range(1, model.d_vocab)
    allowed = [([0] if i in same else others) if same else everything for i in range(int(length))]
    x = tokens("x", length=int(length), vocab=model.d_vocab, allowed=allowed)
    pattern = model[f"blocks.{layer}.attn.pattern"]
    return Bounds(pattern[int(head), position, source], over=x, at_least=at_least)
