"""A transformer with layer norm sorts a list: while it writes, one head looks up from the number written last.

mechverify prove proofs/sorted_list.py -p weights=sorted-list.safetensors --out up.cert       # by how much
mechverify prove proofs/sorted_list.py -p weights=... -p position=16 -p least=12 -p at_least=0
At an output position the query token is the number written last, q. The claim: the next number q + 1 scores higher than
any number from 0 to q, wherever they stand in the list.
"""

from sympy import Max, Min

from mechverify import Bounds, load, tokens


def claim(weights, head=1, position=14, least=7, most=45, length=10, at_least=""):
    model = load(weights)
    score = model.qk(0, head, query=position, key=range(length))
    x = tokens("x", length=1, vocab=model.d_vocab, allowed=range(least, most + 1))
    lowest, highest = (score.captured[name] for name in ("lowest", "highest"))
    gaps = [lowest[0, Min(x[0] + 1, most + 1)] - highest[0, Max(x[0] - d, 0)] for d in range(most + 1)]
    return Bounds(gaps, over=x, at_least=at_least or None)
