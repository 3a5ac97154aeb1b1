"""A torch module as a program of ATen calls in its own types, which names what its submodules compute."""

import contextlib
import copy
import io
import logging
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mechverify.graph.lowering import KNOWN, name_of
from mechverify.graph.source import CaptureError, export_failed


def accept(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise CaptureError(
            f"capture takes a torch.nn.Module, not {type(module).__name__}"
        )
    compiled = [
        name or "the module"
        for name, m in module.named_modules()
        if isinstance(m, torch.jit.ScriptModule)
    ]
    if compiled:
        raise CaptureError(
            f"{', '.join(compiled[:3])}: of torch.jit, which torch.export can't follow: capture the module that "
            "torch.jit.script or trace was given (or load its state dict into one)"
        )
    training = [name or "it" for name, m in module.named_modules() if m.training]
    if training:
        raise CaptureError(
            f"the module is in training mode ({', '.join(training[:3])}): call .eval() first"
        )
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and (
            tensor.is_complex() or tensor.is_quantized or tensor.is_meta
        ):
            raise CaptureError(
                f"{name} is of type {tensor.dtype} on {tensor.device}: weights must be real numbers"
            )
        if isinstance(tensor, Tensor) and tensor.layout != torch.strided:
            raise CaptureError(
                f"{name} is sparse: make it dense (.to_dense()), and multiply as with any matrix"
            )


def arguments(args: tuple, kwargs: dict[str, Any]) -> tuple[Callable, list[Tensor]]:
    """(how to call a module with tensors in place, the example tensors with a batch axis of one)."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    single = {
        k for k in places if leaves[k].ndim == 0 or leaves[k].shape[0] != 1
    }  # whose module knows no batches
    tensors = [leaves[k][None] if k in single else leaves[k] for k in places]
    problems = []
    for k, t in zip(places, tensors, strict=True):
        shape = list(leaves[k].shape)
        if t.dtype == torch.bool or t.is_complex():
            problems.append(
                f"an example of type {t.dtype}: inputs are reals or token ids; make it a buffer"
            )
        elif 0 in t.shape:
            problems.append(f"an example of shape {shape} is empty")
        elif not t.is_floating_point() and t.ndim != 2:
            problems.append(
                f"token ids of shape {shape}: they must be one sequence, [1, length] or [length]"
            )
    if sum(not t.is_floating_point() for t in tensors) > 1:
        problems.append(
            "several integer inputs: pass one sequence of tokens and take it apart in the module"
        )
    if not tensors:
        problems.append("no example tensor: pass one for each input")
    if problems:
        raise CaptureError("capture: " + "; ".join(problems))

    def call(module: nn.Module, inputs: list[Tensor]) -> Any:
        filled = list(leaves)
        for k, value in zip(places, inputs, strict=True):
            filled[k] = value[0] if k in single else value
        a, kw = pytree.tree_unflatten(filled, spec)
        return module(*a, **kw)

    return call, tensors


def copied(module: nn.Module) -> nn.Module:
    """A copy on the CPU, of the same types, whose parameters need no gradients."""
    computed = [
        t
        for m in module.modules()
        for t in vars(m).values()
        if isinstance(t, Tensor) and t.grad_fn is not None
    ]
    try:  # what pruning or weight_norm has computed, copy refuses; their hooks compute it again before every call
        twin = copy.deepcopy(module, {id(t): t.detach().clone() for t in computed})
    except Exception as error:
        raise CaptureError(
            f"the module can't be copied ({error}): make its tensors parameters or buffers"
        ) from error
    for m in twin.modules():
        for name, value in vars(m).items():
            if isinstance(value, Tensor):
                setattr(m, name, value.detach().cpu())
    return twin.to("cpu").requires_grad_(False)


def ready(twin: nn.Module) -> nn.Module:
    """What is exported of it: weights lie in memory as they are read, and settings that torch takes from a type are
    numbers."""
    for m in twin.modules():
        if isinstance(m, nn.RMSNorm) and m.eps is None:
            m.eps = torch.finfo(
                next((p.dtype for p in twin.parameters()), torch.float32)
            ).eps
    for tensor in (*twin.parameters(), *twin.buffers()):
        tensor.data = tensor.data.contiguous()
    return twin


@contextmanager
def inference() -> Iterator[None]:
    """No gradients, and no fused kernels that hide what they compute."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def real_arithmetic() -> Iterator[None]:
    """float64 wherever a program doesn't name a type."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


OWN = ("output", "input", "tokens", "self")  # of the module itself


def site_of(path: str) -> str:
    """The name of a submodule's site: its path, but `self.output` where that would be a name of the module's own."""
    return f"self.{path}" if path.split(".")[0] in OWN else path


def _neat(name: str, letters: str = r"[A-Za-z0-9_\-.]") -> None:
    if not re.fullmatch(letters + "{1,200}", name):
        raise CaptureError(
            f"{name!a:.80}: sites have the names of submodules and keys, of letters, digits, _ and - (at most 200 "
            "in a path): rename it"
        )


class Recorder(nn.Module):
    """Calls the module and returns every named tensor, as it was when it was returned: submodules' outputs in order,
    then its own."""

    def __init__(self, module: nn.Module, call: Callable):
        super().__init__()
        self.module, self.call = module, call
        seen: list[tuple[str, list[tuple[str, Tensor]]]] = []
        names: list[str] = []
        self.notes = lambda: (
            seen,
            names,
        )  # a closure: torch.export undoes changes of a module's attributes
        children = {
            site_of(path): child for path, child in module.named_modules() if path
        }
        for site, child in children.items():
            child.register_forward_hook(
                lambda m, args, out, site=site: seen.append((site, _kept(out)))
            )
        self.paths = set(children)
        for path in children:
            _neat(path)
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        seen, names = self.notes()
        seen.clear()
        out = self.call(
            self.module, [x.clone() for x in inputs]
        )  # a module may write into its input
        found: dict[str, Tensor] = {}
        for path, parts in seen:
            calls = sum(name == path or name.startswith(f"{path}@") for name in found)
            for part, tensor in parts:
                name = f"{path}@{calls}{part}" if calls else path + part
                if tensor.is_floating_point() and not (part and name in self.paths):
                    found[name] = tensor
        found.update(named("output", out, first=False))
        seen.clear()
        names[:] = found
        for name in names:
            _neat(name, r"[A-Za-z0-9_\-.@]")
        return tuple(found.values())


def _kept(out: Any) -> list[tuple[str, Tensor]]:
    """What a submodule returned, by the ends of the names; copies, as it may be written to later."""
    return [(part, tensor.clone()) for part, tensor in named("", out, first=True)]


def named(name: str, value: Any, first: bool) -> Iterator[tuple[str, Tensor]]:
    """Tensors in a module's output by name; a tuple's first one has the module's own name if `first`."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from named(f"{name}.{key}", part, first)
    elif isinstance(value, tuple | list):
        for k, part in enumerate(value):
            yield from named(name if first and k == 0 else f"{name}.{k}", part, first)


def exported(recorder: Recorder, tensors: list[Tensor]) -> Any:
    """The program of a recorder, without calls that write in place."""
    with quiet():
        return _exported(recorder, tensors)


@contextmanager
def quiet() -> Iterator[None]:
    """torch warns and logs of its own inner affairs; what stands in the way of a capture comes as an error."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _exported(recorder: Recorder, tensors: list[Tensor]) -> Any:
    try:
        program = torch.export.export(recorder, tuple(tensors), strict=False)
        if all(
            _known(node.target)
            for node in program.graph.nodes
            if node.op == "call_function"
        ):
            return program
        # torch takes apart what has no row; the default table alone would take softmax and layer norm apart as well
        rules = torch.export.default_decompositions().items()
        return program.run_decompositions(
            {op: rule for op, rule in rules if name_of(op) not in KNOWN}
        )
    except CaptureError:
        raise
    except Exception as error:  # torch.export raises errors of many types
        raise export_failed(error) from error


def _known(target: Any) -> bool:
    if not isinstance(target, torch._ops.OpOverload):
        return target is operator.getitem
    return not target._schema.is_mutable and name_of(target) in KNOWN
