"""What parts of a model are for: circuits that agree with it, and parts with another input's value.

A claim of this kind is a Share or Bounds of a module that runs both side by side (graph/interventions.py).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor, nn

from mechverify.claims.agreement import (
    ARGMAX,
    Agrees,
    Module,
    called,
    condition_of,
    example_of,
    network_of,
)
from mechverify.claims.bounds import Bounds
from mechverify.claims.domain import Token, Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.model import CapturedModel, capture
from mechverify.claims.share import Share
from mechverify.graph import interventions
from mechverify.graph.interventions import Part, Places
from mechverify.graph.source import CaptureError

MEAN, RESAMPLE = "mean", "resample"
AVERAGED = 2**18  # inputs that a mean is taken over
BATCH = 2**12

Patch = float | str | Mapping[str, Any]


def parts(path: str, count: int, *, axis: int = -1, dims: int = 2) -> dict[str, Part]:
    """A part `path.i` for each index i along an axis of what the submodule at `path` returns for one input, which has
    `dims` axes: neurons of `blocks.0.mlp.hidden` [position, neuron] (dims=1 where a model returns [neuron]); heads of
    `blocks.0.attn.z` [position, head, d_head] with axis=1, dims=3."""
    at = axis % dims
    return {f"{path}.{i}": Part(path, (*[slice(None)] * at, i)) for i in range(count)}


class Circuits:
    """The circuits of a model: any of its `parts` are kept, and the others patched.

    `parts`: names and entries of submodules' outputs; no two share one. What is in no part is kept. `patch`: a number;
    "mean", the mean over all inputs `over`; "resample", the value at another input, of which claims then say the same
    for every pair; or for each path an array that is broadcast to what the submodule returns. `over` and `given` are
    the inputs, as of Share; `row` says which row of an output [positions, entries] is compared. Raises ClaimError.

    The model has as many tokens more as there are parts: a part is kept where its token isn't 0. A circuit is thus a
    set of inputs, and one graph serves all of them.
    """

    def __init__(
        self, model: Module, parts: Mapping[str, Part], *, over: Tokens, patch: Patch = 0.0, row: int | None = None,
        given: Any = (),
    ):  # fmt: skip
        if not isinstance(over, Tokens):
            raise ClaimError("Circuits needs over=tokens(...)")
        if len(over.values) < 2:
            raise ClaimError("Circuits needs a vocabulary of at least two tokens")
        if not isinstance(parts, Mapping) or not all(
            isinstance(n, str) and isinstance(p, Part) for n, p in parts.items()
        ):
            raise ClaimError(
                'parts= takes a mapping of names to Part(path, index), as parts("mlp.act", 8, dims=1) makes one'
            )
        self.over, self.row = over, row
        self.patch = patch
        self.given = list(given) if isinstance(given, list | tuple) else [given]
        self.given += over.given
        self.parts = {name: _plain(model, part) for name, part in parts.items()}
        if not self.parts:
            raise ClaimError(
                "Circuits needs parts: Circuits(model, parts(path, count), ...)"
            )
        self._module = network_of(model)
        self.name = type(self._module).__name__
        with _said(self.name):
            self._places = Places(self._module, self.parts, [example_of(over)])

    @property
    def names(self) -> list[str]:
        return [*self.parts]

    @cached_property
    def captured(self) -> CapturedModel:
        """Both runs: sites "output.agreement", "output.difference", "output.model" and "output.other"."""
        module = self.module
        found = capture(
            module, example_of(self._domain(self.names)), vocab=len(self.over.values)
        )
        last = len(self._domain(None)) - 1
        first = last - len(self.parts) + 1
        which = f"x{first} to x{last} say what is kept: {', '.join(self.names)}"
        return replace(found, source=f"{self.name} and its circuits; {which}")

    @cached_property
    def module(self) -> nn.Module:
        """Of ids: the model's tokens, those of another input where it is resampled, and one for each part."""
        with _said(self.name):
            return interventions.Ablated(
                self._module,
                self._places,
                len(self.over),
                len(self.over.values),
                self._constants(),
                self.row,
            ).eval()

    def _constants(self) -> dict[str, Tensor] | None:
        places, patch = self._places, self.patch
        if not isinstance(patch, float | int | str | Mapping) or (
            isinstance(patch, str) and patch not in (MEAN, RESAMPLE)
        ):
            raise ClaimError(
                f"patch={patch!r:.60}: a number, arrays by path, {MEAN!r} or {RESAMPLE!r}"
            )
        if patch == RESAMPLE:
            return None
        if patch == MEAN:
            if self.given:
                raise ClaimError(
                    'patch="mean" is over all inputs, and given= leaves some: give patch={path: array}'
                )
            if self.over.size > AVERAGED:
                what = f'patch="mean": {self.over.size:,} inputs are too many to take a mean over'
                raise ClaimError(
                    f"{what}: take it over samples, and give patch={{path: array}}"
                )
            ids = _every(self.over)
            return interventions.means(
                self._module, places, ([b] for b in ids.split(BATCH))
            )
        given = (
            patch if isinstance(patch, Mapping) else dict.fromkeys(places.paths, patch)
        )
        given = {_name(self._module, path): value for path, value in given.items()}
        if set(given) != set(places.paths):
            raise ClaimError(
                f"patch has values for {', '.join(given)}; the parts stand at {', '.join(places.paths)}"
            )
        return {path: self._constant(path, value) for path, value in given.items()}

    def _constant(self, path: str, value: Any) -> Tensor:
        shape, dtype = self._places.shapes[path], self._places.dtypes[path]
        try:
            exact = torch.as_tensor(np.asarray(value, np.float64))
            there = exact.broadcast_to(shape)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ClaimError(
                f"patch of {path}, which returns {shape}: {str(error).splitlines()[0]}"
            ) from None
        if not torch.equal(there.to(dtype).double(), there):
            raise ClaimError(
                f"patch of {path} holds numbers that aren't {dtype}, as the model's are: round them first"
            )
        return there.to(dtype).contiguous()

    # --- claims

    def agree(
        self, keep: Iterable[str] | None, *, agrees: Agrees = ARGMAX, at_least: Any = 1
    ) -> Share:
        """On at least a share `at_least` (None: the best bounds) of the inputs, what is left of the model when only
        `keep` are kept agrees with it: the same entry is the only largest of both outputs ("argmax"), or no entry
        differs by more than a number. `keep=None`: every circuit, on that share of all circuits and inputs. Raises
        ClaimError."""
        condition = condition_of(self.captured, agrees)
        return Share(
            condition,
            over=self._domain(keep),
            at_least=at_least,
            given=self._conditions(),
        )

    def differ(self, keep: Iterable[str], *, at_most: Any = None) -> Bounds:
        """No entry of the output differs by more than `at_most` (None: the least that can be proved)."""
        if self.given:
            raise ClaimError("differ has no given=: ask agree(keep, agrees=eps)")
        return Bounds(
            self.captured["output.difference"], over=self._domain(keep), at_most=at_most
        )

    @property
    def described(self) -> dict[str, str]:
        """Each part's name, and its entries."""
        return {name: str(part) for name, part in self.parts.items()}

    def ids(self, inputs: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Tokens of the two runs: of inputs [number, length] (with another input's tokens where that is resampled) and
        booleans [number, parts]."""
        return np.concatenate([inputs, kept.astype(np.int64)], 1)

    @property
    def inputs(self) -> Tokens:
        """The model's own tokens, and those of another input where it is resampled."""
        times = 2 if self.patch == RESAMPLE else 1
        return Tokens(self.over.name, self.over.values, [*self.over.allowed] * times)

    def _domain(self, keep: Iterable[str] | None) -> Tokens:
        keep = [keep] if isinstance(keep, str) else keep and [*keep]
        if unknown := [name for name in keep or [] if name not in self.parts]:
            raise ClaimError(
                f"keep: no part {', '.join(map(str, unknown))}; there are {', '.join(self.names)}"
            )
        masks = [[0, 1] if keep is None else [int(name in keep)] for name in self.names]
        return Tokens(self.over.name, self.over.values, [*self.inputs.allowed, *masks])

    def _conditions(self) -> list[Any]:
        own = self.given
        if self.patch != RESAMPLE:
            return own
        n = len(self.over)
        moved = {x: Token(f"{self.over.name}{n + i}") for i, x in enumerate(self.over)}
        return own + [sympy.sympify(c).xreplace(moved) for c in own]


def interchanged(
    model: Module, part: Part, *, over: Tokens, source: Tokens | None = None
) -> tuple[CapturedModel, Tokens]:
    """The model in which `part` has the value that it has for another input, and its domain: the tokens of the one and
    then of the other, which are `over` as well, or of `source`. A claim Accuracy says what it computes then. Raises
    ClaimError."""
    network, part = network_of(model), _plain(model, part)
    source = over if source is None else source
    if over.given or source.given:
        raise ClaimError(
            "interchanged takes one product of token sets, not a union: say in given= of the claim which are meant"
        )
    if (len(source), source.values) != (len(over), over.values):
        raise ClaimError(
            f"source= has {len(source)} tokens of {len(source.values)} ids, over= {len(over)} of {len(over.values)}: "
            "both are inputs of one model"
        )
    name = f"{called(model)} with {part} of another input"
    with _said(name):
        places = Places(network, {"part": part}, [example_of(over)])
    both = Tokens(over.name, over.values, [*over.allowed, *source.allowed])
    module = interventions.Interchanged(network, places).eval()
    found = capture(module, example_of(both), vocab=len(over.values))
    return replace(found, source=name), both


def _plain(model: Module, part: Part) -> Part:
    return replace(part, path=_name(model, part.path))


def _name(model: Any, path: str) -> str:
    """TransformerLens's `hook_` may be kept or left out, as elsewhere."""
    known = dict(network_of(model).named_modules())
    return path if path in known else path.replace("hook_", "")


def _every(over: Tokens) -> Tensor:
    """All inputs [number, length]."""
    return torch.tensor(list(product(*over.allowed)), dtype=torch.long)


@contextmanager
def _said(name: str) -> Iterator[None]:
    try:
        yield
    except CaptureError as error:
        raise ClaimError(f"{name}: {error}") from None
