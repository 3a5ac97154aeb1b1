"""Captured models of the shapes that people ask about, decided exactly: rows of `benchmarks/shares.py --only models`.

Own networks are made and trained for a moment by this script, from a seed; those of `../shared/models` are read where
they are. Each is enumerated in torch in float64 as well: the theorem has to say the same, in at most RATIO times that
time and under SECONDS, search and check together.
"""

import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import sympy
import torch
from sympy import Mod
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.board import Board
from mechverify import Accuracy, Bounds, capture, lookup, prove, tokens
from mechverify.claims.domain import Tokens
from mechverify.graph.adapters import load

MODELS = Path(__file__).parent.parent.parent / "shared" / "models"
RATIO, SECONDS, LOADED = 20.0, 60.0, 30.0  # LOADED: of the low-precision model
FLOOR = 0.05  # seconds of an enumeration below which the ratio says nothing
STEPS, BATCH, RATE = 40, 512, 1e-3
CLOSE = 1e-6  # by how much a least lead may lie below the enumerated one


class Case(NamedTuple):
    """`module` reads ids [batch, length]; its answer is row `position` of the output (None: the output is a vector)."""

    what: str
    module: nn.Module
    over: Tokens
    equals: sympy.Basic
    position: int | None
    truth: Callable[[Tensor], Tensor]
    seconds: float = SECONDS


class Layer(nn.Module):
    """Attention and a ReLU MLP, each matrix applied as `x @ W.t()`."""

    def __init__(self, width: int, heads: int, mlp: int):
        super().__init__()
        self.heads = heads
        for name, out, into in (("qkv", 3 * width, width), ("out", width, width), ("up", mlp, width),
                                ("down", width, mlp)):  # fmt: skip
            setattr(self, name, nn.Parameter(torch.randn(out, into) / into**0.5))
        self.bias = nn.Parameter(torch.zeros(mlp))

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of attention: [batch, heads, length, length], and the values."""
        batch, length, width = x.shape
        split = (x @ self.qkv.t()).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        return self.normalised(q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5), v

    def normalised(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        pattern, v = self.weights(x)
        x = x + (pattern @ v).transpose(1, 2).reshape(x.shape) @ self.out.t()
        return x + (x @ self.up.t() + self.bias).relu() @ self.down.t()


class Sparse(Layer):
    """Attention by sparsemax (Martins and Astudillo 2016): relu(s - t), t = max_k (sum of the k largest - 1) / k."""

    def normalised(self, scores: Tensor) -> Tensor:
        largest = scores.sort(dim=-1, descending=True).values.cumsum(-1)
        threshold = ((largest - 1) / torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype)).amax(-1, keepdim=True)
        return (scores - threshold).relu()


class Transformer(nn.Module):
    def __init__(self, vocab: int, length: int, out: int, layers: int, width: int = 128, mlp: int = 512,
                 heads: int = 4, layer: type[Layer] = Layer):  # fmt: skip
        super().__init__()
        self.embed, self.place = nn.Embedding(vocab, width), nn.Parameter(torch.randn(length, width) / 4)
        self.layers = nn.Sequential(*(layer(width, heads, mlp) for _ in range(layers)))
        self.unembed = nn.Parameter(torch.randn(out, width) / width**0.5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layers(self.embed(ids) + self.place)[:, -1] @ self.unembed.t()


class Normed(nn.Module):
    """One layer with layer norm and GELU, as GPT-2 has them."""

    def __init__(self, vocab: int, length: int, width: int = 16, heads: int = 1):
        super().__init__()
        self.heads = heads
        self.embed, self.place = nn.Embedding(vocab, width), nn.Parameter(torch.randn(length, width) / 4)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in "qkvo")
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.place
        y = self.norms[0](x)
        q, k, v = (part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norms[1](x))
        return F.linear(self.norms[2](x), self.embed.weight)[:, -1]


class Pair(nn.Module):
    """An MLP that reads two tokens."""

    def __init__(self, vocab: int, width: int = 64, hidden: int = 256):
        super().__init__()
        self.left, self.right = nn.Embedding(vocab, width), nn.Embedding(vocab, width)
        self.mlp = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU(), nn.Linear(hidden, vocab))

    def forward(self, ids: Tensor) -> Tensor:
        return self.mlp(torch.cat([self.left(ids[:, 0]), self.right(ids[:, 1])], -1))


def trained(module: nn.Module, over: Tokens, truth: Callable[[Tensor], Tensor], steps: int = STEPS) -> nn.Module:
    """For a moment; which answers are right is counted, whatever they are."""
    ids = every(over)
    optimiser = torch.optim.Adam(module.parameters(), RATE)
    for _ in range(steps):
        some = ids[torch.randint(len(ids), (BATCH,))]
        loss = F.cross_entropy(module(some), truth(some))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval()


def every(over: Tokens) -> Tensor:
    """All inputs [number, length]."""
    return torch.cartesian_prod(*(torch.tensor(ids) for ids in over.allowed))


def adders() -> Iterable[Case]:
    for p, layers, fixed in ((59, 1, False), (59, 2, False), (59, 4, False), (113, 1, True)):
        torch.manual_seed(p + layers)
        allowed = [range(p), range(p), *([[p]] if fixed else [])]
        x = tokens("x", length=len(allowed), vocab=p + fixed, allowed=allowed)

        def truth(ids: Tensor, p: int = p) -> Tensor:
            return (ids[:, 0] + ids[:, 1]) % p

        module = trained(Transformer(p + fixed, len(allowed), p, layers), x, truth)
        yield Case(f"{p}-token adder, layers {layers}", module, x, Mod(x[0] + x[1], p), None, truth)


def sparse() -> Iterable[Case]:
    torch.manual_seed(6)
    x = tokens("x", length=6, vocab=4, allowed=[range(4), *[range(2)] * 5])

    def truth(ids: Tensor) -> Tensor:
        return ids.sum(1) % 4

    module = trained(Transformer(4, 6, 4, 2, width=16, mlp=32, heads=2, layer=Sparse), x, truth)
    yield Case("sparsemax attention, layers 2", module, x, Mod(sum(x), 4), None, truth)


def majority() -> Iterable[Case]:
    """Of an odd number of bits between two marks."""
    for bits in (5, 9):
        torch.manual_seed(bits)
        x = tokens("x", length=bits + 2, vocab=4, allowed=[[2], *[range(2)] * bits, [3]])

        def truth(ids: Tensor, bits: int = bits) -> Tensor:
            return (ids[:, 1:-1].sum(1) > bits // 2).long()

        said = sympy.Piecewise((1, sum(x[1:-1]) > bits // 2), (0, True))
        module = trained(Normed(4, bits + 2), x, truth, 4 * STEPS)
        yield Case(f"majority of {bits}, layer norm, GELU", module, x, said, None, truth)


def composition() -> Iterable[Case]:
    """Of two permutations of five, by a table."""
    torch.manual_seed(120)
    elements = list(permutations(range(5)))
    index = {p: i for i, p in enumerate(elements)}
    table = [index[tuple(a[i] for i in b)] for a in elements for b in elements]
    x, n = tokens("x", length=2, vocab=len(elements)), len(elements)

    def truth(ids: Tensor) -> Tensor:
        return torch.tensor(table)[ids[:, 0] * n + ids[:, 1]]

    module = trained(Pair(n), x, truth, 20 * STEPS)
    yield Case("S5 composition by a table", module, x, lookup(table, n * x[0] + x[1]), None, truth)


def low_precision() -> Iterable[Case]:
    """Another's: addition mod 113, right on 12,762 of 12,769 pairs."""
    name, p = "grokking-113-low-precision", 113
    if not (path := MODELS / f"{name}.safetensors").exists():
        return
    x = tokens("x", length=3, vocab=p + 1, allowed=[range(p), range(p), [p]])
    module = load(path, act_fn="relu", normalization=None).module
    yield Case(name, module, x, Mod(x[0] + x[1], p), -1, lambda ids: (ids[:, 0] + ids[:, 1]) % p, LOADED)


GROUPS = (adders, sparse, majority, composition, low_precision)


def models(board: Board, quick: bool, only: str = "") -> None:
    """Of every case the number of right inputs, and the least lead of these; of adders the range of every lead."""
    for group in GROUPS:
        for case in group():
            if only in case.what:
                _accuracy(board, case)
                if group is adders:
                    _leads(board, case)


def enumerated(case: Case) -> tuple[Tensor, float]:
    """The leads of the right answers over all others, in float64, and how long they took."""
    ids, module = every(case.over), case.module.double()
    rows = ids.shape[0]
    begun = time.perf_counter()
    with torch.no_grad():
        logits = module(ids)
    logits = logits if case.position is None else logits[:, case.position]
    right = case.truth(ids)[:, None]
    lead = logits.gather(1, right)[:, 0] - logits.scatter(1, right, -torch.inf).amax(1)
    seconds = time.perf_counter() - begun
    assert len(lead) == rows
    case.module.float()
    return lead, seconds


def _accuracy(board: Board, case: Case) -> None:
    lead, torch_seconds = enumerated(case)
    truth, least = int((lead > 0).sum()), float(lead[lead > 0].min())
    example = torch.tensor([[ids[0] for ids in case.over.allowed]])
    captured = capture(case.module, example, vocab=len(case.over.values))
    output = captured["output"] if case.position is None else captured["output"][case.position]
    what, share = f"{case.what}, {len(lead):,} inputs", Fraction(truth, len(lead))
    found = prove(Accuracy(output, equals=case.equals, over=case.over), time_limit=2 * case.seconds)
    low, high = (None, None) if found.theorem is None else found.theorem.right
    _row(board, case, f"{what}: right inputs", f"{truth}", f"{low} to {high}", low == high == truth, found,
         torch_seconds)  # fmt: skip
    found = prove(Accuracy(output, equals=case.equals, over=case.over, at_least=share, margin="best"),
                  time_limit=2 * case.seconds)  # fmt: skip
    margin = float(found.theorem.claim.margin) if found.verdict == "PROVED" else float("nan")
    _row(board, case, f"{what}: least lead of the right ones", f"{least:.9f}", f"{margin:.9f} {found.verdict}",
         least - CLOSE <= margin <= least + CLOSE, found, torch_seconds)  # fmt: skip


def _leads(board: Board, case: Case) -> None:
    """Of the right answer over each other one."""
    lead, torch_seconds = enumerated(case)
    example = torch.tensor([[ids[0] for ids in case.over.allowed]])
    site = capture(case.module, example, vocab=len(case.over.values))["output"]
    x, (p,) = case.over, site.shape
    leads = [site[Mod(x[0] + x[1], p)] - site[Mod(x[0] + x[1] + d, p)] for d in range(1, p)]
    found = prove(Bounds(leads, over=x), time_limit=2 * case.seconds)
    low = float("nan") if found.theorem is None else float(found.theorem.range.low.min())
    least = float(lead.min())
    _row(board, case, f"{case.what}, {len(lead):,} inputs: least of all leads", f"{least:.9f}", f"{low:.9f}",
         least - CLOSE <= low <= least + CLOSE, found, torch_seconds)  # fmt: skip


def _row(board: Board, case: Case, what: str, truth: str, figure: str, exact: bool, found, torch_seconds: float):
    seconds = found.search_seconds + found.check_seconds
    ratio = seconds / max(torch_seconds, FLOOR)
    target = f"{truth}, under {case.seconds:g} s and {RATIO:g} times torch ({max(torch_seconds, FLOOR):.2f} s)"
    figure = f"{figure}; {found.search_seconds:.1f} + {found.check_seconds:.1f} s, {ratio:.1f} times"
    board.row(what, target, figure, exact and seconds < case.seconds and ratio <= RATIO)
    if not exact:
        print("       ", "; ".join(found.reasons)[:400])
