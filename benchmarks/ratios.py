"""Several heads, two layers, and what stands behind one layer of attention: what rules ratios, nested and mixtures
certify of models whose accuracy is known, and of where their heads look, and how long search and check take.

    python benchmarks/ratios.py [--quick] [--only PART ...]
    python benchmarks/ratios.py --cell     # the figures of the one cell that docs/ratios.md explains

Parts: heads, repetitions, looking (where heads look), palindromes, behind (layer norms and MLPs). Exit code 1 if a
target is missed. Of max of 4 the accuracy is enumerated in float64; of longer sequences a million inputs are sampled.
Models of other numbers of heads are trained here, by seed. Shared models are left out where they are not there.
--quick: the shorter ones, and fewer steps of training.
"""

import argparse
import sys
import tempfile
import time
from math import perm
from pathlib import Path

import numpy as np
import sympy
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.board import Board, timed
from benchmarks.real_models import Normed
from mechverify import Accuracy, capture, load, prove, tokens
from mechverify.claims.domain import Tokens
from mechverify.graph.adapters import load as load_module
from mechverify.kernel import check
from mechverify.kernel.core.arithmetic import Ball
from mechverify.kernel.ratios.rule import Partition
from mechverify.provers.accuracy.problem import AccuracyProblem
from mechverify.provers.confirm import Outcome
from proofs import attention, induction, palindrome
from proofs.max_of_k import claim
from toy_models.max_of_k import path, train

SHARED = Path(__file__).parent.parent.parent / "shared" / "models"
BATCH = 2**16
PALINDROMES = 20_000  # that are sampled
NEAR, SHORT, LONG = 0.00005, 60.0, 300.0  # share, and seconds of search and check
SAMPLED = 0.002  # share below that of samples
CLOSE, LOOKS = 1.5, 0.99  # what a pattern's constant leaves, over what is left where search looked; of one position
SHIPPED = Path(__file__).parent.parent / induction.SHIPPED
ALL, WIDTH = 600.0, 0.005  # seconds for all lengths, and width of an accuracy


def right(weights: dict[str, torch.Tensor], x: torch.Tensor) -> int:
    """Inputs [number, length] on which the last position says their largest token, in float64."""
    h = weights["embed.W_E"][x] + weights["pos_embed.W_pos"]
    q, k, v = (torch.einsum("bnd,hde->bhne", h, weights[f"blocks.0.attn.W_{c}"]) for c in "QKV")
    pattern = (q[:, :, -1:] @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    out = torch.einsum("bhe,hed->bd", (pattern @ v)[:, :, 0], weights["blocks.0.attn.W_O"])
    return int((((h[:, -1] + out) @ weights["unembed.W_U"]).argmax(-1) == x.amax(1)).sum())


def accuracy(file: Path, samples: int | None) -> float:
    """The share of right inputs: of all, or of samples."""
    weights = {name: torch.from_numpy(a.astype(np.float64)) for name, a in load_file(file).items()}
    vocab, length = len(weights["embed.W_E"]), len(weights["pos_embed.W_pos"])
    size = vocab**length if samples is None else samples
    rng = torch.Generator().manual_seed(0)
    found = 0
    for start in range(0, size, BATCH):
        number = min(BATCH, size - start)
        if samples is None:
            index = torch.arange(start, start + number)
            x = torch.stack([index // vocab**i % vocab for i in reversed(range(length))], -1)
        else:
            x = torch.randint(vocab, (number, length), generator=rng)
        found += right(weights, x)
    return found / size


def share_of(done: Outcome) -> tuple[float, float]:
    """Between which shares that is checked again to lie; anything, where nothing was proved."""
    if done.certificate is None:
        return 0.0, 1.0
    theorem = check(done.certificate)
    return theorem.right.low / theorem.claim.total, theorem.right.high / theorem.claim.total


def certified(board: Board, what: str, file: Path, samples: int | None, limit: float) -> None:
    """A row for the share that is proved, and one for the time."""
    true = accuracy(file, samples)
    seconds, done = timed(lambda: prove(claim(file, at_least="best"), time_limit=limit))
    low, high = share_of(done)
    target = true - (NEAR if samples is None else SAMPLED)
    known = "enumerated" if samples is None else "sampled"
    board.row(f"{what}: share proved right", f"at least {target:.6f} ({known} {true:.6f})", f"{low:.6f}", low >= target)
    inside = samples is not None or low <= true <= high
    board.row(f"{what}: the truth lies between the bounds", known, f"{low:.6f} to {high:.6f}", inside)
    board.row(f"{what}: search and check", f"at most {limit:.0f} s", f"{seconds:.1f} s", seconds <= limit)


def cell() -> None:
    """Of the shipped model with two heads: last token 10, maximum 12, rival 17."""
    problem = AccuracyProblem.of(claim(str(path(4, 0, 2)), at_least="best"), "real")
    input_class = next(f for f in Partition(problem.job, problem.domain, []).classes() if f.key == (12,))
    here, ar = input_class.cell(10), problem.job.ar
    lead, factor = here.lead([17]), here.box.factor
    around = here.expansion((11, 12, 11, 10), [17])

    def of_all(terms: Ball) -> np.ndarray:
        return here._sums(terms.mid)[..., 0]  # [heads, inputs], without enclosures: for the picture

    mass = of_all(factor.at[..., None])
    ratio, rest = of_all(ar.mul(factor.at[..., None], lead.value)) / mass, of_all(around.rest)
    base = lead.base.mid[0]
    for what, value in {
        "inputs": here.size, "base": base, "least ratios": ratio.min(1), "least lead": base + ratio.sum(0).min(),
        "both heads at their least": base + ratio.min(1).sum(), "Z": np.stack([mass.min(1), mass.max(1)], 1),
        "R": np.stack([rest.min(1), rest.max(1)], 1), "R where the lead is not positive, at most":
        around._where_not_positive(np.arange(1)).mid[:, 0], "bounds of R / Z": around.ratio.mid[:, 0],
        "bound of step 1": around.total.mid[0], "bound of steps 2 and 3": around.linear(np.arange(1)).least[0],
    }.items():  # fmt: skip
        print(f"{what}: {np.array2string(np.asarray(value), precision=3, separator=', ')}")


def trained(folder: str, k: int, heads: int, steps: int) -> Path:
    file = Path(folder) / f"{heads}_{k}.safetensors"
    net = train(k, seed=0, steps=steps, heads=heads)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, file)
    return file


def repeated(board: Board, what: str, file: Path, inputs: int, **which: int) -> None:
    """Rows for a two-layer model that completes repetitions: whether it is proved on all `inputs`, and for the time."""
    claimed = induction.claim(file, others="any", **which)
    seconds, done = timed(lambda: prove(claimed, time_limit=LONG))
    if done.certificate is None:
        board.row(f"{what}: right inputs", f"{inputs:,}", done.verdict, False)
        return
    theorem = check(done.certificate)
    met = done.verdict == "PROVED" and theorem.right.low == theorem.claim.total == inputs
    board.row(f"{what}: right inputs", f"{inputs:,}", f"{theorem.right.low:,}", met)
    board.row(f"{what}: search and check, seconds", f"at most {LONG:g}", round(seconds, 1), seconds <= LONG)


def completed(board: Board, what: str, file: Path, inputs: int, least: float) -> None:
    """Rows for a two-layer model that completes repetitions among distinct tokens: of all `inputs` the share that is
    proved right, and the time."""
    claimed = induction.claim(file, at_least="best")
    seconds, done = timed(lambda: prove(claimed, time_limit=LONG))
    target = f"at least {least:g} of {inputs:,}"
    if done.certificate is None:
        board.row(f"{what}: share proved right", target, done.verdict, False)
        return
    theorem = check(done.certificate)
    share = theorem.right.low / theorem.claim.total
    figure = f"{share:.5f}, at most {theorem.right.high / theorem.claim.total:.5f} (rules {[*theorem.rules]})"
    board.row(f"{what}: share proved right", target, figure, theorem.claim.total == inputs and share >= least)
    board.row(f"{what}: search and check, seconds", f"at most {LONG:g}", round(seconds, 1), seconds <= LONG)


def patterns(board: Board, what: str, file: Path, length: int, heads: int) -> None:
    """Each head of the first layer on the token before, at every position: the best constant, and what is reached."""
    worst, begun = 1.0, time.monotonic()
    for head in range(heads):
        for position in range(1, length):
            proved, reached = attended(file, length=length, head=head, position=position)
            worst = max(worst, (1 - proved) / max(1 - reached, 1e-12))
    seconds = time.monotonic() - begun
    figure = f"{worst:.4f} ({heads * (length - 1)} entries, {seconds:.1f} s)"
    board.row(f"{what}, token before: what is left, proved over reached", f"at most {CLOSE:g}", figure, worst <= CLOSE)


def attended(file: Path, **which: int | str) -> tuple[float, float]:
    """An entry of a pattern: at least how much is proved, and reached."""
    done = prove(attention.claim(file, **which), time_limit=SHORT)
    assert done.theorem is not None and done.theorem.attained is not None
    return float(done.theorem.range.low[0]), float(done.theorem.attained.high.min())


def bits(n: int) -> Tokens:
    """An odd number of bits between two marks."""
    return tokens("x", length=n + 2, vocab=4, allowed=[[2], *[range(2)] * n, [3]])


def said(x: Tokens) -> sympy.Expr:
    """The majority."""
    return sympy.Piecewise((1, sum(x[1:-1]) > (len(x) - 2) // 2), (0, True))


def published(n: int, at_least: str) -> Accuracy:
    """The majority of n bits, by a model in GPT-2 names whose vocabulary has two tokens more."""
    model = load(SHARED / "decompiled-majority.safetensors", n_heads=1, length=n + 2)
    x = tokens("x", length=n + 2, vocab=model.d_vocab, allowed=bits(n).allowed)
    return Accuracy(model.logits[-1], equals=said(x), over=x, at_least=at_least)


def majorities(board: Board, quick: bool) -> None:
    """Rows for layer norm, a GELU MLP and a final layer norm behind one layer of attention, at every odd length."""
    lengths = range(1, 152, 30 if quick else 2)
    found, spent = {}, 0.0
    for n in lengths:
        seconds, done = timed(lambda n=n: prove(published(n, "1"), time_limit=LONG))
        spent += seconds
        found[n] = done.verdict
        if done.certificate is not None:
            theorem = check(done.certificate)
            assert theorem.verdict == done.verdict
            assert done.verdict == "PROVED" or len(theorem.tokens), "a refutation without an input"
    decided = sum(v in ("PROVED", "REFUTED") for v in found.values())
    proved = sum(v == "PROVED" for v in found.values())
    figure = f"{decided}: {proved} right everywhere, {decided - proved} refuted"
    board.row("majority of n bits, odd n up to 151: lengths decided", len(lengths), figure, decided == len(lengths))
    board.row("majority: search and check of all, seconds", f"at most {ALL:g}", round(spent, 1), spent <= ALL)
    for n in (47,) if quick else (47, 99, 151):
        seconds, done = timed(lambda n=n: prove(published(n, "best"), time_limit=LONG))
        low, high = share_of(done)
        figure = f"{low:.8f} to {high:.8f} in {seconds:.1f} s"
        board.row(f"majority of {n}: width of the accuracy", f"at most {WIDTH:g}", figure, high - low <= WIDTH)


def palindromes(board: Board, quick: bool) -> None:
    """A two-layer model of others that says whether twenty tokens between two marks are a palindrome: how many sampled
    palindromes it accepts, and whether it accepts all that are, and rejects all others."""
    file = SHARED / "arena-palindrome.safetensors"
    if not file.exists():
        return
    module, seeded = load_module(file).module.double(), torch.Generator().manual_seed(0)
    half = torch.randint(31, (PALINDROMES, 10), generator=seeded)

    def lead(ids: torch.Tensor) -> torch.Tensor:
        """Of saying that they are palindromes."""
        with torch.no_grad():
            return module(ids)[:, -1] @ torch.tensor([-1.0, 1.0], dtype=torch.float64)

    marks = torch.tensor([[31], [32]]).repeat(1, PALINDROMES)[..., None]
    sampled = lead(torch.cat([marks[0], half, half.flip(1), marks[1]], 1))
    figure = f"{int((sampled > 0).sum()):,} of {PALINDROMES:,}, least lead {sampled.min():.2f}"
    board.row("arena-palindrome accepts sampled palindromes", "for information", figure, True)
    for of, says, number in (("palindromes", 1, 31**10), ("others", 0, 31**20 - 31**10)):
        claimed = palindrome.claim(file, of=of)
        seconds, done = timed(lambda claimed=claimed: prove(claimed, time_limit=SHORT))
        figure, met = f"{done.verdict} in {seconds:.1f} s", False
        if done.certificate is not None:
            theorem = check(done.certificate)
            worst = (1 if says else -1) * lead(torch.from_numpy(theorem.tokens))
            figure += f", {len(worst)} wrong of {theorem.claim.total:,}, least lead {worst.min():.2f}"
            met = theorem.verdict == "REFUTED" and theorem.claim.total == number
        board.row(f"arena-palindrome says {says} of all {of}", f"refuted, of {number:,}", figure, met)


def own(board: Board, n: int, heads: int, width: int, samples: int) -> None:
    """Rows for the same layers, trained here; of short sequences the accuracy is enumerated, else sampled."""
    torch.manual_seed(heads)
    net, x = Normed(4, n + 2, width, heads), bits(n)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)

    def drawn(number: int) -> torch.Tensor:
        """Half of them near the middle."""
        ones = n // 2 + torch.randint(-2, 4, (number, 1))
        near = torch.rand(number, n).argsort(1) < ones
        some = torch.where(torch.arange(number)[:, None] % 2 == 0, near, torch.rand(number, n) < 0.5).long()
        return torch.cat([torch.full((number, 1), 2), some, torch.full((number, 1), 3)], 1)

    def truth(ids: torch.Tensor) -> torch.Tensor:
        return (ids[:, 1:-1].sum(1) > n // 2).long()

    for _ in range(600):
        ids = drawn(512)
        loss = torch.nn.functional.cross_entropy(net(ids), truth(ids))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval()
    ids = torch.cartesian_prod(*map(torch.tensor, x.allowed)) if 2**n <= samples else drawn(samples)
    with torch.no_grad():
        net.double()
        true = sum(int((net(some).argmax(1) == truth(some)).sum()) for some in ids.split(BATCH)) / len(ids)
        net.float()
    captured = capture(net, torch.zeros(1, n + 2, dtype=torch.long), vocab=4)
    claimed = Accuracy(captured["output"], equals=said(x), over=x, at_least="best")
    seconds, done = timed(lambda: prove(claimed, time_limit=LONG))
    low, high = share_of(done)
    known = "enumerated" if 2**n <= samples else "of samples near the middle"
    what = f"majority of {n}, {heads} heads, layer norms, GELU, trained here"
    inside = 2**n > samples or low <= true <= high
    figure = f"{low:.6f} to {high:.6f} in {seconds:.1f} s"
    board.row(what, f"within {WIDTH:g}; {true:.6f} {known}", figure, high - low <= WIDTH and inside)


def heads(board: Board, quick: bool) -> None:
    """One layer of attention, one to eight heads: the largest of so many tokens."""
    samples = 100_000 if quick else 1_000_000
    certified(board, "max of 4, 2 heads, shipped", path(4, 0, 2), None, SHORT)
    for name, count, limit in (("max4-4heads", None, SHORT), ("max10-2heads", samples, LONG)):
        if (file := SHARED / f"{name}.safetensors").exists() and not (quick and limit > SHORT):
            certified(board, name, file, count, limit)
    with tempfile.TemporaryDirectory() as folder:
        for number in (8,) if quick else (1, 2, 4, 8):
            file = trained(folder, 4, number, 600 if quick else 3_000)
            certified(board, f"max of 4, {number} heads, trained here", file, None, SHORT)
        for number in () if quick else (2, 8):
            file = trained(folder, 10, number, 3_000)
            certified(board, f"max of 10, {number} heads, trained here", file, samples, LONG)


def repetitions(board: Board, quick: bool) -> None:
    """Two layers that complete repetitions."""
    if (file := SHARED / "gbmi-induction8.safetensors").exists():
        repeated(board, "gbmi-induction8, token 0 at 3 and 7", file, 25**6, token=0, earliest=3, latest=3)
        if quick:
            repeated(board, "gbmi-induction8, token 0 at 1 to 5", file, 5 * 25**6, token=0, earliest=1)
        else:
            repeated(board, "gbmi-induction8, any token at 1 to 5", file, 26 * 5 * 25**6, earliest=1)
    for name, number, length, least in (("induction6-2heads", 16, 6, 1.0), ("induction8-1head", 16, 8, 0.999)):
        if (file := SHARED / f"{name}.safetensors").exists() and not quick:
            completed(board, name, file, (length - 2) * perm(number, length - 1), least)


def looking(board: Board, quick: bool) -> None:
    """Where the heads of such models look."""
    some = (("induction6-2heads", 6, 2), ("induction8-1head", 8, 1), ("gbmi-induction8", 8, 1))
    for name, length, number in some[-1:] if quick else some:
        if (file := SHARED / f"{name}.safetensors").exists():
            patterns(board, name, file, length, number)
    patterns(board, "induction of 6, shipped", SHIPPED, 6, 1)
    if (file := SHARED / "gbmi-induction8.safetensors").exists():
        low, reached = attended(file, length=8, layer=1, position=7, source=4, repeated="3,7")
        figure = f"{low:.6f} (reached {reached:.6f})"
        board.row("gbmi-induction8, layer 1 on position 4", f"at least {LOOKS}", figure, low >= LOOKS)


def behind(board: Board, quick: bool) -> None:
    """Layer norms and an MLP behind attention."""
    if (SHARED / "decompiled-majority.safetensors").exists():
        majorities(board, quick)
    for n, width in ((15, 16),) if quick else ((15, 16), (41, 32)):
        for number in (1, 2):
            own(board, n, number, width, 100_000 if quick else 1_000_000)


PARTS = {f.__name__: f for f in (heads, repetitions, looking, palindromes, behind)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cell", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts; nothing is kept then")
    options = parser.parse_args()
    if options.cell:
        cell()
        return 0
    board = Board("several heads, two layers")
    for name in options.only or PARTS:
        PARTS[name](board, options.quick)
    return board.finish("ratios", options.quick or bool(options.only))


if __name__ == "__main__":
    sys.exit(main())
