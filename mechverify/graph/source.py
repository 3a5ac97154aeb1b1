"""What to tell the user when a module can't be captured: where in the code, and what to do."""

import re
import traceback
from pathlib import Path
from typing import Any

from mechverify.graph.messages import clipped
from mechverify.kernel.core.errors import MechverifyError

HERE = Path(__file__).parent
SHOWN = 120  # characters of a line of code
MOST = 15  # operations that one error lists


class CaptureError(MechverifyError, ValueError):
    """A module can't be captured: the message says what, where, and what to do."""

    def __init__(self, message: str):
        super().__init__(clipped(message))


def _users(path: str) -> bool:
    """Whether a file is the user's own, neither torch's nor ours."""
    return not re.search(r"[/\\]torch[/\\]|<", path) and Path(path).parent != HERE


def line_of(node: Any) -> str:
    """'model.py:12: x = ...', the user's line that a program's node comes from."""
    frames = re.findall(
        r'File "(.*)", line (\d+), in .*\n\s*(.*)', node.meta.get("stack_trace") or ""
    )
    own = [f for f in frames if _users(f[0])] or frames
    return (
        f"{Path(own[-1][0]).name}:{own[-1][1]}: {_short(own[-1][2])}"
        if own
        else "line unknown"
    )


def _short(line: str) -> str:
    return line if len(line) <= SHOWN else f"{line[:SHOWN]} ..."


def module_of(node: Any) -> str:
    """The path of the submodule that a program's node comes from."""
    path = next(
        reversed([path for path, _ in node.meta.get("nn_module_stack", {}).values()]),
        "",
    )
    return path.removeprefix("module").removeprefix(".")


def unsupported(problems: list[tuple[Any, str]]) -> CaptureError:
    """All of (node of the program, what to do) in one error."""
    rows = [f"  {module_of(node) or 'the module'}: {str(node.target).removesuffix('.default')} at {line_of(node)}\n"
            f"    {advice}" for node, advice in problems]  # fmt: skip
    unique = list(dict.fromkeys(rows))
    more = [f"  and {len(unique) - MOST} more"] if len(unique) > MOST else []
    return CaptureError(
        f"{len(unique)} operations can't be captured:\n"
        + "\n".join(unique[:MOST] + more)
    )


def export_failed(error: Exception) -> CaptureError:
    """torch.export's error as one message."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if _users(f.filename)
    ]
    where = (
        f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}: {_short(frames[-1].line or '')}"
        if frames
        else ""
    )
    text = f"{type(error).__name__}: {error}"
    if frames and "one_hot" in (frames[-1].line or ""):
        return CaptureError(
            f"one_hot without num_classes depends on the largest token{where}: give num_classes"
        )
    if re.search(r"data-dependent|DataDependent|_local_scalar_dense|\.item\(\)", text):
        return CaptureError(
            f"the module decides by the values of its input{where}. A graph computes the same for every "
            "input: replace the branch by relu, clamp, maximum, minimum or a constant mask, and keep tensors tensors"
        )
    mixed = (
        " (tensors from outside the module: make them buffers)"
        if "dtype" in text
        else ""
    )
    return CaptureError(
        f"torch.export can't follow the module{where}: {text.splitlines()[0][:300]}{mixed}"
    )
