"""The command line: prove, check, show, report, frontier and the rest. Exit codes are a contract (docs/cli.md)."""

import io
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from mechverify import STARTED

if TYPE_CHECKING:  # each command imports what it needs, so that --help needs nothing
    from mechverify.kernel import Theorem
    from mechverify.kernel.core.errors import MechverifyError
    from mechverify.report.checked import Checked

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    help="State what a small network computes; get a theorem, a counterexample, or the tightest proved bound.",
)  # fmt: skip
out, err = Console(highlight=False), Console(stderr=True, highlight=False)
EXIT = {"PROVED": 0, "BOUNDED": 0, "REFUTED": 1, "UNKNOWN": 3}
REJECTED, BAD_INPUT, INTERNAL, INTERRUPTED, UNREAD = 1, 2, 70, 130, 141
COLOURS = {"PROVED": "green", "REFUTED": "red", "BOUNDED": "cyan", "UNKNOWN": "yellow"}


def _stop(message: str, code: int = BAD_INPUT) -> NoReturn:
    err.print(message, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


@app.command()
def init(
    model: Annotated[
        str,
        typer.Argument(help="A safetensors file, or FILE.py:name of a torch module."),
    ],
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="The claim file; by default claim_NAME.py."),
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Of weights in GPT-2's names.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="Of a module's input, without the batch, as 3,8,8."),
    ] = None,
) -> None:
    """Look at a model and write a commented claim file about it, which runs."""
    from mechverify.claims import ClaimError
    from mechverify.files import write
    from mechverify.start import begin

    file, colon, name = model.rpartition(":")
    module = bool(colon) and file.endswith(".py")
    folder = Path(file).parent if module else Path()  # a claim imports what is beside
    target = out_file or folder / f"claim_{name if module else _word(model)}.py"
    if target.exists():
        _stop(f"{target} is there already: give another file with --out, or remove it")
    try:
        sizes = tuple(map(int, shape.split(","))) if shape else None
    except ValueError:
        _stop(f"--shape {shape}: write numbers with commas between, as 3,8,8")
    try:
        text = begin(model, heads=heads, shape=sizes).replace("THIS_FILE", str(target))
        write(target, text.encode())
    except ClaimError as error:
        _stop(str(error))
    except OSError as error:
        _stop(f"--out {target}: {error.strerror}; give a file in a folder that exists")
    for line in text.splitlines():
        if line.startswith("* "):
            out.print(line, markup=False, soft_wrap=True)
    out.print(f"{target}: read it, then run", markup=False, soft_wrap=True)
    out.print(
        f"  mechverify prove {target} --time-limit 60", markup=False, soft_wrap=True
    )


def _word(path: str) -> str:
    """A file's name as one of Python."""
    return "".join(c if c.isalnum() else "_" for c in Path(path).stem)


@app.command()
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
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
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
    from mechverify.kernel.core.errors import Rejected, Stopped
    from mechverify.kernel.core.texts import printable
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

    _known_semantics(semantics)
    if method not in METHODS:
        _stop(f"--method {method}: unknown; choose {' or '.join(METHODS)}")
    if executor not in EXECUTORS:
        _stop(f"--executor {executor}: unknown; choose {' or '.join(EXECUTORS)}")
    target = out_file or Path(file.stem + ".cert")
    if not target.parent.is_dir():
        _stop(
            f"--out {target}: the folder {target.parent} doesn't exist; create it first"
        )
    if target.is_dir() or not os.access(
        target if target.exists() else target.parent, os.W_OK
    ):
        _stop(f"--out {target}: not a file that can be written")
    if smtlib is not None and not smtlib.is_dir():
        _stop(f"--smtlib {smtlib}: not a folder; create it first")
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
            claim = load_claim(file, _parameters(parameter or []))
            guard.step = "the search"
            outcome = search(claim, semantics=semantics, progress=reporter, budget=budget, method=method,
                             device=device, solver=solver, smtlib=smtlib, strategy=strategy)  # fmt: skip
        except Rejected as error:
            only = "; leave --semantics out" * (semantics != "real")
            told = f"the claim can't be checked: {error}{only}"
            _stop(str(error) if strategy else told)
        except ClaimError as error:
            _stop(str(error))
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
        if isinstance(budget.store, Store) and budget.store.broken:
            told = f"--store {store}: {budget.store.broken}; nothing more was kept"
            outcome.reasons.append(told)
        elif store is not None and budget.interrupted | (outcome.verdict == "UNKNOWN"):
            outcome.reasons.append(
                f"{store} keeps what is finished: the same command goes on"
            )
        elif budget.interrupted:
            outcome.reasons.append(
                "to be able to go on next time, keep what is finished: --store FILE"
            )
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
    elif outcome.theorem is None:
        out.print("UNKNOWN", style=COLOURS["UNKNOWN"])
    else:
        _print_theorem(outcome.theorem, outcome.verdict)
        if strategy:
            out.print(f"{'strategy':>16}  {strategy}", markup=False, soft_wrap=True)
        out.print(
            f"{'time':>16}  search {outcome.search_seconds:.2f} s, check {outcome.check_seconds:.2f} s",
            f"\n{'certificate':>16}  {printable(str(written))}", sep="", markup=False, soft_wrap=True,
        )  # fmt: skip
    if not json_:
        for text in instead:
            out.print(f"{'true instead':>16}  {text}", markup=False, soft_wrap=True)
        for reason in outcome.reasons or (
            ["nothing was proved"] if outcome.verdict == "UNKNOWN" else []
        ):
            out.print(f"{'note':>16}  {reason}", markup=False, soft_wrap=True)
    if unwritten is not None:
        _stop(unwritten)
    raise typer.Exit(EXIT[outcome.verdict])


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


Limit = Annotated[
    float | None,
    typer.Option(
        "--limit",
        help="Units of work (a nanosecond or two) that the check may cost; without it, what the file says.",
    ),
]


@app.command()
def check(
    certificate: Annotated[Path | None, typer.Argument()] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The weights that the claim should speak of.")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="In exact rationals: slow, and without ieee754."),
    ] = False,
    forbid: Annotated[
        list[str] | None,
        typer.Option(help="Reject if the theorem rests on this axiom."),
    ] = None,
    limit: Limit = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
    about: Annotated[
        bool,
        typer.Option(
            "--about", help="What of the kernel is trusted (of a file, or whole)."
        ),
    ] = False,
) -> None:
    """Run the kernel alone. Exit code 0: accepted, 1: rejected, 2: not a certificate, 3: not checked, by --limit."""
    if about:
        from mechverify.report.about import about as describe
        from mechverify.report.about import about_one

        if certificate is not None:
            if json_ or weights is not None:
                _stop(
                    "--about prints a table, and compares no weights: ask for it without --json and --weights"
                )
            said, code = about_one(certificate, exact, forbid or [], limit)
            out.print(said, markup=False, soft_wrap=True, end="")
            raise typer.Exit(code)
        out.print(describe(), markup=False, soft_wrap=True)
        return
    if certificate is None:
        _stop("which certificate? mechverify check FILE")
    from mechverify.kernel.check import AXIOMS

    for axiom in forbid or []:
        if axiom not in AXIOMS:
            _stop(f"--forbid {axiom}: unknown axiom; known: {', '.join(AXIOMS)}")
    checked = _checked(certificate, limit, exact=exact, forbid=forbid or [])
    theorem, seconds = checked.theorem, checked.seconds
    if weights is not None:
        _same_weights(theorem, weights)
    if json_:
        from mechverify.report.result import as_json

        verdict, name = theorem.verdict, str(certificate)
        print(json.dumps(as_json(theorem, verdict, name, None, seconds, [])))
        return
    out.print("ACCEPTED", style="green")
    _print_theorem(theorem, theorem.verdict)
    out.print(f"{'time':>16}  check {seconds:.2f} s")


@app.command()
def show(
    certificate: Path,
    graph: Annotated[
        bool,
        typer.Option(
            "--graph", help="The graph as formulas, a node a line, and nothing else."
        ),
    ] = False,
    limit: Limit = None,
) -> None:
    """The theorem in words, its axioms, its proof and its cost (after checking it)."""
    from mechverify.kernel.statement.sentence import listing
    from mechverify.report.tree import outline, terminal

    checked = _checked(certificate, limit)
    theorem = checked.theorem
    if graph:
        for line in listing(theorem).lines():
            print(line)
        return
    _print_theorem(theorem, theorem.verdict)
    out.print(terminal(outline(checked.data, theorem)))


@app.command()
def report(
    certificates: list[Path],
    html: Annotated[Path | None, typer.Option(help="A folder for the page.")] = None,
    latex: Annotated[
        Path | None, typer.Option(help="A file for tables and theorems.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="A folder for the pictures, as PDF and PNG.")
    ] = None,
    limit: Limit = None,
) -> None:
    """Pages, tables and pictures of certificates, which are checked first."""
    if html is None and latex is None and figures is None:
        _stop("say where to: --html FOLDER, --latex FILE, --figures FOLDER, or several")
    for option, folder in (("--html", html), ("--figures", figures)):
        if folder is not None and folder.exists() and not folder.is_dir():
            _stop(f"{option} {folder}: a file; give a folder, to write into")
    checked = [_checked(path, limit) for path in certificates]
    target = None
    try:
        if (target := html) is not None:
            from mechverify.report.html import write_html

            _told("report", write_html(html, checked))
        if (target := latex) is not None:
            from mechverify.report.latex import write_latex

            _told("table", write_latex(latex, checked))
        if (target := figures) is not None:
            from mechverify.report.figures import write_figures

            for path in write_figures(figures, checked):
                _told("figure", path)
    except OSError as error:
        where = error.filename or target
        _stop(
            f"can't write {where}: {error.strerror}; give another place, or make room"
        )


def _told(what: str, path: Path) -> None:
    from mechverify.kernel.core.texts import printable

    out.print(f"{what}: {printable(str(path))}", markup=False, soft_wrap=True)


@app.command()
def frontier(
    claims: Annotated[list[Path], typer.Argument(help="Claim files, about accuracy.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", help="A parameter of the claims, as name=value."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help='Models: a file, a folder, or a quoted pattern; gives "-p weights=".'
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="A strategy's name, or a file of your own; by default all but brute."
        ),
    ] = None,
    out_dir: Annotated[
        Path,
        typer.Option("--out", help="The folder for tables, picture, certificates."),
    ] = Path("frontier"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    semantics: Annotated[str, typer.Option(help="real or float32.")] = "real",
) -> None:
    """Proof strategies over models: what each proves, and what it costs. Goes on where an earlier run stopped."""
    from mechverify.claims import ClaimError
    from mechverify.provers.accuracy.strategies import DEFAULT
    from mechverify.provers.frontier import Row, plan, stored
    from mechverify.report.frontier import terminal
    from mechverify.report.measure import measure
    from mechverify.report.progress import Reporter

    _known_semantics(semantics)
    try:
        tasks = plan(
            claims,
            _parameters(parameter or []),
            _files(weights or []),
            strategy or DEFAULT,
            semantics,
        )
    except ClaimError as error:
        _stop(str(error))
    left = sum(stored(out_dir, task) is None for task in tasks)
    try:
        with Reporter(err) as reporter:

            def told(row: Row, missing: int) -> None:
                nonlocal left
                left = missing
                reporter(
                    f"{row.strategy} on {Path(row.weights).name}, {missing} to go",
                    1 - missing / len(tasks),
                )

            rows, known, points = measure(tasks, out_dir, jobs, told)
    except KeyboardInterrupt:
        done = f"{len(tasks) - left} of {len(tasks)} rows are in {out_dir}"
        _stop(f"interrupted; {done}: the same command goes on", INTERRUPTED)
    except OSError as error:
        _stop(f"--out {out_dir}: {error.filename}: {error.strerror}")
    for table in terminal(points):
        _wide().print(table)
    how = ", ".join(sorted({truth.how for truth in known.values()}))
    out.print(
        f"* on the front; true accuracy: {how}; tables and picture: {out_dir}/frontier.*",
        markup=False,
        soft_wrap=True,
    )
    for row in rows:
        if row.reason is not None:
            err.print(
                f"{row.strategy} on {row.weights}: {row.reason}",
                style="red",
                markup=False,
                soft_wrap=True,
            )
    raise typer.Exit(0 if points else EXIT["UNKNOWN"])


@app.command()
def circuits(
    file: Annotated[Path, typer.Argument(help="A file with a function `circuits`.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", help="A parameter of the function, as name=value."),
    ] = None,
    minimal: Annotated[
        str, typer.Option(help="quasi, local, subset or cardinal.")
    ] = "subset",
    agrees: Annotated[
        str, typer.Option(help="argmax, or by how much entries differ at most.")
    ] = "argmax",
    out_dir: Annotated[
        Path, typer.Option("--out", help="The folder for tests and certificates.")
    ] = Path("circuits"),
    time_limit: Annotated[
        float | None, typer.Option(min=0, help="Seconds; the same call goes on.")
    ] = None,
) -> None:
    """A circuit that agrees with its model on every input, where none that is smaller in the sense of --minimal does.
    Goes on where an earlier run stopped."""
    from mechverify.claims import ClaimError
    from mechverify.claims.file import load_circuits
    from mechverify.kernel.core.errors import Rejected, Stopped
    from mechverify.provers import smallest
    from mechverify.provers.base import Budget
    from mechverify.provers.guard import Guard
    from mechverify.report.progress import Reporter

    def give_up(reason: str) -> None:
        """Where the search can't even be interrupted; its tests are kept."""
        print(reason, file=sys.stderr, flush=True)
        os._exit(EXIT["UNKNOWN"])

    budget = Budget()
    with Reporter(err) as reporter, Guard(budget, err, give_up) as guard:
        budget.progress, guard.step = reporter, f"reading {file}"
        try:
            reporter(guard.step, None)
            space = load_circuits(file, _parameters(parameter or []))
            guard.step = "the search"
            found = smallest(
                space, minimal=minimal, agrees=agrees, folder=out_dir,
                time_limit=time_limit, budget=budget,
            )  # fmt: skip
        except ClaimError as error:
            _stop(str(error), INTERRUPTED if budget.interrupted else BAD_INPUT)
        except Rejected as error:
            _stop(f"the claim can't be checked: {error}")
        except Stopped:
            _stop(guard.reason, INTERRUPTED if budget.interrupted else BAD_INPUT)
        except OSError as error:
            _stop(f"--out {out_dir}: {error.strerror or error}")
    for label, text in found.lines(len(space.names)):
        out.print(f"{label:>16}  {text}", markup=False, soft_wrap=True)
    raise typer.Exit(0 if not found.open else EXIT["UNKNOWN"])


def _files(patterns: list[str]) -> list[Path]:
    """The models that files, folders and patterns name, each once, numbers in names in their order."""
    from mechverify.report.frontier import natural

    found: list[Path] = []
    for text in patterns:
        path = Path(text)
        if path.is_dir():
            some = list(path.glob("*.safetensors"))
        elif path.is_file():
            some = [path]
        else:
            some = [Path(name) for name in glob(text)]
        if not some:
            _stop(
                f"--weights {text}: no such file, no folder with .safetensors files, and no pattern that fits any"
            )
        found += sorted(some, key=lambda p: natural(str(p)))
    return list(dict.fromkeys(found))


@app.command()
def models() -> None:
    """The architectures that the kernel builds from weights by itself."""
    from rich.table import Table

    from mechverify.kernel.core.architectures import ARCHITECTURES

    table = Table("architecture", "what it is", box=None)
    for name, build in ARCHITECTURES.items():
        table.add_row(
            name, escape(" ".join((build.__doc__ or "").split("Raises")[0].split()))
        )
    out.print(table)


@app.command()
def strategies() -> None:
    """The proof strategies for claims about accuracy, from dear to cheap."""
    from rich.table import Table

    from mechverify.provers.accuracy.strategies import STRATEGIES

    for precondition in dict.fromkeys(row.precondition for row in STRATEGIES.values()):
        out.print(f"\n{precondition}:", style="dim", soft_wrap=True)
        table = Table(
            "strategy", "operations to check", "proves", box=None, padding=(0, 2)
        )
        for row in STRATEGIES.values():
            if row.precondition == precondition:
                table.add_row(row.name, row.complexity, row.postcondition)
        _wide().print(table)
    out.print(
        "\nv: vocabulary, o: outputs, d: width, k: length of the sequence", style="dim"
    )


def _known_semantics(name: str) -> None:
    from mechverify.kernel.core.semantics import SEMANTICS

    if name not in SEMANTICS:
        _stop(f"--semantics {name}: unknown; choose {' or '.join(SEMANTICS)}")


def _wide() -> Console:
    """Where there is no terminal, tables aren't squeezed into one."""
    return out if out.is_terminal else Console(width=140, highlight=False)


def _parameters(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for (name, equals, _), text in zip(pairs, texts, strict=True):
        if not equals or not name:
            _stop(f"-p {text}: write it as name=value")
    names = [name for name, _, _ in pairs]
    if len(set(names)) < len(names):
        _stop(f"-p {max(names, key=names.count)}: given twice")
    return {name: value for name, _, value in pairs}


def _checked(path: Path, limit: float | None, **options: Any) -> "Checked":
    """What the kernel makes of a file. What it may cost is said before it begins."""
    from mechverify import kernel
    from mechverify.kernel.check import SECONDS
    from mechverify.kernel.core.errors import OverLimit
    from mechverify.kernel.core.texts import printable
    from mechverify.kernel.core.words import units
    from mechverify.report.checked import Checked
    from mechverify.report.progress import Reporter

    try:
        data = path.read_bytes()
    except OSError as error:
        hint = "; give a file that `mechverify prove` wrote"
        _stop(f"can't read {printable(str(path))}: {error.strerror}{hint}")
    start, named = time.monotonic(), printable(str(path))
    with Reporter(err) as reporter:

        def watch(work: int, allowed: float) -> None:
            if not work:
                err.print(
                    f"at most {units(allowed)} units of work, about {_duration(SECONDS * allowed)}",
                    soft_wrap=True,
                )
            reporter("the kernel checks the certificate", work / allowed)

        try:
            theorem = kernel.check(data, limit=limit, watch=watch, **options)
        except kernel.NotACertificate as error:
            _stop(f"NOT A CERTIFICATE: {named}: {error}{_hint(error)}")
        except OverLimit as error:
            _stop(f"NOT CHECKED: {named}: {error}", EXIT["UNKNOWN"])
        except kernel.Rejected as error:
            _stop(f"REJECTED: {named}: {error}{_hint(error)}", REJECTED)
        except KeyboardInterrupt:
            _stop(f"NOT CHECKED: {named}: interrupted; check it again", INTERRUPTED)
    return Checked(path, theorem, time.monotonic() - start, data)


def _hint(error: "MechverifyError") -> str:
    from mechverify.errors import advice

    return f"; {text}" if (text := advice(error)) else ""


def _duration(seconds: float) -> str:
    for unit, size in (
        ("years", 31_556_952),
        ("days", 86_400),
        ("hours", 3_600),
        ("minutes", 60),
    ):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(seconds, 0.1):.1f} s"


def _same_weights(theorem: "Theorem", weights: Path) -> None:
    import hashlib

    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        _stop(f"can't read {weights}: {error.strerror}")
    if digest != theorem.claim.weights_sha256:
        _stop(
            f"REJECTED: the theorem speaks of other weights than {weights} (SHA-256 differs)",
            REJECTED,
        )


def _print_theorem(theorem: "Theorem", verdict: str) -> None:
    from mechverify.report.statement import lines

    if (
        not out.is_terminal
    ):  # nothing is wrapped, so that hashes can be found and copied
        for label, text in lines(theorem):
            print(f"{label:>16}  {verdict if label == 'verdict' else text}")
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in lines(theorem):
        if label == "verdict":
            table.add_row(label, f"[bold {COLOURS[verdict]}]{verdict}[/]")
        else:
            table.add_row(label, escape(text))
    out.print(table)


def _terminate(number: int, frame: Any) -> None:
    """A scheduler's Ctrl-C, also in a background job, where a shell has SIGINT ignored."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


class Stdout(io.TextIOWrapper):
    """Where it can't be written, the exit code must not look like a verdict."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> NoReturn:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # for what is left
        if isinstance(error, BrokenPipeError):  # whoever reads it has enough
            raise SystemExit(UNREAD) from None
        told = "what was asked to be written is written all the same; make room"
        said = f"can't write to standard output: {error.strerror}; {told}"
        err.print(said, style="red", soft_wrap=True)
        raise SystemExit(BAD_INPUT) from None


def main() -> None:
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stderr, io.TextIOWrapper):  # a file's name may be no text
        sys.stderr.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, buffered = sys.stdout.encoding, sys.stdout.line_buffering
        sys.stdout = Stdout(
            sys.stdout.detach(), encoding, "backslashreplace", None, buffered
        )
    try:
        app(obj=STARTED)
    except Exception:  # a defect of ours must not look like a refutation
        traceback.print_exc()
        sys.exit(INTERNAL)


if __name__ == "__main__":
    sys.exit(main())
