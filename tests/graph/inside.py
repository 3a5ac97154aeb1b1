"""Whether what the kernel proves of a module's site holds what the module itself computes there, on samples."""

import copy
import random
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from mechverify import Bounds, ball, capture, kernel, prove, tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.model import CapturedModel
from mechverify.graph.export import real_arithmetic

METHODS = ("interval", "linear", "optimised")
ROUNDED = 2.0**-40  # of a site's size: what the float64 copy may lie outside by
SHORT = 2.0**11  # eps of the module's own type, of a site's size: the module itself
ALONE = 200  # inputs of a module that can't take many at a time


class Trial(NamedTuple):
    """`refused`: why the module, or the claim, isn't taken, else "". `site`: what was bounded; `finite`: the share of
    its entries with two finite bounds; `outside`: of the samples, by how much the worst lies outside beyond what
    rounding explains, relative to the site's size (at most zero: all inside); `parted`: how far the module's own type
    and float64 differ at most; `samples`: inputs that were computed."""

    refused: str
    site: str = ""
    finite: float = 0.0
    outside: float = 0.0
    parted: float = 0.0
    samples: int = 0


def trial(
    module: nn.Module, inputs: tuple[Tensor, ...], vocab: int | None, seed: int, count: int, batched: bool = True
) -> Trial:
    """Capture, prove bounds of one of the module's sites around the example by a cheap method, check them with the
    kernel, and compute the site by the module at `count` inputs: all at once if `batched`, and if the module can."""
    rng = random.Random(seed)
    try:
        model = capture(module, *inputs, vocab=vocab)
    except ClaimError as error:
        return Trial(str(error))
    radius = rng.choice([0.02, 0.1, 0.5])
    site = rng.choice(_sites(module, model))
    try:
        claim = Bounds(model[site], over=_domain(model, inputs, radius))
        outcome = prove(claim, method=rng.choice(METHODS), solver=False, time_limit=2)
    except ClaimError as error:
        return Trial(str(error))
    if outcome.certificate is None:
        return Trial("; ".join(outcome.reasons) or "nothing was proved")
    proved = kernel.check(outcome.certificate, limit=float("inf")).range
    points = _points(inputs, model.captured.vocab, radius, count, seed)
    try:
        own = _values(module, site, points, batched)
    except RuntimeError:  # a module for one input at a time: fewer of them
        batched, points = False, [p[:ALONE] for p in points]
        own = _values(module, site, points, batched)
    epsilon = torch.finfo(own.dtype)
    with mock.patch.object(torch, "finfo", lambda _: epsilon), real_arithmetic():  # the same function there
        exact = _values(_in_float64(module), site, [p.double() if p.is_floating_point() else p for p in points],
                        batched)  # fmt: skip
    dtype = own.dtype
    own = own.double()
    low, high = (torch.as_tensor(np.array(end)) for end in proved)
    finite = torch.isfinite(exact)
    size = max(1.0, float(exact[finite].abs().max()) if bool(finite.any()) else 0.0)
    slacks = ROUNDED * size, SHORT * torch.finfo(dtype).eps * size
    beyond = [float((torch.maximum(low - v, v - high) - slack)[finite & torch.isfinite(v)].max())
              for v, slack in zip((exact, own), slacks, strict=True) if bool((finite & torch.isfinite(v)).any())]  # fmt: skip
    both = torch.isfinite(low) & torch.isfinite(high)
    known = finite & torch.isfinite(own)
    parted = float((own - exact)[known].abs().max()) / size if bool(known.any()) else 0.0
    worst = max(beyond, default=-1.0) / size
    return Trial("", site, float(both.double().mean()), worst, parted, len(own))


def _in_float64(module: nn.Module) -> nn.Module:
    """A copy; an eps that torch takes from the type stays that of the module's own."""
    twin = copy.deepcopy(module)
    for m in twin.modules():
        if isinstance(m, nn.RMSNorm) and m.eps is None:
            m.eps = torch.finfo(m.weight.dtype).eps
    return twin.double()


def _sites(module: nn.Module, model: CapturedModel) -> list[str]:
    """The output, as likely as all others together, and what submodules return."""
    paths = {name for name, _ in module.named_modules() if name}
    outputs = [name for name in model.sites if name.split(".")[0] == "output"][:1]
    others = [
        name
        for name in model.sites
        if name in paths and "parametrizations" not in name and np.prod(model.shape(name)) <= 100
    ]
    return outputs * max(len(others), 1) + others


def _domain(model: CapturedModel, inputs: tuple[Tensor, ...], radius: float) -> Any:
    captured = model.captured
    ids = tokens("x", length=captured.tokens_length, vocab=captured.vocab) if captured.vocab else None
    reals = [x.reshape(shape).double() for x, shape in zip(
        [x for x in inputs if x.is_floating_point()], captured.inputs, strict=True)]  # fmt: skip
    if not reals:
        return ids
    return ball(reals, radius).with_tokens(ids) if ids else ball(reals, radius)


def _points(inputs: tuple[Tensor, ...], vocab: int, radius: float, count: int, seed: int) -> list[Tensor]:
    """Inside the domain; corners, and points of faces, as often as points within."""
    generator = torch.Generator().manual_seed(seed)
    points = []
    for x in inputs:
        shape = count, *x.shape[1:]
        if x.is_floating_point():
            steps = (3 * torch.rand(shape, generator=generator) - 1.5).clamp(-1, 1)
            steps[: count // 4] = steps[: count // 4].sign()
            points.append(_inside(x, radius, (x.double() + radius * steps.double()).to(x.dtype)))
        else:
            points.append(torch.randint(vocab, shape, generator=generator).to(x.dtype))
    return points


def _inside(centre: Tensor, radius: float, points: Tensor) -> Tensor:
    """Points of a short type, of which rounding has left some just outside, moved back into the ball."""
    step = points.double() - centre.double()
    inwards = torch.where(step > radius, -torch.inf, torch.inf).to(points.dtype)
    return torch.where(step.abs() > radius, torch.nextafter(points, inwards), points)


def _values(module: nn.Module, site: str, points: list[Tensor], batched: bool) -> Tensor:
    """[number, entries] of a site, as it was when it was returned first."""
    seen: list[Tensor] = []
    part = dict(module.named_modules())["" if site.split(".")[0] == "output" else site]
    hook = part.register_forward_hook(lambda m, args, out: seen.append(_first(out).detach().clone()))
    rows = []
    try:
        with torch.no_grad():
            for one in [points] if batched else zip(*(p.split(1) for p in points), strict=True):
                seen.clear()
                module(*(p.clone() for p in one))
                rows.append(seen[0].reshape(len(one[0]), -1))
    finally:
        hook.remove()
    return torch.cat(rows)


def _first(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
