"""A model that says whether the tokens between two marks are a palindrome: on all that are, and on all that aren't.

mechverify prove proofs/palindrome.py -p weights=arena-palindrome.safetensors
mechverify prove proofs/palindrome.py -p weights=arena-palindrome.safetensors -p of=others
mechverify prove proofs/palindrome.py -p weights=mine.safetensors -p half=3 -p vocab=9

For models as in the monthly challenges of ARENA: tokens 0 to vocab - 3, a mark before them and one behind, of the last
two ids; the last position says 1 for a palindrome. No weights are shipped.
"""

from sympy import Eq, Not, Or

from mechverify import Accuracy, load, tokens


def claim(weights, of="palindromes", half=10, vocab=33, at_least=1):
    """`of`: what the claim is about, palindromes, which the model accepts, or others, which it rejects; `half`: so many
    pairs of tokens; `vocab`: tokens and two marks."""
    length, values = 2 * int(half) + 2, int(vocab) - 2
    model = load(weights, length=length)
    allowed = [[values], *[range(values)] * (length - 2), [values + 1]]
    x = tokens("x", length=length, vocab=int(vocab), allowed=allowed)
    pairs = [Eq(x[i], x[length - 1 - i]) for i in range(1, int(half) + 1)]
    given, says = {"palindromes": (pairs, 1), "others": ([Or(*map(Not, pairs))], 0)}[of]
    return Accuracy(model.logits[-1], equals=says, over=x, given=given, at_least=at_least)
