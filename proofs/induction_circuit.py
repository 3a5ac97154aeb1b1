"""Which parts of a two-layer model complete a repetition: at which positions each layer's head is needed, on every
sequence, if what it mixes elsewhere is set to zero.

mechverify circuits proofs/induction_circuit.py --minimal cardinal              # the fewest: 6 of 12
mechverify prove proofs/induction_circuit.py -p keep=0@1,0@2,0@3,0@4,1@5 -p at_least=best   # how often these are enough
"""

from sympy import Eq, Ne

from mechverify import Circuits, Part, count, distinct, load, tokens

SHIPPED = "toy_models/weights/induction_of_6_seed0.safetensors"


def circuits(weights=SHIPPED, length=6):
    """Part `layer@position`: what that layer's head mixes there. The last token repeats one that isn't right before."""
    model, n = load(weights, length=int(length), normalization=None), int(length)
    *rest, last = x = tokens("x", length=n, vocab=model.d_vocab)
    given = [distinct(*rest), Eq(count(last, *rest[:-1]), 1), Ne(rest[-1], last)]
    heads = {f"{layer}@{i}": Part(f"blocks.{layer}.attn.z", i) for layer in (0, 1) for i in range(n)}
    return Circuits(model, heads, over=x, row=-1, given=given)


def claim(keep="0@1,0@2,0@3,0@4,0@5,1@5", at_least="1", weights=SHIPPED, length=6):
    return circuits(weights, length).agree([name for name in keep.split(",") if name], at_least=at_least)
