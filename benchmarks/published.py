"""What "Compact Proofs of Model Performance via Mechanistic Interpretability" (Gross et al. 2024, arXiv 2406.11779)
reports, from its authors' results: bound over true accuracy, mean over models (151 at K=4), and FLOPs at K=4."""

from typing import NamedTuple


class Published(NamedTuple):
    """`strategies`: name prefixes of ours that count as this family; `bounds` by K, at K=4 before a later fix of the
    authors' verifier (after which their search was not repeated), at other K as published last; `flops` at K=4, the
    least of those reported."""

    name: str
    strategies: tuple[str, ...]
    bounds: dict[int, float]
    flops: float


PUBLISHED = (
    Published("cubic", ("cubic",), {4: 0.954, 5: 0.942, 10: 0.915, 20: 0.888}, 3.5e7),
    Published("subcubic", ("subcubic",), {4: 0.821, 5: 0.702, 10: 0.673, 20: 0.563}, 2.5e6),
    Published("low-rank QK", ("lowrank-qk",), {4: 0.795, 5: 0.682, 10: 0.658, 20: 0.549}, 2.75e6),
    Published("low-rank EU", ("lowrank-eu",), {4: 0.653, 5: 0.649, 10: 0.640, 20: 0.540}, 2.2e6),
    Published("low-rank QK and EU", ("lowrank-qk-eu",), {4: 0.628, 5: 0.629, 10: 0.626, 20: 0.528}, 2.5e6),
    Published("quadratic QK", ("quadratic-qk",), {4: 0.390, 5: 0.354, 10: 0.393, 20: 0.323}, 2.2e6),
    Published("quadratic QK and EU", ("quadratic-qk-eu",), {4: 0.286, 5: 0.336, 10: 0.391, 20: 0.322}, 2.0e6),
)


def published_of(strategy: str) -> Published | None:
    """The family with the longest prefix that fits."""
    fits = [(len(p), f.name) for f in PUBLISHED for p in f.strategies if strategy == p or strategy.startswith(f"{p}-")]
    return next((f for f in PUBLISHED if fits and f.name == max(fits)[1]), None)


def cubic_cost(k: int) -> float:
    """The cubic proof's FLOPs: its stated complexity is vocabulary^3 K^2."""
    return PUBLISHED[0].flops * (k / 4) ** 2


def marks(k: int) -> list[tuple[str, float, float]]:
    """Points for the picture; costs are known at K=4 alone."""
    return [(f.name, f.flops, f.bounds[4]) for f in PUBLISHED] if k == 4 else []
