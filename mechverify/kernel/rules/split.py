"""Rule `split`: a token set at one position is cut in two; the bounds of the halves add up."""

from mechverify.kernel.errors import Rejected
from mechverify.kernel.fields import Reader
from mechverify.kernel.job import Domain


def children(domain: Domain, witness: Reader) -> tuple[tuple[Domain, Reader], ...]:
    """The two parts with their proofs. The parts are derived here, not listed: they cover the domain and
    are disjoint whatever `first` says; neither may be empty. Complexity: the size of the sets."""
    position = witness.integer("position", 0, domain.length - 1)
    halves = domain.split(position, set(witness["first"].integers()))
    if not halves[0].size or not halves[1].size:
        raise Rejected("a split leaves one half empty")
    proofs = witness["inside"], witness["outside"]
    witness.close()
    return tuple(zip(halves, proofs, strict=True))
