"""Models as a claim sees them: sizes, and sites by the names that the field uses."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sympy
from safetensors.numpy import save
from torch import nn

from mechverify.claims.errors import ClaimError
from mechverify.graph.capture import Captured
from mechverify.graph.capture import capture as graph_of
from mechverify.graph.source import CaptureError
from mechverify.kernel import container
from mechverify.kernel.architectures import ARCHITECTURES
from mechverify.kernel.errors import Rejected
from mechverify.kernel.graph import Graph


class Entry(sympy.AtomicExpr):
    """One entry of a site, as a symbol: `model["pattern"][0, -1, 2]`. An index may be an integer expression of tokens.

    Entries are equal if they are of the same model, site and index."""

    is_commutative = is_extended_real = is_real = True

    def __new__(cls, model: "CapturedModel", site: str, index: tuple) -> "Entry":
        self = super().__new__(cls)
        self.model, self.site, self.index = model, site, tuple(sympy.sympify(i) for i in index)
        return self

    def _hashable_content(self) -> tuple:
        return id(self.model), self.site, self.index

    def _sympystr(self, printer: Any) -> str:
        return f"{self.site}[{', '.join(map(str, self.index))}]"


@dataclass(frozen=True)
class Site:
    """A named value inside the model, or one row of it: `model.logits[-1]`."""

    model: "Model | CapturedModel"
    name: str
    position: int | None = None

    def __getitem__(self, position: "int | tuple | sympy.Expr") -> "Site | Entry":
        """A row by one index, and an entry, as a symbol, by an index for each axis."""
        if isinstance(self.model, CapturedModel) and self.position is None:
            whole = position if isinstance(position, tuple) else (position,)
            shape = self.model.shape(self.name)
            if len(whole) == len(shape):
                return Entry(self.model, self.name, whole)
            if isinstance(position, tuple):
                raise ClaimError(f"{self.name}[{', '.join(map(str, whole))}]: the site has shape {shape}")
        if self.position is not None or not isinstance(position, int):
            raise ClaimError(f"{self.name}: index it with one position, as in {self.name}[-1]")
        return Site(self.model, self.name, position)


@dataclass(frozen=True)
class Model:
    """Weights, as the bytes of a safetensors file, of a known architecture."""

    architecture: str
    source: str
    data: bytes
    tensors: dict[str, np.ndarray]
    n_ctx: int
    d_vocab: int
    sites: tuple[str, ...]

    @property
    def logits(self) -> Site:
        return self["logits"]

    def __getitem__(self, name: str) -> Site:
        """A site by name; TransformerLens's `hook_` prefixes may be kept or left out."""
        plain = name.replace("hook_", "")
        if plain not in self.sites:
            raise ClaimError(f"{self.source} has no site {name!r}; it has: {', '.join(self.sites)}")
        return Site(self, plain)


def transformer(weights: str | Path, act_fn: str | None = None) -> Model:
    """A transformer without layer norm, from a safetensors file in TransformerLens names: attention-only, or with
    MLPs whose activation is `act_fn`, which weights don't tell; "relu" is known.

    Sizes are read off the shapes (W_Q [heads, d_model, d_head], ...); biases may be absent. Raises
    ClaimError if the file can't be read, holds NaN or infinity, or doesn't fit the architecture.
    """
    if act_fn not in (None, "relu"):
        raise ClaimError(f"act_fn={act_fn!r}: known is 'relu'; other networks go through capture(module, example)")
    return _known(f"transformer{'_relu' if act_fn else ''}", weights, "pos_embed.W_pos", "embed.W_E")


def pair_mlp(weights: str | Path) -> Model:
    """A network of two tokens, logits = relu([W_x[a], W_y[b]] W) W_U, from a safetensors file of these matrices.

    Raises ClaimError as `transformer` does."""
    return _known("pair_mlp", weights, None, "W_x")


def _known(architecture: str, weights: str | Path, positions: str | None, embedding: str) -> Model:
    path = Path(weights)
    try:
        data = path.read_bytes()
    except OSError as error:
        where = "" if path.is_absolute() else f" (looked for in {Path.cwd()}; give another with -p weights=FILE)"
        raise ClaimError(f"can't read weights {path}: {error.strerror or error}{where}") from None
    if data[:2] == b"PK" or data[:1] == b"\x80":
        what = "a pickle or a zip (torch.save, numpy), not a safetensors file"
        raise ClaimError(f"{path}: {what}; load it where you trust it and write it with safetensors.torch.save_file")
    try:
        tensors = container.read_weights(data)
        sites = ARCHITECTURES[architecture](Graph(1 if positions else 2, (0,)), tensors)
    except (ValueError, Rejected) as error:
        hint = '; with ReLU MLPs, say transformer(weights, act_fn="relu")' if ".mlp." in str(error) else ""
        raise ClaimError(f"{path}: {error}{hint}") from None
    length = len(tensors[positions]) if positions else 2
    return Model(architecture, str(path), data, tensors, length, len(tensors[embedding]), tuple(sites))


@dataclass(frozen=True)
class CapturedModel:
    """A torch module as a graph, its weights as a safetensors file; sites under the module's own names."""

    captured: Captured
    source: str
    data: bytes
    architecture: str = "captured"

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.captured.sites)

    def __getitem__(self, name: str) -> Site:
        if name not in self.captured.sites:
            raise ClaimError(f"{self.source} has no site {name!r}; it has: {', '.join(self.sites)}")
        return Site(self, name)

    def compared_at(self, ids: np.ndarray | None, reals: list[np.ndarray]) -> "CapturedModel":
        """Compared with the module itself at these inputs; see graph/capture.py."""
        try:
            return replace(self, captured=self.captured.compared_at(ids, reals))
        except CaptureError as error:
            raise ClaimError(f"on the claim's own domain, {error}") from None

    def shape(self, name: str) -> tuple[int, ...]:
        return self.captured.graph.nodes[self.captured.sites[name]].shape


def capture(module: nn.Module, *example_inputs: Any, vocab: int | None = None, **example_kwargs: Any) -> CapturedModel:
    """Any small torch module, by torch.export on example inputs with a batch axis of one; see graph/capture.py.

    Raises ClaimError, naming everything that stands in the way.
    """
    try:
        captured = graph_of(module, *example_inputs, vocab=vocab, **example_kwargs)
    except CaptureError as error:
        raise ClaimError(str(error)) from None
    data = save({name: np.asarray(a, order="C") for name, a in sorted(captured.weights.items())})
    return CapturedModel(captured, type(module).__name__, data)
