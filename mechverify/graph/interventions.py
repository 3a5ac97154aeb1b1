"""Interventions as torch modules: forward hooks put other values where a part of a model stands.

What is compared is a module as well, of both runs side by side, so that it is captured and compared with its graph as
any module is; what both runs have in common is computed once, as the graph's nodes are hash-consed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mechverify.graph.source import CaptureError

Values = Mapping[str, Tensor]  # by a submodule's path: what it returns, or is to return


@dataclass(frozen=True)
class Part:
    """Entries `index` of what the submodule at `path` returns for one input (without the batch axis), as torch indexes
    them: `Part("blocks.0.attn.z", (slice(None), 2))` is what head 2 mixes, at every position."""

    path: str
    index: Any = ...

    def __str__(self) -> str:
        return self.path if self.index is ... else f"{self.path}[{_shown(self.index)}]"


def _shown(index: Any) -> str:
    if isinstance(index, tuple):
        return ", ".join(map(_shown, index))
    if isinstance(index, slice):
        ends = ("" if i is None else str(i) for i in (index.start, index.stop))
        return ":".join(ends) + ("" if index.step is None else f":{index.step}")
    return "..." if index is ... else str(index)


class Places(nn.Module):
    """Where the parts of a model stand: for each path, booleans [parts, *shape] of what is returned there. Raises
    CaptureError where there is no such submodule, no such entry, or two parts share one."""

    def __init__(
        self, model: nn.Module, parts: Mapping[str, Part], example: list[Tensor]
    ):
        super().__init__()
        self.paths = list(dict.fromkeys(part.path for part in parts.values()))
        for path in self.paths:
            if inside := [p for p in self.paths if p.startswith(f"{path}.")]:
                raise CaptureError(
                    f"{inside[0]} is inside {path}: parts of both overlap; name one of them"
                )
        several = [torch.cat([x, x, x]) for x in example]
        with torch.no_grad():
            returned = recorded(model, self.paths, several)
        self.names = list(parts)
        self.shapes = {path: tuple(value.shape[1:]) for path, value in returned.items()}
        self.dtypes = {path: value.dtype for path, value in returned.items()}
        self.selected: dict[str, Tensor] = {}
        for path, shape in self.shapes.items():
            which = torch.zeros(len(parts), *shape, dtype=torch.bool)
            for k, (name, part) in enumerate(parts.items()):
                if part.path == path:
                    _select(which[k], name, part)
            if (which.sum(0) > 1).any():
                both = [n for n, w in zip(parts, which, strict=True) if w.any()]
                raise CaptureError(
                    f"parts {', '.join(both)} share entries of {path}: tell them apart"
                )
            self.selected[path] = which

    def kept(self, path: str, kept: Tensor) -> Tensor:
        """Of numbers [batch, parts], one where a part is kept and zero where it isn't, those of the entries that the
        submodule returns: [batch, *shape]; one for what is in no part."""
        which = self.selected[path].to(kept.dtype)
        flat = which.reshape(len(which), -1)
        rest = 1 - flat.sum(0)
        return (kept @ flat + rest).reshape(len(kept), *which.shape[1:])


def _select(where: Tensor, name: str, part: Part) -> None:
    try:
        where[part.index] = True
    except (IndexError, TypeError) as error:
        what = f"part {name}: {part} of shape {tuple(where.shape)}"
        raise CaptureError(f"{what}: {str(error).splitlines()[0]}") from None
    if not where.any():
        raise CaptureError(
            f"part {name}: {part} of shape {tuple(where.shape)} has no entries"
        )


def recorded(
    model: nn.Module, paths: list[str], inputs: list[Tensor]
) -> dict[str, Tensor]:
    """What submodules return when the model is called. Raises CaptureError for a path that names none, or one that
    isn't called once, or doesn't return one tensor of real numbers."""
    found: dict[str, list[Any]] = {path: [] for path in paths}

    def record(path: str) -> Callable[..., None]:
        return lambda module, args, output: found[path].append(
            output.clone() if isinstance(output, Tensor) else output
        )  # a copy: what comes after may change it in place

    with _hooked(model, {path: record(path) for path in paths}):
        model(*inputs)
    batch = len(inputs[0])
    for path, values in found.items():
        if len(values) != 1:
            raise CaptureError(
                f"{path} is called {len(values)} times: name a submodule that is called once"
            )
        if not (isinstance(values[0], Tensor) and values[0].is_floating_point()):
            raise CaptureError(
                f"{path} doesn't return one tensor of real numbers: name a submodule that does"
            )
        if values[0].shape[:1] != (batch,):
            raise CaptureError(
                f"{path} returns {tuple(values[0].shape)} for a batch of {batch}: name a submodule that returns the "
                "batch's axis first"
            )
    return {path: values[0] for path, values in found.items()}


@contextmanager
def _hooked(
    model: nn.Module, hooks: Mapping[str, Callable[..., Any]]
) -> Iterator[None]:
    known = dict(model.named_modules())
    with ExitStack() as stack:
        for path, hook in hooks.items():
            if path not in known or not path:
                near = [
                    name
                    for name in known
                    if name.rpartition(".")[2] == path.rpartition(".")[2]
                ]
                listed = ", ".join((near or [name for name in known if name])[:12])
                raise CaptureError(
                    f"the model has no submodule {path!r}; it has: {listed}"
                )
            stack.enter_context(_handle(known[path], hook))
        yield


@contextmanager
def _handle(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def patched(
    model: nn.Module, places: Places, kept: Tensor, values: Values, inputs: list[Tensor]
) -> Any:
    """What the model returns where, of the parts that aren't kept, the values stand that are given. `kept`: [batch,
    parts], between zero and one."""

    fired: list[str] = []

    def patch(path: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            fired.append(path)
            keep = places.kept(path, kept.to(output.dtype))
            return output * keep + (1 - keep) * values[path]

        return hook

    with _hooked(model, {path: patch(path) for path in places.paths}):
        returned = model(*inputs)
    if sorted(fired) != sorted(places.paths):
        raise CaptureError(
            f"submodules are called another number of times when they are patched: {fired}"
        )
    return returned


def leads(x: Tensor) -> Tensor:
    """By how much each of at least two entries exceeds the largest other one: [..., n] to [..., n]."""
    n = x.shape[-1]
    differences = (x[..., :, None] - x[..., None, :]).flatten(-2)
    others = differences[..., 1:].unflatten(-1, (n - 1, n + 1))[
        ..., :-1
    ]  # without each entry and itself
    return others.reshape(*x.shape, n - 1).amin(-1)


def agreement(a: Tensor, b: Tensor) -> Tensor:
    """More than zero where one entry is the only largest of both vectors [..., n]; elsewhere not."""
    return torch.minimum(leads(a), leads(b)).amax(-1)


class Compared(nn.Module):
    """Both runs' outputs, and how they compare. `row`: of an output that is a matrix, the one that is read."""

    def __init__(self, row: int | None):
        super().__init__()
        self.row = row

    def forward(self, first: Any, second: Any) -> dict[str, Tensor]:
        first, second = self._vector(first), self._vector(second)
        if first.shape != second.shape:
            shapes = f"{tuple(first.shape[1:])} and {tuple(second.shape[1:])}"
            raise CaptureError(f"outputs of shapes {shapes} can't be compared")
        found = {
            "model": first,
            "other": second,
            "difference": (first - second).abs().amax(-1),
        }
        if first.shape[-1] > 1:
            found["agreement"] = agreement(first, second)
        return found

    def _vector(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise CaptureError(
                "the model returns several values: give a module that returns the one to compare"
            )
        shape = tuple(output.shape[1:])
        if len(shape) == 2 and self.row is not None:
            return output[:, self.row]
        if len(shape) != 1:
            hint = "; say which row is compared, as row=-1" if len(shape) == 2 else ""
            raise CaptureError(
                f"the model's output has shape {shape}, which is not one vector{hint}"
            )
        return output


class Ablated(nn.Module):
    """A model, and beside it what is left of it: of token ids [batch, length (+ length of another input) + parts], the
    last say which parts are kept (0: not), the others are the model's; where `constants` is None, what isn't kept has
    the values of the other input."""

    def __init__(
        self,
        model: nn.Module,
        places: Places,
        length: int,
        vocab: int,
        constants: Values | None,
        row: int | None,
    ):
        super().__init__()
        self.model, self.places, self.length = model, places, length
        self.constants = None if constants is None else dict(constants)
        self.compared = Compared(row)
        dtype = next(iter(places.dtypes.values()), torch.float64)
        self.register_buffer("is_kept", torch.arange(vocab).clamp(max=1).to(dtype))

    is_kept: Tensor

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        own, others, masks = ids.tensor_split(
            [self.length, ids.shape[1] - len(self.places.names)], dim=1
        )
        values = self.constants
        if values is None:
            values = recorded(self.model, self.places.paths, [others])
        return self.compared(
            self.model(own),
            patched(self.model, self.places, self.is_kept[masks], values, [own]),
        )


class Interchanged(nn.Module):
    """A model's output for the first half of its token ids, where the part has the value of the second half."""

    def __init__(self, model: nn.Module, places: Places):
        super().__init__()
        self.model, self.places = model, places

    def forward(self, ids: Tensor) -> Any:
        base, source = ids.chunk(2, dim=1)
        values = recorded(self.model, self.places.paths, [source])
        kept = values[self.places.paths[0]].new_zeros(len(ids), len(self.places.names))
        return patched(self.model, self.places, kept, values, [base])


class Twins(nn.Module):
    """Two models of the same inputs, side by side; or, with `before` and `after`, one whose inputs are moved first, and
    the other whose outputs are moved afterwards."""

    def __init__(
        self, first: nn.Module, second: nn.Module, row: int | None,
        before: Callable[..., Tensor] | None = None, after: Tensor | None = None,
    ):  # fmt: skip
        super().__init__()
        self.first, self.second, self.compared = first, second, Compared(row)
        self.before = before
        self.register_buffer("after", after)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        moved = inputs if self.before is None else [self.before(x) for x in inputs]
        second = self.second(*inputs)
        return self.compared(
            self.first(*moved),
            second if self.after is None else second[..., self.after],
        )


def means(
    model: nn.Module, places: Places, batches: Iterator[list[Tensor]]
) -> dict[str, Tensor]:
    """Of what the submodules return, over all inputs of the batches, added up in float64 and rounded to the type that
    each returns."""
    sums: dict[str, Tensor | float] = defaultdict(float)
    count = 0
    with torch.no_grad():
        for inputs in batches:
            for path, value in recorded(model, places.paths, inputs).items():
                sums[path] = sums[path] + value.double().sum(0)
            count += len(inputs[0])
    return {
        path: torch.as_tensor(s / count).to(places.dtypes[path])
        for path, s in sums.items()
    }
