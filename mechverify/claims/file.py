"""Read a claim file: a Python file with a function `claim(name=default, ...)` that returns a claim, or `circuits`."""

import inspect
import sys
import traceback
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mechverify.claims.accuracy import Accuracy
from mechverify.claims.bounds import Bounds
from mechverify.claims.circuits import Circuits
from mechverify.claims.errors import ClaimError
from mechverify.claims.share import Share


def load_claim(
    path: str | Path, parameters: Mapping[str, str]
) -> Accuracy | Bounds | Share:
    """What the file's function `claim` returns: see `called`. Raises ClaimError."""
    result = called(Path(path), "claim", parameters)
    if not isinstance(result, Accuracy | Bounds | Share):
        raise ClaimError(
            f"{path}: claim() returned {type(result).__name__}, not a claim such as Accuracy(...)"
        )
    return result


def load_circuits(path: str | Path, parameters: Mapping[str, str]) -> Circuits:
    """What the file's function `circuits` returns: see `called`. Raises ClaimError."""
    result = called(Path(path), "circuits", parameters)
    if not isinstance(result, Circuits):
        raise ClaimError(
            f"{path}: circuits() returned {type(result).__name__}, not Circuits(...)"
        )
    return result


def called(path: Path, name: str, parameters: Mapping[str, str]) -> Any:
    """Run the claim file's function of that name with parameters given as text; a default's type says how text is read,
    and an annotation Literal["a", "b"] what may be given. It may import what lies beside it, or in the current folder.

    Raises ClaimError, pointing to the line at fault, for anything that is wrong with the file or a parameter.
    """
    function = _function(path, name)
    known = inspect.signature(function).parameters
    unknown = [p for p in parameters if p not in known]
    if unknown:
        offered = ", ".join(f"{p.name}={p.default!r}" for p in known.values()) or "none"
        raise ClaimError(
            f"{path}: unknown parameter {', '.join(unknown)}; {name}() takes: {offered}"
        )
    missing = [
        p.name
        for p in known.values()
        if p.default is p.empty and p.name not in parameters
    ]
    if missing:
        raise ClaimError(
            f"{path}: parameter {', '.join(missing)} has no default; give it with -p {missing[0]}=..."
        )
    values = {
        name: _convert(path, known[name], text) for name, text in parameters.items()
    }
    return _run(path, lambda: function(**values))


EXAMPLES = {"claim": "max_of_k.py", "circuits": "running_sum_circuit.py"}


def _function(path: Path, name: str) -> Callable[..., Any]:
    function = namespace(path, "claim").get(name)
    if not callable(function):
        raise ClaimError(
            f"{path}: no function `{name}`; see proofs/{EXAMPLES[name]} for one to copy"
        )
    return function


def namespace(path: Path, kind: str) -> dict[str, Any]:
    """What a `kind` of file defines, once it is run; raises ClaimError."""
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        hint = "; `mechverify init WEIGHTS` writes one" if kind == "claim" else ""
        raise ClaimError(
            f"can't read {kind} file {path}: {error.strerror or error}{hint}"
        ) from None
    except UnicodeDecodeError:
        hint = (
            f"; if it holds weights, `mechverify init {path}` writes a claim about them"
        )
        if zipfile.is_zipfile(path):
            hint = f"; if it is a certificate, `mechverify check {path}`"
        raise ClaimError(f"{path} is not a Python {kind} file{hint}") from None
    try:
        code = compile(source, str(path), "exec")
    except SyntaxError as error:
        raise ClaimError(
            f"{path}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
        ) from None
    except ValueError as error:
        raise ClaimError(f"{path}: {error}") from None
    for folder in (str(path.resolve().parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)  # last: nothing that is installed is hidden
    found: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    _run(path, lambda: exec(code, found))
    return found


def _run(path: Path, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (Exception, SystemExit) as error:
        lines = [
            f.lineno
            for f in traceback.extract_tb(error.__traceback__)
            if f.filename == str(path)
        ]
        if isinstance(error, ClaimError) and str(error).startswith(f"{path}, line "):
            raise  # it says where
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        kind = "" if isinstance(error, ClaimError) else f"{type(error).__name__}: "
        hint = (
            "; use sympy's Max, Min, Piecewise, And, Or, not max, min, if, and, or"
            if "truth value" in str(error)
            else ""
        )
        raise ClaimError(f"{where}: {kind}{error}{hint}") from None


def _convert(path: Path, parameter: inspect.Parameter, text: str) -> Any:
    name, default = parameter.name, parameter.default
    choices = (
        get_args(parameter.annotation)
        if get_origin(parameter.annotation) is Literal
        else ()
    )
    if choices and text not in choices:
        raise ClaimError(
            f"{path}: parameter {name}={text!r}: choose one of {', '.join(choices)}"
        )
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ClaimError(f"{path}: parameter {name}={text!r} must be true or false")
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            raise ClaimError(
                f"{path}: parameter {name}={text!r} must be a number"
            ) from None
    return text
