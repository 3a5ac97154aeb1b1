"""A first claim about a model: `mechverify init` looks at weights, or at a module, and writes a claim file that runs.

Some well-known mechanisms are tried on random inputs, and the one that agrees most stands in the file, with how often
it did. That is a guess to begin with, and the file says so; what is true of it, `mechverify prove` finds out.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import perm, prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mechverify.claims.errors import ClaimError
from mechverify.claims.file import namespace
from mechverify.graph import adapters
from mechverify.graph.adapters import gpt2, pair_mlp, transformer_lens
from mechverify.graph.capture import capture
from mechverify.graph.source import CaptureError

SAMPLES = 1_000  # inputs that mechanisms are tried on
LISTED = 2**15  # inputs that are run in seconds: where no shorter proof is known
WITH_NEURONS = 6  # positions, of a first claim: a proof takes seconds
SAYS = {"n_heads": "--heads", "act_fn": "the claim"}
LIKELY = 0.5  # of the samples: a mechanism that agrees on less is no more than a place to write one


class Mechanism(NamedTuple):
    """`text` as the claim has it, of the tokens `x`; `of` values [inputs, length] what it is. `values` is what ids
    mean, `allowed` which of them there are and `given` a condition, as text; `draw` samples such inputs, and `size`
    says of a vocabulary and a length how many there are."""

    text: str
    of: Callable[[np.ndarray], np.ndarray]
    imports: tuple[str, ...] = ()
    values: str = ""
    allowed: str = ""
    given: str = ""
    draw: Callable[[np.random.Generator, int, int], np.ndarray] | None = None
    size: Callable[[int, int], int] = pow


@dataclass(frozen=True)
class Reads:
    """What a model of tokens reads, `length` of them in a first claim and `longest` at most, and writes. `run` gives
    outputs [inputs, outputs] of ids [inputs, length], at the last position, which the claim calls `output`. `source` is
    the file of weights, or None for a module that the lines `made` make; `make` is the claim's line that reads it;
    `told` what is known of it, in words."""

    run: Callable[[np.ndarray], np.ndarray]
    vocab: int
    length: int
    longest: int
    outputs: int
    make: str
    imports: tuple[str, ...]
    told: tuple[str, ...]
    source: str | None
    output: str = "model.logits[-1]"
    made: str = ""


def begin(
    source: str, *, heads: int | None = None, shape: tuple[int, ...] | None = None
) -> str:
    """The text of a claim file about a safetensors file, or about "file.py:name". `heads` of a file in GPT-2's names;
    `shape` of a module's input, without the batch. Raises ClaimError."""
    file, colon, name = source.rpartition(":")
    if colon and file.endswith(".py"):
        return _of_module(Path(file), name, shape)
    if source.endswith(".py"):
        raise ClaimError(
            f"{source}: which module? say {source}:name, by the name that it has in the file"
        )
    try:
        state = load_file(source)
    except (OSError, SafetensorError) as error:
        hint = "write weights with safetensors.torch.save_file, or give a module as FILE.py:name"
        raise ClaimError(
            f"can't read {source} as safetensors: {error}; {hint}"
        ) from None
    try:
        reads = _reads(source, state, heads)
    except CaptureError as error:
        hint = "or write it as a torch module and say `mechverify init FILE.py:name`"
        raise ClaimError(f"{source}: {error}; {hint}") from None
    return _about_tokens(Path(source).name, reads)


# --- Weights ----------------------------------------------------------------------------------------------------------


def _reads(source: str, state: dict[str, torch.Tensor], heads: int | None) -> Reads:
    if pair_mlp.recognises(state):
        module, vocab = adapters.adapt(state).module, len(state["W_x"])
        told = ("two tokens, logits = relu([W_x[a], W_y[b]] W) W_U",)
        return Reads(
            _runs(module, False),
            vocab,
            2,
            2,
            state["W_U"].shape[1],
            "pair_mlp(weights)",
            ("pair_mlp",),
            told,
            source,
            "model.logits",
        )
    normed = any(".ln1." in name or "ln_1" in name for name in state)
    settings: dict[str, Any] = {}
    if gpt2.recognises(state):
        settings = {"n_heads": heads or 1}
    elif transformer_lens.recognises(state):
        if any(".mlp." in name for name in state):
            settings["act_fn"] = "relu"
        if not normed:
            settings["normalization"] = None
        if heads is not None and "embed.W_E" not in state:
            settings["n_heads"] = heads
    adapted = adapters.adapt(state, **settings)  # refuses other names
    has = adapted.flags
    own = not normed and "embed.W_E" in state
    mlp, layers = has.get("act_fn") is not None, has["layers"]
    length = _few(has["d_vocab"], has["n_ctx"])
    if own and layers == has["heads"] == 1:  # rule fold does without running inputs
        length = min(has["n_ctx"], WITH_NEURONS) if mlp else has["n_ctx"]
    elif layers == 2 or has["n_ctx"] == 3:  # repetitions; and a, b and "="
        length = max(length, min(3, has["n_ctx"]))
    options = [f"{name}={value!r}" for name, value in settings.items()]
    if own:
        activation = ', act_fn="relu"' if mlp else ""
        make = f"transformer(weights{activation})"
    else:
        make = f"load(weights, length=length{''.join(f', {o}' for o in options)})"
    told = (
        f"layers: {layers}, heads: {has['heads']}, tokens: {has['d_vocab']}, positions: {has['n_ctx']}",
        *(f"{name}={value!r}: the file doesn't tell, so this was assumed; {SAYS[name]} says another"
          for name, value in settings.items() if name in SAYS and not (name == "n_heads" and heads)),
        *(() if normed else ("no weights of a layer norm, so none is assumed, nor one that was folded away",)),
    )  # fmt: skip
    run = _runs(adapted.module, True)
    outputs = run(np.zeros((1, length), np.int64)).shape[1]
    return Reads(
        run,
        has["d_vocab"],
        length,
        has["n_ctx"],
        outputs,
        make,
        ("transformer" if own else "load",),
        told,
        source,
    )


def _few(vocab: int, longest: int, size: Callable[[int, int], int] = pow) -> int:
    """How many tokens leave no more inputs than can be run; `size` says how many there are."""
    length = 1
    while length < longest and size(vocab, length + 1) <= LISTED:
        length += 1
    return length


def _runs(module: nn.Module, at_last: bool) -> Callable[[np.ndarray], np.ndarray]:
    def run(ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out = module(torch.from_numpy(ids))
        return (out[:, -1] if at_last else out).numpy()

    return run


def _mechanisms(reads: Reads) -> list[Mechanism]:
    """Those that could be meant, by sizes alone."""
    vocab, n, outputs = reads.vocab, reads.longest, reads.outputs
    found = [
        Mechanism("Max(*x)", lambda v: v.max(1), ("Max",)),
        Mechanism("Min(*x)", lambda v: v.min(1), ("Min",)),
        Mechanism("x[-1]", lambda v: v[:, -1]),
        Mechanism("x[0]", lambda v: v[:, 0]),
        Mechanism(f"Mod(sum(x), {outputs})", lambda v: v.sum(1) % outputs, ("Mod",)),
    ]
    if n == 3 and outputs >= vocab - 1:
        allowed = f"[[*range({vocab - 1})]] * 2 + [[{vocab - 1}]]"
        found.append(Mechanism(f"Mod(x[0] + x[1], {vocab - 1})", lambda v: (v[:, 0] + v[:, 1]) % (vocab - 1), ("Mod",),
                               allowed=allowed, draw=_ending(vocab - 1)))  # fmt: skip
    if outputs == 3 and vocab % 2:
        values = f"[*range({vocab // 2 + 1}), *range({-(vocab // 2)}, 0)]"
        found.append(
            Mechanism(
                "sign(sum(x)) + 1", lambda v: np.sign(v.sum(1)) + 1, ("sign",), values
            )
        )
    if n >= 3 and vocab > n and outputs == vocab:
        found.append(Mechanism(
            "sum(Piecewise((b, Eq(a, last)), (0, True)) for a, b in pairwise(rest))", _follows, ("Eq", "Piecewise"),
            given="[Eq(count(last, *rest[:-1]), 1), distinct(*rest)]", draw=_repeating,
            size=lambda v, n: perm(v, n - 1) * (n - 2)))  # fmt: skip
    return found


def _ending(token: int) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    def draw(rng: np.random.Generator, n: int, vocab: int) -> np.ndarray:
        ids = rng.integers(token, size=(SAMPLES, n))
        ids[:, -1] = token
        return ids

    return draw


def _repeating(rng: np.random.Generator, n: int, vocab: int) -> np.ndarray:
    """Distinct tokens, and again one of them, but for the last."""
    rest = rng.permuted(np.tile(np.arange(vocab), (SAMPLES, 1)), axis=1)[:, : n - 1]
    last = rest[np.arange(SAMPLES), rng.integers(n - 2, size=SAMPLES)]
    return np.concatenate([rest, last[:, None]], 1)


def _follows(v: np.ndarray) -> np.ndarray:
    here = (v[:, :-2] == v[:, -1:]).argmax(1)
    return v[np.arange(len(v)), here + 1]


def _fit(reads: Reads) -> tuple[Mechanism, float]:
    """The mechanism that agrees with the model on the largest share of random inputs, and that share."""
    rng, best, most = np.random.default_rng(0), None, -1.0
    for mechanism in _mechanisms(reads):
        if mechanism.draw is None:
            ids = rng.integers(reads.vocab, size=(SAMPLES, reads.longest))
        else:
            ids = mechanism.draw(rng, reads.longest, reads.vocab)
        meant = np.arange(reads.vocab)
        if mechanism.values:  # 0, 1, .., and then the negative ones
            meant[reads.vocab // 2 + 1 :] -= reads.vocab
        share = float((reads.run(ids).argmax(1) == mechanism.of(meant[ids])).mean())
        if share > most:
            best, most = mechanism, share
    assert best is not None
    return best, most


TOKENS = '''"""What {name} computes: a first claim, written by `mechverify init`.

{told}

  mechverify prove THIS_FILE --time-limit 60              # the share of inputs on which it is right
  mechverify prove THIS_FILE -p at_least=0.99 --out it.cert    # a threshold: PROVED, REFUTED or UNKNOWN
{longer}"""

{imports}


def claim({parameters}at_least="best"):
    model = {make}
{over}
    # The mechanism: what you believe that the model computes, in sympy of the tokens x[0] .. x[-1] (docs/language.md).
    # {guess}
    mechanism = {mechanism}
    # Of {output}, the largest entry is the answer. at_least: a share of the inputs, or "best".
    return Accuracy({output}, equals=mechanism, over=x, at_least=at_least{given})
'''


def _about_tokens(name: str, reads: Reads) -> str:
    mechanism, share = _fit(reads)
    pairs = reads.output == "model.logits"  # which have no positions
    first = reads.length
    if mechanism.given:
        first = max(first, _few(reads.vocab, reads.longest, mechanism.size))
    parts = ("values", mechanism.values), ("allowed", mechanism.allowed)
    options = "".join(f", {name}={text}" for name, text in parts if text)
    over = [
        "    # The domain: every sequence of that length; allowed=[[ids], ..] takes fewer tokens at each position.",
        f'    x = tokens("x", length={first if pairs else "length"}, vocab={reads.vocab}{options})',
    ]
    if first < reads.longest:
        over[1:1] = [
            f"    # It reads up to {reads.longest}; of {first} every input can be run in seconds."
        ]
    if mechanism.given:
        said = f"    given = {mechanism.given}  # of other sequences nothing is said"
        over += ["    *rest, last = x", said]
    seen = f"{share:.1%} of {SAMPLES:,} inputs of {reads.longest} tokens"
    guess = f"Of some that were tried this one agrees most: on {seen}."
    if share < LIKELY:
        guess += " That is little: write yours here."
    parameters = (
        {"weights": json.dumps(reads.source, ensure_ascii=False)}
        if reads.source
        else {}
    )
    parameters |= {} if pairs else {"length": str(first)}
    return TOKENS.format(
        name=name,
        told="\n".join(f"* {line}" for line in reads.told),
        longer=""
        if pairs
        else "  mechverify prove THIS_FILE -p length=N                  # other sequences\n",
        imports=_imports(mechanism, reads),
        parameters="".join(f"{name}={text}, " for name, text in parameters.items()),
        make=reads.make,
        over="\n".join(over),
        guess=guess,
        mechanism=mechanism.text,
        output=reads.output,
        given=", given=given" if mechanism.given else "",
    )


def _imports(mechanism: Mechanism, reads: Reads) -> str:
    ours = {"Accuracy", "tokens", *reads.imports, *({"Mod"} & set(mechanism.imports))}
    ours |= {"count", "distinct"} if mechanism.given else set()
    sympys = sorted(set(mechanism.imports) - ours)
    lines = ["from itertools import pairwise\n"] * ("pairwise" in mechanism.text)
    lines += ["import torch"] * bool(reads.made)
    lines += [f"from sympy import {', '.join(sympys)}"] * bool(sympys)
    lines += [""] * bool(lines)
    lines += [f"from mechverify import {', '.join(sorted(ours, key=str.lower))}"]
    return "\n".join([*lines, reads.made]).rstrip()


# --- Modules ----------------------------------------------------------------------------------------------------------

REALS = '''"""How far {name} of {file} can go: a first claim, written by `mechverify init`.

* reads numbers of shape {shape}; its sites: {sites}

  mechverify prove THIS_FILE                                # a range of each output
  mechverify prove THIS_FILE -p at_most=10 --out it.cert    # a threshold: PROVED, REFUTED or UNKNOWN
"""

import torch

from mechverify import Bounds, ball, capture
from {module} import {name}

module = {made}
centre = {centre}  # write an input here that you care about


def claim(radius=0.125, at_least="", at_most=""):
    model = capture(module, centre[None])
    # The domain: all inputs whose numbers differ by at most `radius` from the centre's; box(low, high) has corners.
    over = ball(centre, radius)
    # Any of the sites can stand here, or a list of expressions of their entries, as [model["{output}"][0] - over[0]].
    return Bounds(model["{output}"], over=over, at_least=at_least or None, at_most=at_most or None)
'''
IDS = '''"""What {name} of {file} can say: a first claim, written by `mechverify init`.

* reads {length} of {vocab} tokens; its sites: {sites}

  mechverify prove THIS_FILE                                # a range of each output, over all sequences
  mechverify prove THIS_FILE -p at_most=10 --out it.cert    # a threshold: PROVED, REFUTED or UNKNOWN
"""

import torch

from mechverify import Bounds, capture, tokens
from {module} import {name}

module = {made}


def claim(at_least="", at_most=""):
    model = capture(module, torch.zeros(1, {length}, dtype=torch.long), vocab={vocab})
    # The domain: every sequence. allowed=[[ids], ..] takes fewer; Accuracy(..., equals=mechanism) asks what it answers.
    x = tokens("x", length={length}, vocab={vocab})
    return Bounds(model["{output}"], over=x, at_least=at_least or None, at_most=at_most or None)
'''


def _of_module(file: Path, name: str, shape: tuple[int, ...] | None) -> str:
    if not file.stem.isidentifier():
        raise ClaimError(
            f"{file}: a claim imports it, so its name must be one of Python: rename it to my_model.py, say"
        )
    found = namespace(file, "module").get(name)
    if found is None:
        raise ClaimError(
            f"{file} defines no {name!r}; say {file}:NAME by the name of a module, or of a function that makes one"
        )
    called = not isinstance(found, nn.Module)
    try:
        module = found() if called else found
    except Exception as error:
        raise ClaimError(
            f"{file}:{name}() failed: {type(error).__name__}: {error}; it must need no arguments"
        ) from None
    if not isinstance(module, nn.Module):
        raise ClaimError(
            f"{file}:{name} gives {type(module).__name__}, not a torch module"
        )
    module.eval()
    known = nn.Linear | nn.Embedding
    first, *others = [*(m for m in module.modules() if isinstance(m, known)), None]
    vocab = first.num_embeddings if isinstance(first, nn.Embedding) else None
    if shape is None and first is None:
        told = "what does it read? Say --shape, without the batch: --shape 3,8,8"
        raise ClaimError(f"{file}:{name}: {told}")
    if shape is None:
        if isinstance(first, nn.Linear):
            wide = first.in_features
        else:  # a second table is of positions
            tables = [m.num_embeddings for m in others if isinstance(m, nn.Embedding)]
            wide = _few(vocab or 1, (tables or [3])[0])
        shape = (wide,)
    example = torch.zeros(1, *shape, dtype=None if vocab is None else torch.long)
    try:
        sites = capture(module, example, vocab=vocab).sites
    except CaptureError as error:
        raise ClaimError(
            f"{file}:{name} on an input of shape {shape} (--shape says another): {error}"
        ) from None
    listed, made = ", ".join([*sites][:12]), f"{name}{'()' if called else ''}.eval()"
    output = next(
        s for s in [*sites] if s.split(".")[0] == "output"
    )  # of several, the first
    about = {"name": name, "file": file.name, "module": file.stem, "shape": shape, "sites": listed, "made": made,
             "output": output}  # fmt: skip
    if vocab is None:
        return REALS.format(**about, centre=_centre(module, shape))
    about |= {"vocab": vocab, "length": shape[0]}
    told = (
        f"reads {shape[0]} tokens (--shape says another number) of a vocabulary of {vocab}; its sites: {listed}",
    )
    line = f"capture(module, torch.zeros(1, length, dtype=torch.long), vocab={vocab})"
    made = f"from {file.stem} import {name}\n\nmodule = {made}"
    outputs, at = _answers(module, shape[0])
    if outputs < 2:
        return IDS.format(**about)
    reads = Reads(_runs(module, at == "[-1]"), vocab, shape[0], shape[0], outputs, line, ("capture",), told, None,
                  f'model["output"]{at}', made)  # fmt: skip
    return _about_tokens(f"{name} of {file.name}", reads)


def _answers(module: nn.Module, length: int) -> tuple[int, str]:
    """Of how many outputs a module of tokens takes the largest, and where they stand in what it gives; 0 where it
    doesn't look like that."""
    try:
        with torch.inference_mode():
            out = module(torch.zeros(2, length, dtype=torch.long))
        shape = tuple(out.numpy().shape)
    except Exception:  # it may do anything: then nothing is guessed
        return 0, ""
    at = {2: "", 3: "[-1]"}.get(len(shape))
    return (0, "") if at is None or shape[0] != 2 else (shape[-1], at)


def _centre(module: nn.Module, shape: tuple[int, ...]) -> str:
    """As text. Numbers near zero are normalised to any direction, so that next to nothing is true of what follows."""
    normed = any("norm" in type(part).__name__.lower() for part in module.modules())
    return (
        f"(torch.arange({prod(shape)}) % 2 * 2.0 - 1).reshape{shape}"
        if normed
        else f"torch.zeros{shape}"
    )
