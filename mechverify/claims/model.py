"""Models as a claim sees them: sizes, and sites by the names that the field uses."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import sympy
from safetensors.numpy import save
from torch import nn

from mechverify.claims.errors import ClaimError
from mechverify.claims.showing import Shown, sites
from mechverify.graph.adapters.modules import assumed
from mechverify.graph.capture import Captured
from mechverify.graph.capture import capture as graph_of
from mechverify.graph.messages import short
from mechverify.graph.source import CaptureError
from mechverify.kernel.core import container
from mechverify.kernel.core.architectures import ARCHITECTURES
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph


class SiteName(sympy.Atom):
    """A site, as a leaf of an expression."""

    model: "CapturedModel"
    name: str

    def __new__(cls, model: "CapturedModel", name: str) -> "SiteName":
        self = super().__new__(cls)
        self.model, self.name = model, name
        return self

    def _hashable_content(self) -> tuple:
        return self.name, id(self.model)

    def _sympystr(self, printer: Any) -> str:
        return self.name


class Entry(sympy.Expr):
    """One entry of a site, as a symbol: `model["pattern"][0, -1, 2]`. An index may be an integer expression of tokens;
    the arguments are the site and the indices, so that sympy substitutes in them.

    Entries are equal if they are of the same model, site and index."""

    is_commutative = is_extended_real = is_real = True

    def __new__(cls, site: SiteName, *index: Any) -> "Entry":
        return super().__new__(cls, site, *map(sympy.sympify, index))

    @property
    def _named(self) -> SiteName:
        site = self.args[0]
        assert isinstance(site, SiteName)
        return site

    @property
    def model(self) -> "CapturedModel":
        return self._named.model

    @property
    def site(self) -> str:
        return self._named.name

    @property
    def index(self) -> tuple:
        return self.args[1:]

    @property
    def free_symbols(self) -> set:
        """With one for the site: an entry is no constant."""
        return super().free_symbols | {sympy.Symbol(f"{self.site}[...]")}

    def _sympystr(self, printer: Any) -> str:
        return f"{self.site}[{', '.join(map(str, self.index))}]"


class Entries(np.ndarray):
    """Entries of a site, dtype object: of arithmetic and of comparisons, arrays of expressions and of conditions."""

    def __ge__(self, other: Any) -> np.ndarray:
        return np.greater_equal(self, other, dtype=object)

    def __le__(self, other: Any) -> np.ndarray:
        return np.less_equal(self, other, dtype=object)

    def __gt__(self, other: Any) -> np.ndarray:
        return np.greater(self, other, dtype=object)

    def __lt__(self, other: Any) -> np.ndarray:
        return np.less(self, other, dtype=object)


@dataclass(frozen=True)
class Site:
    """A named value inside the model, or one row of it: `model.logits[-1]`. Of a captured module, entries are symbols:
    an index for each axis gives one, slices give arrays of them, iteration rows or entries."""

    model: "Model | CapturedModel"
    name: str
    position: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the row, if it is one."""
        return self.captured.shape(self.name)[0 if self.position is None else 1 :]

    @property
    def captured(self) -> "CapturedModel":
        """The model, if it has entries."""
        if not isinstance(self.model, CapturedModel):
            raise ClaimError(
                f"{self.name}: entries are symbols of a captured module alone: capture(module, example)"
            )
        return self.model

    def entry(self, index: tuple) -> Entry:
        """By an index for each axis of the whole site."""
        return Entry(SiteName(self.captured, self.name), *index)

    def __len__(self) -> int:
        if not self.shape:
            raise ClaimError(f"{self.name} is one number; write {self.name}[()]")
        return self.shape[0]

    def __iter__(self) -> Iterator["Site | Entry | Entries"]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> "Site | Entry | Entries":
        """A row by one index; an entry by an index for each axis, and an object array of entries by slices, or by fewer
        indices."""
        if not isinstance(self.model, CapturedModel):
            if self.position is None and isinstance(index, int):
                return Site(self.model, self.name, index)
            raise ClaimError(
                f"{self.name}: index it with one position, as in {self.name}[-1]"
            )
        whole, shape = index if isinstance(index, tuple) else (index,), self.shape
        if len(whole) > len(shape):
            raise ClaimError(
                f"{self.name}[{', '.join(map(str, whole))}]: the site has shape {shape}"
            )
        if (
            self.position is None
            and len(whole) == 1 < len(shape)
            and isinstance(index, int | np.integer)
        ):
            return Site(self.model, self.name, int(index))
        if not all(
            isinstance(i, int | np.integer | slice | sympy.Expr)
            and not isinstance(i, sympy.Float)
            for i in whole
        ):
            text = ", ".join(map(short, whole))
            raise ClaimError(
                f"{self.name}[{text}]: an index is an integer, a slice or an expression of tokens"
            )
        axes = [*whole, *[slice(None)] * (len(shape) - len(whole))]
        first = () if self.position is None else (self.position,)
        kept = [
            range(size)[i] if isinstance(i, slice) else [i]
            for i, size in zip(axes, shape, strict=True)
        ]
        entries = [self.entry((*first, *at)) for at in product(*kept)]
        sizes = [
            len(k) for i, k in zip(axes, kept, strict=True) if isinstance(i, slice)
        ]
        return (
            np.array(entries, dtype=object).reshape(sizes).view(Entries)
            if sizes
            else entries[0]
        )

    def _sympy_(self) -> sympy.Basic:
        shape = self.shape
        raise ClaimError(
            f"{self.name} is an array of shape {shape}, not a number: index one entry, or Max(*site)"
        )


@dataclass(frozen=True, repr=False)
class Model(Shown):
    """Weights, as the bytes of a safetensors file, of a known architecture."""

    architecture: str
    source: str
    data: bytes
    tensors: dict[str, np.ndarray]
    n_ctx: int
    d_vocab: int
    sites: tuple[str, ...]

    def described(self) -> list[tuple[str, str]]:
        sizes = f"{self.n_ctx} positions, {self.d_vocab} tokens"
        return [
            ("model", f"{self.architecture} {self.source}"),
            ("reads", sizes),
            ("sites", sites(self.sites)),
        ]

    @property
    def logits(self) -> Site:
        return self["logits"]

    def __getitem__(self, name: str) -> Site:
        """A site by name; TransformerLens's `hook_` prefixes may be kept or left out."""
        plain = name.replace("hook_", "")
        if plain not in self.sites:
            raise ClaimError(
                f"{self.source} has no site {name!r}; it has: {', '.join(self.sites)}"
            )
        return Site(self, plain)


def transformer(
    weights: str | Path, act_fn: str | None = None, *, normalization: str | None = None,
    attn_scale: float | None = None, attention_dir: str = "causal", positional_embedding_type: str = "standard",
    parallel_attn_mlp: bool = False,
) -> Model:  # fmt: skip
    """A transformer without layer norm, from a safetensors file in TransformerLens names: attention-only, or with
    MLPs whose activation is `act_fn`, which weights don't tell; "relu" is known.

    Weights don't tell the other settings either (a layer norm may be folded into them): a theorem prints what it
    assumes of them, and those of your model's configuration are compared with it. Sizes are read off the shapes (W_Q
    [heads, d_model, d_head], ...); biases may be absent. Raises ClaimError if the file can't be read, holds NaN or
    infinity, has a mask of its own that isn't causal, or doesn't fit the architecture.
    """
    if act_fn not in (None, "relu"):
        raise ClaimError(
            f"act_fn={act_fn!r}: known is 'relu'; other networks go through capture(module, example)"
        )
    for name, value, known in (
        ("normalization", normalization, None), ("attention_dir", attention_dir, "causal"),
        ("positional_embedding_type", positional_embedding_type, "standard"),
        ("parallel_attn_mlp", parallel_attn_mlp, False),
    ):  # fmt: skip
        if value != known:
            raise ClaimError(
                f"{name}={value!r}: this architecture has {known!r}; {_ELSEWHERE}"
            )
    model = _known(
        f"transformer{'_relu' if act_fn else ''}",
        weights,
        "pos_embed.W_pos",
        "embed.W_E",
    )
    root = math.sqrt(model.tensors["blocks.0.attn.W_Q"].shape[-1])
    if attn_scale is not None and not abs(attn_scale - root) <= math.ulp(root):
        raise ClaimError(
            f"attn_scale={attn_scale!r}: this architecture divides by sqrt(d_head), {root!r}; {_ELSEWHERE}"
        )
    return model


HINTS = {  # by what the message says
    "h.0.": "; GPT-2's names are read by load(weights, n_heads=N)",
    ".ln1.": "; layer norms are read by load(weights)",
    ".mlp.": '; with ReLU MLPs, say transformer(weights, act_fn="relu")',
    "not a safetensors": "; write weights with safetensors.torch.save_file",
    "nan": "; a theorem needs finite weights: mend them and save them again",
    "inf at": "; a theorem needs finite weights: mend them and save them again",
    "missing": "; known are TransformerLens's names (`mechverify models`); or capture your torch module",
    "has shape": "; `mechverify models` says which shapes belong together",
}
_ELSEWHERE = "read such a model by load(weights, ...), or capture it as a torch module"


def pair_mlp(weights: str | Path) -> Model:
    """A network of two tokens, logits = relu([W_x[a], W_y[b]] W) W_U, from a safetensors file of these matrices.

    Raises ClaimError as `transformer` does."""
    return _known("pair_mlp", weights, None, "W_x")


def path_of(weights: Any) -> Path:
    """Raises ClaimError for what is none, a state dict say."""
    if isinstance(weights, str | PathLike):
        return Path(weights)
    raise ClaimError(
        f"weights: a file's path, not {type(weights).__name__}; write a state dict with safetensors.torch.save_file"
    )


def _known(
    architecture: str, weights: str | Path, positions: str | None, embedding: str
) -> Model:
    path = path_of(weights)
    try:
        data = path.read_bytes()
    except OSError as error:
        where = (
            ""
            if path.is_absolute()
            else f" (looked for in {Path.cwd()}; give another with -p weights=FILE)"
        )
        raise ClaimError(
            f"can't read weights {path}: {error.strerror or error}{where}"
        ) from None
    if data[:2] == b"PK" or data[:1] == b"\x80":
        what = "a pickle or a zip (torch.save, numpy), not a safetensors file"
        raise ClaimError(
            f"{path}: {what}; load it where you trust it and write it with safetensors.torch.save_file"
        )
    try:
        tensors = container.read_weights(data)
        sites = ARCHITECTURES[architecture](Graph(1 if positions else 2, (0,)), tensors)
    except (ValueError, Rejected) as error:
        hint = next((text for part, text in HINTS.items() if part in str(error)), "")
        raise ClaimError(f"{path}: {error}{hint}") from None
    length = len(tensors[positions]) if positions else 2
    return Model(
        architecture,
        str(path),
        data,
        tensors,
        length,
        len(tensors[embedding]),
        tuple(sites),
    )


@dataclass(frozen=True, repr=False)
class CapturedModel(Shown):
    """A torch module as a graph, its weights as a safetensors file; sites under the module's own names. `assumed`: of
    weights that were read from a file, what it doesn't tell, as it was taken."""

    captured: Captured
    source: str
    data: bytes
    architecture: str = "captured"
    assumed: tuple[str, ...] = ()

    @property
    def stated(self) -> str:
        """What a certificate says of the module."""
        taken = f", read with: {'; '.join(self.assumed)}" if self.assumed else ""
        return f"{self.source}{taken}"

    def described(self) -> list[tuple[str, str]]:
        return [("model", f"captured {self.source}"), ("sites", sites(self.sites))]

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.captured.sites)

    def __getitem__(self, name: str) -> Site:
        if name not in self.captured.sites:
            raise ClaimError(
                f"{self.source} has no site {name!r}; it has: {', '.join(self.sites)}"
            )
        return Site(self, name)

    def compared_at(
        self, ids: np.ndarray | None, reals: list[np.ndarray]
    ) -> "CapturedModel":
        """Compared with the module itself at these inputs; see graph/capture.py."""
        try:
            return replace(self, captured=self.captured.compared_at(ids, reals))
        except CaptureError as error:
            raise ClaimError(f"on the claim's own domain, {error}") from None

    def shape(self, name: str) -> tuple[int, ...]:
        return self.captured.graph.nodes[self.captured.sites[name]].shape


def capture(
    module: nn.Module,
    *example_inputs: Any,
    vocab: int | None = None,
    **example_kwargs: Any,
) -> CapturedModel:
    """Any small torch module, by torch.export on example inputs with a batch axis of one; see graph/capture.py.

    Raises ClaimError, naming everything that stands in the way.
    """
    try:
        captured = graph_of(module, *example_inputs, vocab=vocab, **example_kwargs)
    except CaptureError as error:
        raise ClaimError(str(error)) from None
    data = save(
        {name: np.asarray(a, order="C") for name, a in sorted(captured.weights.items())}
    )
    return CapturedModel(captured, type(module).__name__, data, assumed=assumed(module))
