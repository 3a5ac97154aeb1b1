"""Bad inputs, as one table: the exit code, one message that says what is wrong and what to do, and nothing lost."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from mechverify import files, prove
from mechverify.claims.file import load_claim
from mechverify.cli import app
from mechverify.kernel.core.container import pack, unpack
from tests.models import as_bytes, max_weights

ROOT = Path(__file__).parent.parent
PROOF = ROOT / "proofs" / "max_of_k.py"
NET = """import torch
from mechverify import Bounds, Holds, ball, box, capture, tokens
net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)).eval()
def claim(case="plain", radius=1.0):
    model, over = capture(net, torch.zeros(1, 2)), ball([0.0, 0.0], radius)
    out = model["output"]
    if case == "given": return Bounds(out, over=over, given=over[0] >= 5)
    if case == "shape": return Bounds(out, over=ball([0.0, 0.0, 0.0], 1))
    if case == "tokens": return Bounds(out, over=tokens("x", length=2, vocab=3))
    if case == "many": return Bounds(out, over=over, at_most=[1, 2, 3])
    if case == "empty": return Bounds(out, over=box([1.0, 1.0], [0.0, 0.0]))
    if case == "nan": return Bounds(out, over=ball([float("nan"), 0.0], 1))
    if case == "site": return Bounds(model["logits"], over=over)
    if case == "none": return Bounds(out, over=over, at_least=3, at_most=1)
    if case == "strict": return Holds(out[0] < 3, over=over)
    return Bounds(out, over=over)
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Files of the right and of the wrong kinds."""
    folder = tmp_path_factory.mktemp("desk")
    small = folder / "small.safetensors"
    small.write_bytes(as_bytes(max_weights(np.random.default_rng(11), noise=0.08)))
    weights = load_file(small)
    for name, tensor, change in (
        ("nan", "unembed.W_U", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 3, np.nan, a)),
        ("shape", "blocks.0.attn.W_K", lambda a: a[:, :, :2].copy()),
    ):
        save_file({**weights, tensor: change(weights[tensor]).astype(np.float32)}, folder / f"{name}.safetensors")
    save_file({k: v for k, v in weights.items() if k != "unembed.W_U"}, folder / "missing.safetensors")
    save_file({k: v.astype(np.float64) + 1e-12 for k, v in weights.items()}, folder / "double.safetensors")
    torch.save({"a": torch.zeros(3)}, folder / "pickle.pt")
    (folder / "empty").write_bytes(b"")
    (folder / "text.txt").write_text("a shopping list, with milk and eggs\n")
    (folder / "net.py").write_text(NET)
    (folder / "syntax.py").write_text("def claim(:\n")
    (folder / "without.py").write_text("x = 1\n")
    (folder / "folder").mkdir()
    outcome = prove(load_claim(PROOF, {"weights": str(small), "at_least": "1/2"}))
    outcome.save(folder / "good.cert")
    contents = unpack(outcome.certificate)
    document = json.loads(contents["certificate.json"])
    for name, changed in (("newer", {"version": 99}), ("claims", {"conclusion": {
            **document["conclusion"], "right_at_least": "216"}})):  # fmt: skip
        text = json.dumps(document | changed, separators=(",", ":"), sort_keys=True)
        (folder / f"{name}.cert").write_bytes(pack({**contents, "certificate.json": text.encode()}))
    (folder / "cut.cert").write_bytes(outcome.certificate[:-100])
    return folder


MAX = f"prove {shlex.quote(str(PROOF))}"
TABLE = [  # command, exit code, what is said to be wrong, and what to do
    # wrong kinds of files
    ("prove absent.py", 2, "can't read claim file absent.py: No such file", "`mechverify init WEIGHTS` writes one"),
    ("prove folder", 2, "can't read claim file folder: Is a directory", "mechverify init"),
    ("prove small.safetensors", 2, "not a Python claim file", "`mechverify init small.safetensors` writes a claim"),
    ("prove good.cert", 2, "not a Python claim file", "`mechverify check good.cert`"),
    ("prove syntax.py", 2, "syntax.py, line 1", "def claim(:"),
    ("prove without.py", 2, "no function `claim`", "proofs/max_of_k.py for one to copy"),
    (f"{MAX} -p weights=absent", 2, "can't read weights absent: No such file", "give another with -p weights=FILE"),
    (f"{MAX} -p weights=folder", 2, "Is a directory", "-p weights=FILE"),
    (f"{MAX} -p weights=pickle.pt", 2, "a pickle", "safetensors.torch.save_file"),
    (f"{MAX} -p weights=good.cert", 2, "a pickle or a zip", "safetensors.torch.save_file"),
    (f"{MAX} -p weights=text.txt", 2, "not a safetensors file", "safetensors.torch.save_file"),
    (f"{MAX} -p weights=empty", 2, "not a safetensors file: 0 bytes", "safetensors.torch.save_file"),
    # wrong weights
    (f"{MAX} -p weights=nan.safetensors", 2, "unembed.W_U", "mend them and save them again"),
    (f"{MAX} -p weights=shape.safetensors", 2, "blocks.0.attn.W_K has shape", "`mechverify models`"),
    (f"{MAX} -p weights=missing.safetensors", 2, "unembed.W_U is missing", "or capture your torch module"),
    # wrong shapes, impossible claims
    ("prove net.py -p case=shape", 2, "net.py, line 8: Sequential reads real inputs of shapes ((2,),)", "give one box for each"),
    ("prove net.py -p case=tokens", 2, "net.py, line 9: Sequential", "give one box for each"),
    ("prove net.py -p case=many", 2, "at_most has shape (3,)", "give one number, or one for each entry of (1,)"),
    ("prove net.py -p case=empty", 2, "corners of shapes (2,) and (2,)", "must be alike, and low <= high"),
    ("prove net.py -p case=nan", 2, "nan is not a number", "finite"),
    ("prove net.py -p case=site", 2, "no site 'logits'", "it has: input.0, 0, 1, 2, output"),
    ("prove net.py -p case=none", 2, "net.py, line 14: at_least=3 is above at_most=1", "swap them, or give one"),
    ("prove net.py -p case=strict", 2, "is strict", "write <= or >="),
    ("prove net.py -p case=given", 2, "no input of the domain satisfies the claim's conditions", "loosen given="),
    (f"{MAX} -p weights=small.safetensors -p at_least=2", 2, "at_least", "between 0 and 1"),
    (f"{MAX} -p weights=small.safetensors -p at_least=much", 2, "'much' is not a number", "finite"),
    # parameters and options that contradict each other, or that nothing knows
    ("prove net.py -p radius=wide", 2, "parameter radius='wide'", "must be a number"),
    ("prove net.py -p speed=3", 2, "unknown parameter speed", "claim() takes: case='plain', radius=1.0"),
    ("prove net.py -p radius", 2, "-p radius", "write it as name=value"),
    ("prove net.py -p radius=1 -p radius=2", 2, "-p radius", "given twice"),
    ("prove net.py --semantics float16", 2, "--semantics float16: unknown", "choose real or float32"),
    (f"{MAX} -p weights=double.safetensors --semantics float32", 2, "float32 weights", "leave --semantics out"),
    ("prove net.py --strategy fold", 2, "strategies are for claims Accuracy", "leave it out"),
    (f"{MAX} -p weights=small.safetensors --strategy none", 2, "--strategy none: unknown", "`mechverify strategies`"),
    ("prove net.py --method guess", 2, "--method guess: unknown", "choose interval or linear"),
    ("prove net.py --device teapot", 2, "device 'teapot'", "use cpu"),
    ("prove net.py --time-limit -1", 2, "'--time-limit'", "greater than or equal to 0"),
    ("prove net.py --colour red", 2, "No such option: --colour", "--help"),
    ("improve net.py", 2, "No such command 'improve'", "Did you mean 'prove'?"),
    ("check good.cert --about --json", 2, "--about prints a table", "without --json"),
    ("check good.cert --forbid iee754", 2, "unknown axiom", "known: ieee754"),
    ("check", 2, "which certificate?", "mechverify check FILE"),
    # places that can't be written
    ("prove net.py --out nowhere/x.cert", 2, "the folder nowhere doesn't exist", "create it first"),
    ("prove net.py --out folder", 2, "--out folder", "not a file that can be written"),
    ("prove net.py --store text.txt", 2, "--store text.txt: file is not a database", "a file that is new, or a store"),
    ("prove net.py --store nowhere/s", 2, "--store nowhere/s: unable to open", "a file that is new, or a store"),
    ("prove net.py --memory-limit 0", 2, "'--memory-limit'", "greater than or equal to 0.1"),
    ("prove net.py --smtlib nowhere", 2, "--smtlib nowhere: not a folder", "create it first"),
    ("report good.cert --html text.txt", 2, "--html text.txt: a file", "give a folder"),
    ("report good.cert --figures text.txt", 2, "--figures text.txt: a file", "give a folder"),
    ("report good.cert --latex /dev/full", 2, "can't write /dev/full: No space left", "make room"),
    ("report good.cert", 2, "say where to", "--html FOLDER, --latex FILE, --figures FOLDER, or several"),
    ("frontier net.py --out text.txt", 2, "strategies are for claims Accuracy", "with a stated margin"),
    (f"frontier {PROOF} --weights 'no*' --out f", 2, "--weights no*: no such file", "no pattern that fits any"),
    ("circuits without.py --out c", 2, "no function `circuits`", "proofs/running_sum_circuit.py"),
    # certificates
    ("check absent.cert", 2, "can't read absent.cert: No such file", "a file that `mechverify prove` wrote"),
    ("check text.txt", 2, "NOT A CERTIFICATE: text.txt", "a whole file that `mechverify prove` wrote"),
    ("check cut.cert", 2, "NOT A CERTIFICATE: cut.cert", "a whole file"),
    ("check newer.cert", 2, "NOT A CERTIFICATE: newer.cert: format version 99", "check with a release of mechverify that reads it"),
    ("check claims.cert", 1, "REJECTED: claims.cert: right inputs stated: 216", "don't rely on it"),
    ("check good.cert --forbid ieee754", 1, "REJECTED: good.cert", "which you forbid"),
    ("check good.cert --weights nan.safetensors", 1, "other weights than nan.safetensors", "SHA-256 differs"),
    ("check good.cert --limit 10", 3, "NOT CHECKED: good.cert", "--limit allows more"),
    ("show text.txt", 2, "NOT A CERTIFICATE", "a whole file"),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0].replace(str(ROOT), ""))
def test_table(row, desk, monkeypatch):
    command, code, wrong, advice = row
    monkeypatch.chdir(desk)
    before = {path: path.read_bytes() for path in desk.iterdir() if path.is_file()}
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, shlex.split(command))
    assert result.exit_code == code and "Traceback" not in result.output, result.output
    assert not result.stdout, "bad input prints nothing on standard output"
    said = [line for line in result.stderr.splitlines() if line and "units of work, about" not in line]
    message = " ".join(" ".join(said).split())
    assert wrong in message and advice in message and len(said) <= 5, message
    assert {path: path.read_bytes() for path in desk.iterdir() if path.is_file()} == before, "a file was changed"


def started(folder: Path, *words: object, **settings):
    command = [sys.executable, "-m", "mechverify.cli", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE,
        **({"stdout": subprocess.PIPE} | settings),
    )  # fmt: skip


def test_a_full_disk_loses_nothing(desk):
    """The verdict is printed, and the certificate kept where there is room."""
    done = CliRunner().invoke(app, ["prove", str(desk / "net.py"), "--out", "/dev/full"])
    assert done.exit_code == 2 and "BOUNDED" in done.stdout and "No space left on device" in done.stderr
    kept = Path(done.stderr.split("the certificate is kept in ")[1].strip())
    assert CliRunner().invoke(app, ["check", str(kept)]).exit_code == 0
    kept.unlink()


def test_a_full_standard_output_is_no_verdict(desk):
    with open("/dev/full", "w") as full:
        for command in (("check", "good.cert"), ("show", "good.cert"), ("check", "claims.cert", "--json")):
            process = started(desk, *command, stdout=full)
            _, said = process.communicate(timeout=120)
            if "claims.cert" in command:
                assert process.returncode == 1 and "REJECTED" in said
            else:
                assert process.returncode == 2 and "can't write to standard output: No space left" in said
        words = [sys.executable, "-m", "mechverify.kernel", str(desk / "good.cert")]
        kernel = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert kernel.returncode == 3 and "can't write to standard output" in kernel.stderr


def test_a_reader_that_has_enough_is_no_rejection(desk):
    read, write = os.pipe()
    process = started(desk, "check", "good.cert", stdout=write)
    os.close(write), os.close(read)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 141 and "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_claim_file_says_so(desk, number):
    (desk / "asleep.py").write_text("import os, time\nopen('awake', 'w').close()\ntime.sleep(60)\n")
    (desk / "awake").unlink(missing_ok=True)
    process = started(desk, "prove", "asleep.py", "--out", "good.cert")
    before, deadline = (desk / "good.cert").read_bytes(), time.monotonic() + 120
    while not (desk / "awake").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 3 and "UNKNOWN" in out and "interrupted" in out + said and "Traceback" not in said
    assert (desk / "good.cert").read_bytes() == before


KILLED = """import os, signal, sys
from pathlib import Path
from mechverify import files
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write(Path(sys.argv[1]), b"new" * 1000)
"""


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.cert"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL and path.read_bytes() == b"old"
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    link = tmp_path / "link.cert"
    link.symlink_to(path)
    files.write(link, b"newer")
    assert link.is_symlink() and path.read_bytes() == b"newer"


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.cert"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.cert"]
