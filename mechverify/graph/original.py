"""The module as it was given, in its own types, called by plain torch: what a graph is compared with.

The comparison decides no verdict: it finds errors. A graph speaks of real numbers and a module rounds, so that they
differ by rounding: 8 units of the type in a site's largest entry are always allowed. Where they differ by more, it is
measured how far rounding errors of that type, put into the exported program at random, move the site at this very
input, and 16 times as much is allowed: much where the module itself is ill-conditioned, as `(x + 2**25) - 2**25` is in
float32.
"""

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mechverify.graph.export import (
    Recorder,
    copied,
    inference,
    named,
    quiet,
    real_arithmetic,
)
from mechverify.graph.program import Program, Rounding
from mechverify.graph.run import TorchRunner
from mechverify.graph.source import CaptureError

UNITS = 8  # of the type's eps in the largest entry, that a site may differ by
MODES = {False: "without gradients", True: "with gradients"}
RUNS, TIMES = (
    6,
    16,
)  # how often rounding is tried, and how much more than the most that it does is allowed


class Compared(NamedTuple):
    """On how many inputs; and where graph and module differ most of a site's size (the larger of one and its largest
    entry): by how much, and how much was allowed there."""

    dtype: str
    inputs: int
    difference: float
    tolerance: float

    def joined(self, other: "Compared") -> "Compared":
        most = max(self, other, key=lambda c: c.difference)
        return most._replace(inputs=self.inputs + other.inputs)


class Original:
    """The module's copy and its inputs' types."""

    def __init__(self, module: nn.Module, call: Callable, examples: list[Tensor]):
        parameters = [p.dtype for p in module.parameters() if p.is_floating_point()]
        self.recorder, self.plain, self.call = (
            Recorder(copied(module), call),
            copied(module),
            call,
        )
        self.types = [t.dtype for t in examples]
        try:
            self._call(examples)
        except CaptureError:
            raise
        except Exception as error:
            self.types = [
                parameters[0] if t.is_floating_point and parameters else t
                for t in self.types
            ]
            try:
                self._call(examples)
            except Exception:
                text = f"{type(error).__name__}: {error}".splitlines()[0]
                raise CaptureError(
                    f"the module fails when it is called on the example: {text:.300}"
                ) from error
        buffers = [b.dtype for b in module.buffers() if b.is_floating_point()]
        reals = [t for t in self.types if t.is_floating_point]
        floats = [*parameters, *reals] or buffers or [torch.get_default_dtype()]
        self.dtype = max(floats, key=lambda t: torch.finfo(t).eps)

    def examples(self, tensors: list[Tensor]) -> list[Tensor]:
        return [
            t.to("cpu", dtype, copy=True)
            for t, dtype in zip(tensors, self.types, strict=True)
        ]

    def _call(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        with (
            inference(),
            quiet(),
            torch.compiler.set_stance("force_eager"),
        ):  # what is compiled passes over hooks
            values = self.recorder(*self.examples(inputs))
        return dict(zip(self.recorder.notes()[1], values, strict=True))

    def ways(self, inputs: list[Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """How the module is called, and what sites hold then: step by step, with hooks that see every submodule's
        output, and as its user calls it, where torch may take its fast paths (which pass over hooks)."""
        yield "step by step", self._call(inputs)
        for gradients in (False, True):
            with torch.set_grad_enabled(gradients), quiet():
                try:
                    outputs = dict(
                        named(
                            "output",
                            self.call(self.plain, self.examples(inputs)),
                            first=False,
                        )
                    )
                except Exception as error:
                    text = f"{type(error).__name__}: {error}".splitlines()[0]
                    raise CaptureError(
                        f"the module fails {MODES[gradients]}: {text:.300}"
                    ) from error
            yield (
                MODES[gradients],
                {name: value.detach().clone() for name, value in outputs.items()},
            )


class Comparison:
    """Of a captured graph with its module. `names`: sites in the order in which they were computed, with their nodes
    in the program."""

    def __init__(
        self,
        original: Original,
        program: Program,
        names: dict[str, Any],
        run: TorchRunner,
        sites: dict,
    ):
        self.original, self.program, self.run, self.sites = (
            original,
            program,
            run,
            sites,
        )
        self.names = {name: node for name, node in names.items() if name in sites}

    def __call__(self, batches: list[Tensor]) -> Compared:
        """At inputs [number, ...], one after another; raises at the first site that differs."""
        batches = [
            t.to(dtype) for t, dtype in zip(batches, self.original.types, strict=True)
        ]
        exact = [t.double() if t.is_floating_point() else t for t in batches]
        reals = [t for t in exact if t.is_floating_point()]
        tokens = next(
            (t.long().numpy() for t in exact if not t.is_floating_point()), None
        )
        computed = self.run.many(
            [self.sites[name] for name in self.names], tokens, reals
        )
        most = Compared(str(self.original.dtype), 0, 0.0, 0.0)
        for k in range(len(batches[0])):
            values = {
                name: torch.as_tensor(computed[self.sites[name]][k])
                for name in self.names
            }
            one = [t[k : k + 1] for t in batches]
            if all(bool(torch.isfinite(t).all()) for t in one if t.is_floating_point()):
                most = most.joined(self._at(one, [t[k : k + 1] for t in exact], values))
        return most

    def _at(
        self, inputs: list[Tensor], exact: list[Tensor], values: dict[str, Tensor]
    ) -> Compared:
        dtype, noise = self.original.dtype, None
        eps = torch.finfo(dtype).eps
        most = Compared(str(dtype), 1, 0.0, 0.0)
        ways = [(way, given, name) for way, given in self.original.ways(inputs) for name in values
                if way == "step by step" or name.split(".")[0] == "output"]  # fmt: skip
        for way, given, name in ways:
            value = values[name]
            if name not in given or given[name].numel() != value.numel():
                raise CaptureError(
                    f"the module computes {name} on some inputs alone: a graph is the same for every input"
                )
            own = given[name].double().reshape(value.shape)
            known = torch.isfinite(value) & ~(
                ~torch.isfinite(own) & (value.abs() > torch.finfo(dtype).max)
            )
            if not bool(known.any()):
                continue
            size = max(1.0, float(value[known].abs().max()))
            difference, allowed = _most((own - value)[known]) / size, UNITS * eps
            if not difference <= allowed:
                noise = self._noise(exact) if noise is None else noise
                moved = noise[name].reshape(value.shape)
                known &= torch.isfinite(moved)
                if not bool(known.any()):
                    continue
                difference = _most((own - value)[known]) / size
                allowed = max(allowed, TIMES * _most(moved[known]) / size)
                if not difference <= allowed:
                    raise CaptureError(self._differs(name, way, difference, allowed))
            if difference >= most.difference:
                most = most._replace(
                    difference=difference, tolerance=min(allowed, sys.float_info.max)
                )
        return most

    def _noise(self, exact: list[Tensor]) -> dict[str, Tensor]:
        """How far rounding in the module's type moves each site, the most of RUNS tries; infinite if out of range."""
        nodes = list(self.names.values())
        with inference(), real_arithmetic():
            plain = self.program(exact, nodes)
            spread = [torch.zeros_like(p) for p in plain]
            for seed in range(RUNS):
                tried = self.program(exact, nodes, Rounding(self.original.dtype, seed))
                pairs = zip(spread, tried, plain, strict=True)
                spread = [
                    torch.maximum(s, (t - p).abs().nan_to_num(math.inf, math.inf))
                    for s, t, p in pairs
                ]
        return dict(zip(self.names, spread, strict=True))

    def _differs(self, name: str, way: str, difference: float, allowed: float) -> str:
        kind = str(self.original.dtype).removeprefix("torch.")
        if way in MODES.values():
            return (
                f"called {way}, the module returns something else at {name} than step by step: {difference:.3g} of its "
                f"size, where rounding explains {allowed:.3g}. In a transformer with masked positions it is torch's "
                "fast path: call torch.backends.mha.set_fastpath_enabled(False), here and where the module is used"
            )
        return (
            f"the graph differs from the module, called as it is in {kind}, first at {name}: by {difference:.3g} of "
            f"its size, where rounding explains {allowed:.3g}. Either the module isn't a function of its inputs alone, "
            "or it rounds, wraps or jumps in a way that a graph of real numbers doesn't; if neither, please report it"
        )


def _most(a: Tensor) -> float:
    return float(a.abs().nan_to_num(math.inf, math.inf).max())
