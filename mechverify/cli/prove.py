"""`mechverify prove`."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mechverify.cli.options import Json, known_semantics, parameters
from mechverify.cli.terminal import COLOURS, EXIT, err, out, print_theorem, stop

if TYPE_CHECKING:
    from mechverify.provers import Outcome
    from mechverify.provers.base import Budget


def prove(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="A claim file; proofs/ has some to copy.")
    ],
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", help="A parameter of the claim, as name=value."),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="The certificate; by default ./<file>.cert."),
    ] = None,
    json_: Json = False,
    semantics: Annotated[
        str,
        typer.Option(
            help="real: exact real arithmetic on these weights; float32: every float32 evaluation."
        ),
    ] = "real",
    time_limit: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds for everything; then what is proved so far."),
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(min=0.1, help="GB for the process; then what is proved so far."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="A file that keeps what is finished: a later call goes on."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that search; the same certificate for any number."
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(
            help="Where they run: processes (here), ray (a cluster that runs, or a local one)."
        ),
    ] = "processes",
    method: Annotated[
        str,
        typer.Option(
            help="How far to go for bounds, from cheap to dear: interval, linear, optimised, branching."
        ),
    ] = "branching",
    device: Annotated[
        str, typer.Option(help="Where the search for bounds computes: cpu, cuda.")
    ] = "cpu",
    solver: Annotated[
        bool,
        typer.Option(help="Ask z3 what bounds leave open (adds the axiom solver:z3)."),
    ] = True,
    smtlib: Annotated[
        Path | None, typer.Option(help="A folder for the solver's queries, as SMT-LIB.")
    ] = None,
    nearest: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds to look for what is true instead of a refuted claim."
        ),
    ] = 10.0,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="One proof strategy and nothing else (mechverify strategies lists them)."
        ),
    ] = None,
) -> None:
    """Search for a proof or a counterexample, write the certificate, and let the kernel check it."""
    from mechverify.claims import ClaimError
    from mechverify.claims.file import load_claim
    from mechverify.errors import in_words
    from mechverify.kernel.core.errors import Rejected, Stopped
    from mechverify.provers import Outcome
    from mechverify.provers import prove as search
    from mechverify.provers.base import METHODS, Budget
    from mechverify.provers.executors import EXECUTORS, begun
    from mechverify.provers.guard import Guard
    from mechverify.provers.nearest import nearest as true_instead
    from mechverify.provers.obligations import Desk
    from mechverify.provers.store import Store
    from mechverify.report.progress import Reporter
    from mechverify.report.result import as_json

    known_semantics(semantics)
    for option, chosen, known in (
        ("--method", method, METHODS),
        ("--executor", executor, EXECUTORS),
    ):
        if chosen not in known:
            stop(f"{option} {chosen}: unknown; choose {' or '.join(known)}")
    target = out_file or Path(file.stem + ".cert")
    _writable(target)
    if smtlib is not None and not smtlib.is_dir():
        stop(f"--smtlib {smtlib}: not a folder; create it first")
    began, budget = context.obj or time.monotonic(), Budget()

    def give_up(reason: str) -> None:
        """Where the search can't even be interrupted."""
        seconds = time.monotonic() - began
        result = as_json(None, "UNKNOWN", None, seconds, 0.0, [reason], semantics)
        print(
            json.dumps(result) if json_ else f"UNKNOWN\n{'note':>16}  {reason}",
            flush=True,
        )
        os._exit(EXIT["UNKNOWN"])

    if time_limit is not None:
        budget.limit(time_limit, began)
    if memory_limit is not None:
        budget.memory = memory_limit * 1e9
    claim = None
    with Reporter(err) as reporter, Guard(budget, err, give_up) as guard, budget:
        guard.step = f"reading {file}"
        try:
            reporter(guard.step, None)
            budget.store = None if store is None else Store(store)
            if store is not None or jobs is not None or executor == "ray":
                budget.desk = Desk(begun(executor, jobs), budget.store)
            claim = load_claim(file, parameters(parameter or []))
            guard.step = "the search"
            outcome = search(claim, semantics=semantics, progress=reporter, budget=budget, method=method,
                             device=device, solver=solver, smtlib=smtlib, strategy=strategy)  # fmt: skip
        except Rejected as error:
            only = "; leave --semantics out" * (semantics != "real")
            told = f"the claim can't be checked: {error}{only}"
            stop(in_words(str(error) if strategy else told))
        except ClaimError as error:
            stop(str(error))
        except Stopped:
            outcome = Outcome(
                "UNKNOWN",
                None,
                None,
                None,
                [guard.reason],
                time.monotonic() - began,
                0.0,
            )
        guard.step, instead = "", []
        unwritten = _write(target, outcome.certificate)
        written = (
            str(target)
            if outcome.certificate is not None and unwritten is None
            else None
        )
        outcome.reasons.extend(_to_go_on(store, budget, outcome.verdict))
        if outcome.unchecked is not None:
            aside = target.with_name(target.name + ".unchecked")
            unwritten = _write(aside, outcome.unchecked) or unwritten
            outcome.reasons.append(
                f"{aside} is what was found; `mechverify check --limit inf {aside}` goes on"
            )
        if (
            claim is not None
            and outcome.verdict == "REFUTED"
            and nearest
            and not budget.interrupted
        ):
            guard.step = "looking for what is true instead"
            reporter(guard.step, None)
            with budget.within(nearest), suppress(Stopped):
                instead = true_instead(claim, semantics, outcome.evidence, budget)
            guard.step = ""
    if json_:
        seconds = outcome.search_seconds, outcome.check_seconds
        result = as_json(
            outcome.theorem,
            outcome.verdict,
            written,
            *seconds,
            outcome.reasons,
            semantics,
        )
        result["nearest"] = instead
        print(json.dumps(result))
    else:
        _print(outcome, written, strategy, instead)
    if unwritten is not None:
        stop(unwritten)
    raise typer.Exit(EXIT[outcome.verdict])


def _writable(target: Path) -> None:
    """Stops where the certificate couldn't be written, before anything is sought."""
    if not target.parent.is_dir():
        stop(
            f"--out {target}: the folder {target.parent} doesn't exist; create it first"
        )
    if target.is_dir() or not os.access(
        target if target.exists() else target.parent, os.W_OK
    ):
        stop(f"--out {target}: not a file that can be written")


def _to_go_on(store: Path | None, budget: "Budget", verdict: str) -> list[str]:
    """What is kept of a search that isn't through, and how it goes on."""
    from mechverify.provers.store import Store

    if isinstance(budget.store, Store) and budget.store.broken:
        return [f"--store {store}: {budget.store.broken}; nothing more was kept"]
    if store is not None and (budget.interrupted or verdict == "UNKNOWN"):
        return [f"{store} keeps what is finished: the same command goes on"]
    if store is None and budget.interrupted:
        return ["to be able to go on next time, keep what is finished: --store FILE"]
    return []


def _print(
    outcome: "Outcome", written: str | None, strategy: str | None, instead: list[str]
) -> None:
    """For people: the theorem, what it cost, where it is, what is true instead, and notes."""
    from mechverify.kernel.core.texts import printable

    def told(label: str, text: str) -> None:
        out.print(f"{label:>16}  {text}", markup=False, soft_wrap=True)

    reasons = outcome.reasons
    if outcome.theorem is None:
        out.print("UNKNOWN", style=COLOURS["UNKNOWN"])
    else:
        print_theorem(outcome.theorem, outcome.verdict)
        if strategy:
            told("strategy", strategy)
        search, check = outcome.search_seconds, outcome.check_seconds
        told("time", f"search {search:.2f} s, check {check:.2f} s")
        told("certificate", printable(str(written)))
    for text in instead:
        told("true instead", text)
    if not reasons and outcome.verdict == "UNKNOWN":
        reasons = ["nothing was proved"]
    for reason in reasons:
        told("note", reason)


def _write(path: Path, certificate: bytes | None) -> str | None:
    """Why it can't be written, if it can't: what was found is told all the same, and kept elsewhere."""
    from mechverify.files import kept, write

    if certificate is None:
        return None
    try:
        write(path, certificate)
    except OSError as error:
        name = path.name if path.suffix else f"{path.name}.cert"
        where = kept(name, certificate)
        hint = (
            "free some space and prove again"
            if where is None
            else f"the certificate is kept in {where}"
        )
        return f"--out {path}: {error.strerror}; {hint}"
    return None
