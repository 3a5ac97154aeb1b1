"""Bounds and slopes by auto_LiRPA (Xu et al. 2020, arXiv 2002.12920): an optional peer, in float32 as it comes, and
never trusted.

Release 0.3, the one that pip has, was written for torch 1.12 and numpy 1.23. `compatible` puts in place what has gone
since then, for the time of a call, and takes it out again. What is there already, as with newer releases, stays.
"""

import copy
import inspect
import io
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from mechverify.kernel.core.errors import MechverifyError
from mechverify.relax.optimise import Slopes

METHODS = ("IBP", "CROWN", "CROWN-Optimized")
OPTIONS = {
    "conv_mode": "matrix"
}  # "patches", its default, fails on attention; fixed_reducemax_index would be unsound
DENSE = {
    "sparse_features_alpha": False,
    "sparse_spec_alpha": False,
}  # a slope for every entry
INSTALL = "pip install --no-deps auto-LiRPA==0.3 tqdm"


class LirpaError(MechverifyError, RuntimeError):
    """auto_LiRPA isn't there, failed, or gave something that bounds nothing."""


def lirpa_bounds(
    module: nn.Module, centre: Tensor, radius: float, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (low, high) of `module(x)` for x within `radius` of `centre` [batch, ...] in every entry, as auto_LiRPA
    finds them: float64 arrays [batch, ...]. The module is left as it was. Raises LirpaError."""
    if method not in METHODS:
        raise LirpaError(f"method {method!r} is none of {', '.join(METHODS)}")
    _, low, high = _computed(module, centre - radius, centre + radius, method, {})
    if np.isnan(low).any() or np.isnan(high).any():
        raise LirpaError(
            f"auto_LiRPA: {method} gave {int((np.isnan(low) | np.isnan(high)).sum())} bounds that are NaN"
        )
    return low, high


def lirpa_slopes(module: nn.Module, low: Tensor, high: Tensor) -> Slopes:
    """The slopes that its optimised bounds of `module(x)` take below ReLUs for x between `low` and `high` [1, ...]: for
    `prove(claim, slopes=...)`, where a claim is about that module's output. Of networks whose only curved functions are
    ReLUs; the module is left as it was. Raises LirpaError."""
    sides = [
        _slopes(module, low, high, side) for side in (0, 1)
    ]  # both at once would keep the upper bound's alone
    return {
        key: np.stack([a[0], b[1]]) if key[0] is None else (a + b) / 2
        for (key, a), b in zip(sides[0].items(), sides[1].values(), strict=True)
    }


def _slopes(module: nn.Module, low: Tensor, high: Tensor, side: int) -> Slopes:
    only = {"bound_upper": side == 1, "bound_lower": side == 0}
    bounded, *_ = _computed(module, low, high, "CROWN-Optimized", only, **DENSE)
    relus = [n for n in bounded._modules.values() if type(n).__name__ == "BoundRelu"]
    starts: dict[str, int | None] = {
        n.inputs[0].name: i for i, n in enumerate(relus)
    } | {bounded.final_name: None}
    return {
        (starts[name], i): alpha.detach()[:, :, 0].double().cpu().numpy()
        for i, relu in enumerate(relus) for name, alpha in relu.alpha.items()
    }  # fmt: skip


def _computed(
    module: nn.Module,
    low: Tensor,
    high: Tensor,
    method: str,
    only: dict[str, bool],
    **options: bool,
) -> tuple[Any, ...]:
    """The bounded module, and the bounds."""
    with compatible() as package, _told() as told:
        try:
            centre = (low + high) / 2
            bounded = package.BoundedModule(
                copy.deepcopy(module).eval(), centre, bound_opts=OPTIONS | options
            )
            ball = package.PerturbationLpNorm(norm=np.inf, x_L=low, x_U=high)
            ends = bounded.compute_bounds(
                x=(package.BoundedTensor(centre, ball),), method=method, **only
            )
            return bounded, *(
                end.detach().double().cpu().numpy() for end in ends if end is not None
            )
        except Exception as error:  # of any type
            name = f"auto_LiRPA {getattr(package, '__version__', '')}: {method}"
            unknown = sorted(set(re.findall(r"^Name: ([^,]*)", told.getvalue(), re.M)))
            what = ", ".join(
                [f"{type(error).__name__}: {error}".removesuffix(": "), *unknown]
            )
            raise LirpaError(f"{name} failed: {what}") from error


@contextmanager
def compatible() -> Iterator[ModuleType]:
    """The package, usable inside the block; not for several threads. Raises LirpaError if it isn't installed."""
    helper = import_module("torch.onnx.symbolic_helper")
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(_set_opset_version, _exporter().export_onnx_opset_version)
        if not hasattr(helper, "_set_opset_version"):
            stack.enter_context(
                patch.object(
                    helper, "_set_opset_version", _set_opset_version, create=True
                )
            )
        package = _imported()
        for owner, name, value in _replacements(package):
            if name in vars(owner):
                stack.enter_context(patch.object(owner, name, value))
            else:  # patch.object can't take an attribute of a class of torch's out again
                setattr(owner, name, value)
                stack.callback(delattr, owner, name)
        yield package


@contextmanager
def _told() -> Iterator[io.StringIO]:
    """What it prints and logs, instead of the terminal."""
    logger, text = import_module("auto_LiRPA.utils").logger, io.StringIO()
    handlers = [logging.StreamHandler(text)]
    with (
        redirect_stdout(text),
        patch.multiple(logger, handlers=handlers, propagate=False),
    ):
        yield text


def _replacements(package: ModuleType) -> Iterator[tuple[Any, str, Callable]]:
    """(class, method, what stands in for it), where needed."""
    if not hasattr(torch._C.Node, "__getitem__"):
        yield (
            torch._C.Node,
            "__getitem__",
            lambda node, key: getattr(node, node.kindOf(key))(key),
        )
    members = package.BoundedModule._named_members
    if "remove_duplicate" not in inspect.signature(members).parameters:

        def named(
            self: Any,
            get: Callable,
            prefix: str = "",
            recurse: bool = True,
            remove_duplicate: bool = True,
        ):
            return members(self, get, prefix, recurse)

        yield package.BoundedModule, "_named_members", named
    softmax = import_module("auto_LiRPA.operators.softmax")
    if hasattr(
        softmax, "BoundSoftmaxImpl"
    ):  # its shift by the maximum has no backward bound
        yield softmax.BoundSoftmaxImpl, "forward", _softmax


def _softmax(self: Any, x: Tensor) -> Tensor:
    x = torch.exp(x)
    return x / torch.sum(x, dim=self.axis, keepdim=True)


def _exporter() -> Any:
    """The ONNX exporter's settings."""
    try:
        return import_module(
            "torch.onnx._internal.torchscript_exporter._globals"
        ).GLOBALS
    except ModuleNotFoundError:  # torch before 2.9
        return import_module("torch.onnx._globals").GLOBALS


def _set_opset_version(version: int) -> None:
    _exporter().export_onnx_opset_version = version


def _imported() -> ModuleType:
    """auto_LiRPA. On its first import: stand-ins for modules that it asks for, and no handlers or filters of its own
    for everybody's logs and warnings."""
    if sys.modules.get("auto_LiRPA"):
        return sys.modules["auto_LiRPA"]
    sets, folders = ModuleType("numpy.lib.arraysetops"), ModuleType("appdirs")
    vars(sets)["isin"] = np.isin
    vars(folders)["user_data_dir"] = lambda *_: (
        tempfile.gettempdir()
    )  # where it would make a folder, and keep nothing
    handlers = list(logging.root.handlers)
    try:
        with patch.dict(sys.modules), patch.object(warnings, "simplefilter"):
            sys.modules |= {sets.__name__: sets, folders.__name__: folders}
            before = set(sys.modules)
            package = import_module("auto_LiRPA")
            loaded = {name: m for name, m in sys.modules.items() if name not in before}
        sys.modules.update(loaded)
        return package
    except ImportError as error:
        raise LirpaError(
            f"auto_LiRPA can't be imported ({error}); install it: {INSTALL}"
        ) from error
    finally:
        logging.root.handlers[:] = handlers
