"""Any small torch module as an expression graph.

torch.export gives the program (export.py) and lowering.py writes it down. The graph is compared with the program, run
in float64 (program.py), and with the module as it was given, in its own types (original.py). What is captured is the
function over the reals that the module denotes with its weights taken exactly, whatever their float type; casts to
floats that hold all that the module's own type holds are ignored, other casts are refused. The module is called on a
batch; the graph speaks of one input.
"""

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from mechverify.graph.build import Builder, NotLowered, Value
from mechverify.graph.export import (
    Recorder,
    accept,
    arguments,
    copied,
    exported,
    inference,
    ready,
    real_arithmetic,
    site_of,
)
from mechverify.graph.float32 import Programs, Recording, apart, missing
from mechverify.graph.lowering import CASTS, MOVED, Lowering, name_of
from mechverify.graph.original import Compared, Comparison, Original
from mechverify.graph.program import Program
from mechverify.graph.run import TorchRunner
from mechverify.graph.source import CaptureError, line_of, module_of, unsupported
from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph

REPLAYS = 16
MOST = 5  # reasons that one error gives
TOLERANCE = 1e-9  # of the replay, relative to the larger of one and the largest entry; no verdict rests on it


@dataclass(frozen=True)
class Captured:
    """A module's graph. `weights`: float64 arrays by state-dict name. `sites`: node ids, without batch axis, of
    "output" ("output.0", ... if several), "tokens", "input.0", ..., every submodule's output by its path
    ("blocks.0.attn"; "norm@1" for a second call, "self.output" where the path is a name of the module's own), what it
    returned when it returned it; and "<path>.pattern", "<path>.scores" of its softmax ("<path>.unmasked_scores", finite
    numbers, if entries of it are masked). `inputs`: shapes of the real inputs. Replayed on `replayed` inputs: the
    largest relative difference. `compared`: with the module as it was given, which `comparison` does. `programs`: what
    theorems about its float32 programs need to know."""

    graph: Graph
    weights: dict[str, np.ndarray]
    sites: dict[str, int]
    inputs: tuple[tuple[int, ...], ...]
    tokens_length: int
    vocab: int
    replayed: int
    difference: float
    compared: Compared | None = None
    programs: Programs | None = None
    comparison: Comparison | None = field(default=None, compare=False, repr=False)

    def compared_at(
        self, ids: np.ndarray | None, reals: list[np.ndarray]
    ) -> "Captured":
        """Compared with the module at further inputs: token ids [number, length], real inputs [number, *shape]. Raises
        CaptureError at the first site that differs."""
        if self.comparison is None or self.compared is None:
            return self
        order, left = self.comparison.original.types, iter(reals)
        inputs = [
            torch.as_tensor(next(left) if t.is_floating_point else ids) for t in order
        ]
        return replace(self, compared=self.compared.joined(self.comparison(inputs)))


def capture(
    module: nn.Module,
    *example_inputs: Any,
    vocab: int | None = None,
    **example_kwargs: Any,
) -> Captured:
    """The graph of `module(*example_inputs, **example_kwargs)`.

    Examples have a batch axis of one: real tensors [1, ...] are inputs, one integer tensor [1, length] may hold
    token ids; where the first axis isn't one, the module is called without a batch axis. Other arguments stay as they
    are. Token ids are below `vocab` (default: the rows of the smallest embedding that they index). The module is left
    as it was. Raises CaptureError.
    """
    accept(module)
    call, tensors = arguments(example_inputs, example_kwargs)
    original = Original(module, call, tensors)
    tensors = original.examples(tensors)
    recorder = Recorder(ready(copied(module)), call)
    with inference():
        program = exported(recorder, tensors)
        with real_arithmetic():
            captured, inputs = _Capture(
                original, recorder, program, tensors, vocab
            ).result()
    assert captured.comparison is not None
    return replace(captured, compared=captured.comparison(inputs))


class _Capture:
    """From an exported program to a graph."""

    def __init__(
        self,
        original: Original,
        recorder: Recorder,
        program: Any,
        tensors: list[Tensor],
        vocab: int | None,
    ):
        self.original, self.recorder, self.program, self.tensors = (
            original,
            recorder,
            program,
            tensors,
        )
        self.longer: dict[
            int, Tensor
        ] = {}  # memory of weights as float64, by its address
        self.names = list(recorder.notes()[1])
        ids = [t for t in tensors if not t.is_floating_point()]
        self.length = ids[0].shape[1] if ids else 0
        self.vocab = (vocab or self._smallest_table()) if ids else 0
        self.recording = Recording(self.length, tuple(range(self.vocab)))
        self.builder = Builder(self.recording, self._state())
        self.missing: list[str] = []  # in the way of theorems about float32 programs
        self.lowering = Lowering(self.builder, self._ids(ids), original.dtype)
        self.sites: dict[str, Value] = {}
        self.env: dict[Any, Any] = {}
        self.problems: dict[Any, str] = {}

    def result(self) -> tuple[Captured, list[Tensor]]:
        """The graph, not yet compared with the module, and inputs at which to do so."""
        self._inputs()
        outputs = self._outputs()
        for node in self._needed(list(outputs.values())):
            self._lower(node)
        wanted = [
            node for name, node in outputs.items() if name.split(".")[0] == "output"
        ]
        if not wanted:
            raise CaptureError(
                "the module returns no tensor of real numbers: return the values that claims speak of"
            )
        problems = [
            (node, self.problems[node])
            for node in self._needed(wanted)
            if node in self.problems
        ]
        if problems:
            raise unsupported(problems)
        for name, node in outputs.items():
            self._site(name, self.env[node], node in wanted)
        norms = dict(enumerate(self.builder.norms))
        parts = [
            sorted({n for of in self.builder.attentions for n in of[k]})
            for k in range(3)
        ]
        fused = {(k, n): n for k in range(3) for n in parts[k]}
        named = {name: self._named(name, v) for name, v in self.sites.items()}
        graph, found = _compact(self.builder.graph, {**named, **norms, **fused})
        sites = {name: found[name] for name in named}
        if any(
            n.op == "weight"
            and n.attr[0] in self.builder.taken
            and n.attr[0].startswith("constant.")
            for n in graph.nodes
        ):  # the kernel takes it for one
            self.missing.append(
                "a parameter that is called as constants of its program are, constant.k: rename it"
            )
        programs = Programs(
            len(graph.nodes),
            tuple(found[k] for k in norms),
            "; ".join(list(dict.fromkeys(self.missing))[:MOST]) or None,
            tuple(tuple(found[k, n] for n in parts[k]) for k in range(3))
            if fused
            else (),
        )
        weights = {
            n.attr[0]: self.builder.weights[n.attr[0]]
            for n in graph.nodes
            if n.op == "weight"
        }
        batches = self._random_inputs()
        program, run = self._twin(sites), TorchRunner(graph, weights, torch.float64)
        difference = self._replay(program, run, sites, batches)
        comparison = Comparison(self.original, program, self._outputs(), run, sites)
        inputs = tuple(
            tuple(t.shape[1:]) for t in self.tensors if t.is_floating_point()
        )
        captured = Captured(
            graph,
            weights,
            sites,
            inputs,
            self.length,
            self.vocab,
            REPLAYS,
            difference,
            programs=programs,
            comparison=comparison,
        )
        return captured, batches

    # --- the program's inputs and outputs

    def _placeholders(self) -> Iterator[tuple[Any, Any]]:
        nodes = [n for n in self.program.graph.nodes if n.op == "placeholder"]
        pairs = zip(nodes, self.program.graph_signature.input_specs, strict=True)
        return (
            (node, spec) for node, spec in pairs if spec.kind != InputKind.TOKEN
        )  # the order of effects

    def _constant(self, spec: Any) -> Tensor:
        held = (
            self.program.state_dict
            if spec.target in self.program.state_dict
            else self.program.constants
        )
        value = held[spec.target]
        if (
            isinstance(value, torch._subclasses.FakeTensor)
            or not isinstance(value, Tensor)
            or value.is_meta
        ):
            raise CaptureError(
                f"{spec.target.removeprefix('module.')} has no values: initialise the module first"
            )
        value = value.detach()
        return self._double(value) if value.is_floating_point() else value

    def _double(self, x: Tensor) -> Tensor:
        """The same numbers as float64; what shares memory still does."""
        place = x.untyped_storage().data_ptr()
        if place not in self.longer:
            self.longer[place] = (
                torch.empty(0, dtype=x.dtype).set_(x.untyped_storage()).double()
            )
        return self.longer[place].as_strided(x.shape, x.stride(), x.storage_offset())

    def _ids(self, examples: list[Tensor]) -> Tensor:
        """What each token id is at first: itself, in the type that the module is given."""
        dtype = examples[0].dtype if examples else torch.int64
        if self.vocab - 1 > torch.iinfo(dtype).max:
            raise CaptureError(
                f"a vocabulary of {self.vocab} doesn't fit {dtype}: pass the example as torch.int64"
            )
        return torch.arange(self.vocab, dtype=dtype)

    def _state(self) -> dict[str, Tensor]:
        """What the module holds, by its own names: parameters first, as tied weights have several."""
        pairs = [
            (node, spec)
            for node, spec in self._placeholders()
            if spec.kind != InputKind.USER_INPUT
        ]
        self.held = {node: self._constant(spec) for node, spec in pairs}
        named = {spec.target.removeprefix("module."): self.held[node] for node, spec in pairs
                 if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)}  # fmt: skip
        return {name: t for name, t in named.items() if t.is_floating_point()}

    def _smallest_table(self) -> int:
        """Rows of the smallest embedding that the token ids index."""
        ids = {node for (node, spec) in self._placeholders()
               if spec.kind == InputKind.USER_INPUT and not node.meta["val"].is_floating_point()}  # fmt: skip
        rows = []
        for node in self.program.graph.nodes:
            if node.op != "call_function" or not hasattr(node.target, "_schema"):
                continue
            name, args = name_of(node.target), pytree.tree_leaves(node.args)
            if name in MOVED or name in CASTS or (name == "index" and args[0] in ids):
                ids |= {node} if args[0] in ids else set()
            elif name == "one_hot" and args[0] in ids:
                rows.append(args[1])
            elif (
                name in ("embedding", "index")
                and args[0] not in ids
                and any(a in ids for a in node.all_input_nodes)
            ):
                rows.append(args[0].meta["val"].shape[0])
        if not rows:
            raise CaptureError(
                "the vocabulary isn't known, as no embedding is read at the token ids: pass vocab="
            )
        return min(rows)

    def _inputs(self) -> None:
        b, graph, real = self.builder, self.builder.graph, 0
        self.env.update(self.held)
        users = [
            node
            for node, spec in self._placeholders()
            if spec.kind == InputKind.USER_INPUT
        ]
        for node, example in zip(users, self.tensors, strict=True):
            if example.is_floating_point():
                name, base = (
                    f"input.{real}",
                    graph.add("input", attr=(real, tuple(example.shape[1:]))),
                )
                real += 1
            else:
                name, base = "tokens", graph.add("tokens")
            self.sites[name] = Value(base)
            self.env[node] = Value(b.reshape(base, example.shape))

    def _outputs(self) -> dict[str, Any]:
        """The program's node for each name."""
        specs = self.program.graph_signature.output_specs
        (end,) = (n for n in self.program.graph.nodes if n.op == "output")
        nodes = [
            n
            for n, spec in zip(end.args[0], specs, strict=True)
            if spec.kind == OutputKind.USER_OUTPUT
        ]
        return dict(zip(self.names, nodes, strict=True))

    def _needed(self, roots: list[Any]) -> list[Any]:
        wanted = set(roots)
        for node in reversed(self.program.graph.nodes):
            if node in wanted:
                wanted.update(node.all_input_nodes)
        return [n for n in self.program.graph.nodes if n in wanted]

    # --- lowering

    def _lower(self, node: Any) -> None:
        if node.op == "placeholder":
            return
        if any(n not in self.env for n in node.all_input_nodes):
            return  # what it needs has failed
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self.env.__getitem__)
        count, self.recording.call = len(self.builder.softmaxes), node
        try:
            if node.target is operator.getitem:
                value = args[0][args[1]]
                if isinstance(value, NotLowered):
                    raise value
            elif hasattr(node.target, "_schema"):
                _not_strided(node)
                value = self.lowering(node.target, args, kwargs)
                self.lowering.check(node.target, args, kwargs, value, node.meta["val"])
                if said := missing(self.builder, node, args, kwargs, value):
                    self.missing.append(
                        f"{said} ({module_of(node) or 'the module'}, {line_of(node)})"
                    )
                value = apart(self.builder, node, args, kwargs, value)
            else:
                raise NotLowered(
                    "control flow and custom operations: write the module without them"
                )
            self.env[node] = value
        except (NotLowered, Rejected) as error:
            self.problems[node] = str(error)
        except Exception as error:  # a row met arguments that it wasn't made for
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            self.problems[node] = (
                f"not with these arguments ({what:.200}): please report it, and write it another way"
            )
        path = module_of(node)
        for scores, pattern in self.builder.softmaxes[count:]:
            kind = "scores" if scores.keep is None else "unmasked_scores"
            for end, value in ((kind, Value(scores.node)), ("pattern", pattern)):
                name = f"{site_of(path)}.{end}" if path else end
                again = sum(
                    known == name or known.startswith(f"{name}@")
                    for known in self.sites
                )
                if name not in self.recorder.paths:
                    self.sites[f"{name}@{again}" if again else name] = value

    def _site(self, name: str, value: Any, wanted: bool) -> None:
        try:
            self.sites[name] = Value(self.builder.node(value))
        except (NotLowered, Rejected) as error:
            if wanted:
                raise CaptureError(f"{name}: {error}") from error

    def _named(self, name: str, value: Value) -> int:
        """The node of a site. What the module returns is a node of its own even where it is an input or a number: a
        float32 program rounds that first."""
        if name.split(".")[0] == "input":  # has no batch axis
            return value.node
        found, graph = self._without_batch(value), self.builder.graph
        if graph.nodes[found].op not in ("input", "constant", "weight"):
            return found
        shape = graph.nodes[found].shape
        steps = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        return graph.add("view", found, attr=(shape, 0, steps))

    def _without_batch(self, value: Value) -> int:
        shape = self.builder.shape(value)
        ids = self.builder.graph.nodes[value.node].op == "tokens"
        return (
            value.node
            if ids or not shape or shape[0] != 1
            else self.builder.reshape(value.node, shape[1:])
        )

    # --- replay

    def _twin(self, sites: dict[str, int]) -> Program:
        nodes = self._needed(
            [node for name, node in self._outputs().items() if name in sites]
        )
        users = [
            node
            for node, spec in self._placeholders()
            if spec.kind == InputKind.USER_INPUT
        ]
        return Program(nodes, self.held, users)

    def _replay(
        self,
        program: Program,
        run: TorchRunner,
        sites: dict[str, int],
        batches: list[Tensor],
    ) -> float:
        """The largest difference from the program in float64 on random inputs, and on the example; raises at the first
        site that differs."""
        reals = [x for x in batches if x.is_floating_point()]
        tokens = next(
            (x.long().numpy() for x in batches if not x.is_floating_point()), None
        )
        names = {name: node for name, node in self._outputs().items() if name in sites}
        expected = [
            program([x[k : k + 1] for x in batches], list(names.values()))
            for k in range(REPLAYS)
        ]
        computed = run.many([sites[n] for n in names], tokens, reals)
        largest, finite = 0.0, False
        for k, name in enumerate(names):
            want = torch.stack(
                [
                    e[k].double().reshape(computed[sites[name]].shape[1:])
                    for e in expected
                ]
            )
            got = torch.as_tensor(computed[sites[name]])
            known = torch.isfinite(want) | torch.isfinite(got)
            want, got = want[known], got[known]
            finite = finite or (
                name.split(".")[0] == "output" and bool(torch.isfinite(want).any())
            )
            if want.numel() == 0:
                continue
            scale = max(1.0, float(want.nan_to_num(posinf=0.0, neginf=0.0).abs().max()))
            difference = float((want - got).abs().max()) / scale
            if not difference <= TOLERANCE:
                raise CaptureError(
                    _differs(name, difference, bool(torch.isfinite(got).all()))
                )
            largest = max(largest, difference)
        if not finite:
            raise CaptureError(
                "the module's output is infinite or not a number on the example and on 15 random inputs"
            )
        return largest

    def _random_inputs(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        batches = []
        for example in self.tensors:
            shape = REPLAYS - 1, *example.shape[1:]
            if example.is_floating_point():
                others = torch.randn(shape, generator=generator)
            else:
                others = torch.randint(self.vocab, shape, generator=generator)
            mixed = torch.cat([example, others.to(example.dtype)])
            batches.append(mixed.double() if mixed.is_floating_point() else mixed)
        return batches


def _not_strided(node: torch.fx.Node) -> None:
    operand = node.args[0] if node.args else None
    if node.target is torch.ops.aten.as_strided.default and not (
        isinstance(operand, torch.fx.Node) and operand.meta["val"].is_contiguous()
    ):
        raise NotLowered(
            "it reads memory, whose order isn't that of the entries here: call contiguous() before, or index the value"
        )


def _differs(name: str, difference: float, computed: bool) -> str:
    """`computed`: the graph has numbers everywhere."""
    if math.isfinite(difference):
        return (
            f"the graph differs from the exported program at {name}, by {difference:.3g} of its size: a fault of the "
            "capture; please report it"
        )
    if computed:
        return (
            f"on some input the module's {name} is infinite or not a number where its graph has a number: torch's own "
            "code doesn't compute what it means there (scaled_dot_product_attention with is_causal=True and a negative "
            "scale doesn't: scale the queries instead, with scale=1.0)"
        )
    return (
        f"on some input the graph has no number at {name} where the module has: where() leaves out a branch that is "
        "infinite or not a number, and a graph computes both; clamp what log, sqrt or a division is applied to"
    )


def _compact(graph: Graph, sites: dict[Any, int]) -> tuple[Graph, dict[Any, int]]:
    """Without what no site needs."""
    small, new = Recording(graph.length, graph.values), {}
    for n in graph.ancestors(list(sites.values())):
        op, args, attr, *_ = graph.nodes[n]
        small.call = n
        new[n] = small.add(op, *(new[a] for a in args), attr=attr)
    return small.copy(), {name: new[n] for name, n in sites.items()}
