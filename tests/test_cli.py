"""The command line's contract: exit codes, JSON fields, and one clear message for every bad input."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from mechverify.claims.file import load_claim
from mechverify.cli import app

ROOT = Path(__file__).parent.parent
PROOF = ROOT / "proofs" / "max_of_k.py"


def run(*arguments, code=None):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if code is not None:
        assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def certificate(small_model, tmp_path):
    path = tmp_path / "small.cert"
    run("prove", PROOF, "-p", f"weights={small_model}", "-p", "at_least=1/2", "--out", path, code=0)
    return path


def test_prove_check_show_report(certificate, small_model, tmp_path):
    assert "ACCEPTED" in run("check", certificate, "--weights", small_model, code=0).output
    shown = run("show", certificate, code=0).output
    for part in ("PROVED", "max(x0, x1, x2)", "6^3 = 216", "ieee754", "at least 1/2", "brute force", "wrong on"):
        assert part in " ".join(shown.split()), part
    run("report", certificate, "--html", tmp_path / "html", "--latex", tmp_path / "t.tex", code=0)
    assert "small.cert" in (tmp_path / "html" / "index.html").read_text()
    assert "\\toprule" in (tmp_path / "t.tex").read_text()


FIELDS = {"claim", "verdict", "semantics", "value", "counterexample", "axioms", "cost", "seconds", "certificate"}


@pytest.mark.parametrize(
    ("at_least", "verdict", "code"), [("1/2", "PROVED", 0), ("1", "REFUTED", 1), ("best", "BOUNDED", 0)]
)
def test_json_and_exit_codes(small_model, tmp_path, at_least, verdict, code):
    arguments = "-p", f"weights={small_model}", "-p", f"at_least={at_least}", "--out", tmp_path / "c.cert", "--json"
    result = json.loads(run("prove", PROOF, *arguments, code=code).stdout)
    assert set(result) >= FIELDS and result["verdict"] == verdict and result["axioms"] == ["ieee754"]
    assert set(result["value"]) == {"lower", "upper", "exact_lower", "exact_upper"}
    assert set(result["cost"]) == {"kernel_ops", "brute_force_ops"} and set(result["seconds"]) == {"search", "check"}
    assert result["counterexample"]["expected"] != result["counterexample"]["decoded"]
    again = json.loads(run("check", tmp_path / "c.cert", "--json", code=0).stdout)
    assert again["value"] == result["value"] and again["verdict"] == verdict


def test_unknown_is_exit_3(shipped, tmp_path):
    arguments = (
        "-p",
        f"weights={shipped(10)}",
        "-p",
        "at_least=0.9989",
        "--time-limit",
        "0",
        "--out",
        tmp_path / "c.cert",
    )
    result = run("prove", PROOF, *arguments, code=3)
    assert "time limit" in result.output


def test_two_certificates_of_one_name_keep_their_figures(certificate, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / certificate.name).write_bytes(certificate.read_bytes())
    run("report", certificate, tmp_path / "other" / certificate.name, "--html", tmp_path / "r", code=0)
    page = (tmp_path / "r" / "index.html").read_text()
    assert f"1-{certificate.name}" in page and f"2-{certificate.name}" in page
    run("report", certificate, "--html", certificate, code=2)


def test_models_are_listed_with_their_shapes():
    assert "[heads, d, e]" in " ".join(run("models", code=0).output.split())


def test_a_rejected_certificate_is_exit_1_and_garbage_2(certificate, shipped, tmp_path):
    data = certificate.read_bytes()
    from mechverify.kernel.core.container import pack, unpack

    contents = unpack(data)
    document = json.loads(contents["certificate.json"])
    document["conclusion"]["right_at_least"] = "216"
    certificate.write_bytes(pack({**contents, "certificate.json": json.dumps(document).encode()}))
    assert "REJECTED" in run("check", certificate, code=1).output
    certificate.write_bytes(data)
    run("check", certificate, "--weights", shipped(4), code=1)
    for garbage in (b"", b"PK", data[:-1]):
        certificate.write_bytes(garbage)
        assert "NOT A CERTIFICATE" in run("check", certificate, code=2).output
    run("check", tmp_path / "absent.cert", code=2)


def bad_weights(path: Path, small_model: Path, kind: str) -> None:
    weights = load_file(small_model)
    match kind:
        case "nan":
            weights["unembed.W_U"][1, 2] = np.nan
        case "shape":
            weights["blocks.0.attn.W_K"] = weights["blocks.0.attn.W_K"][:, :, :2].copy()
        case "missing":
            del weights["blocks.0.attn.W_O"], weights["unembed.W_U"]
        case "mlp":
            weights["blocks.0.mlp.W_in"] = np.zeros((7, 3), np.float32)
        case "pickle":
            torch.save({"a": torch.zeros(3)}, path)
            return
        case "empty":
            path.write_bytes(b"")
            return
        case "text":
            path.write_text("weights")
            return
        case "absent":
            return
    save_file(weights, path)


EXPECTED = {
    "nan": "nan at [1, 2]", "shape": "blocks.0.attn.W_K has shape", "missing": "W_O is missing", "mlp": "mlp.W_in",
    "pickle": "pickle", "empty": "0 bytes", "text": "not a safetensors file", "absent": "No such file",
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED)
def test_bad_weights_are_exit_2_with_one_message(small_model, tmp_path, kind):
    path = tmp_path / "bad.safetensors"
    bad_weights(path, small_model, kind)
    result = run("prove", PROOF, "-p", f"weights={path}", "--out", tmp_path / "c.cert", code=2)
    assert EXPECTED[kind] in " ".join(result.output.split()) and str(PROOF) in result.output.replace("\n", "")
    assert not (tmp_path / "c.cert").exists()


HEAD = """from mechverify import Accuracy, tokens, transformer
def claim():
    m = transformer("WEIGHTS")
    x = tokens("x", length=3, vocab=6)
"""
CLAIMS = {
    "syntax": ("def claim(:\n", "line 1"),
    "no claim": ("x = 1\n", "no function `claim`"),
    "raises": ("def claim():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
    "import": ("import nothing_of_that_name\ndef claim(): pass\n", "line 1"),
    "no claim returned": ("def claim():\n    return 3\n", "returned int"),
    "null bytes": ("\0", "null bytes"),
    "leaves": ("def claim():\n    raise SystemExit('bye')\n", "SystemExit: bye"),
    "python's max": (HEAD + "    return Accuracy(m.logits[-1], equals=max(x), over=x)\n", "use sympy's Max"),
    "no star": (HEAD + "    return Accuracy(m.logits[-1], equals=x, over=x)\n", "write Max(*x)"),
    "text": (HEAD + "    return Accuracy(m.logits[-1], equals='x0', over=x)\n", "is text"),
    "no such token": (HEAD + "    return Accuracy(m.logits[-1], equals=x[7], over=x)\n", "x[7]: there are 3 tokens"),
    "no position": (HEAD + "    return Accuracy(m.logits, equals=x[0], over=x)\n", "at which position"),
    "no vector": (
        HEAD + "    return Accuracy(m['blocks.0.attn.hook_pattern'][0], equals=x[0], over=x)\n",
        "one vector",
    ),
    "half a value": (HEAD.replace("vocab=6", "vocab=6, values=[0.5] * 6") + "    return 1\n", "not integers"),
    "half a token": (HEAD.replace("vocab=6", "vocab=6, allowed=[0.5, 1]") + "    return 1\n", "not integers"),
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_bad_claim_files_point_to_the_line(small_model, tmp_path, kind):
    path = tmp_path / "claim.py"
    source, message = CLAIMS[kind]
    path.write_text(source.replace("WEIGHTS", str(small_model)))
    assert message in " ".join(run("prove", path, "--out", tmp_path / "c.cert", code=2).output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["-p", "wieghts=x"], "unknown parameter wieghts; claim() takes: weights="), (["-p", "weights"], "name=value"),
     (["-p", "at_least=much"], "is not a number that is finite"), (["-p", "at_least=2"], "between 0 and 1"),
     (["--semantics", "float16"], "float16"), (["--out", "/nowhere/at/all.cert"], "doesn't exist"),
     (["--out", str(ROOT)], "not a file"), (["-p", "at_least=1", "-p", "at_least=0"], "given twice")],
)  # fmt: skip
def test_bad_parameters(small_model, tmp_path, arguments, message):
    base = ["prove", PROOF, "-p", f"weights={small_model}", "--out", tmp_path / "c.cert"]
    assert message in " ".join(run(*base, *arguments, code=2).output.split())


ISOLATED = (
    """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "torch sympy z3 safetensors rich typer matplotlib jinja2 flint".split():
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
from mechverify.kernel.__main__ main
""".replace("__main__ main", "__main__ import main")
    + "sys.exit(main(sys.argv[2:]))\n"
)


def test_the_kernel_runs_with_numpy_alone(certificate):
    done = subprocess.run(
        [sys.executable, "-I", "-c", ISOLATED, str(ROOT), str(certificate)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "ACCEPTED" in done.stdout, done.stderr
    plain = subprocess.run(
        [sys.executable, "-m", "mechverify.kernel", str(certificate)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=certificate.parent,
    )  # fmt: skip
    assert plain.returncode == 0


def test_about_counts_the_kernel():
    output = run("check", "--about", code=0).output
    for part in ("fold/rule", "axiom ieee754", "axiom libm:float32", "format version 2"):
        assert part in output


FAMILIES = {"compact", "counting", "cut", "fold", "mixtures", "ratios", "relaxation", "replay"}


@pytest.mark.parametrize(("version", "families"), [(2, {"counting", "fold", "replay"}), (3, {"relaxation"})])
def test_a_theorem_rests_on_the_families_that_its_proof_names(version, families):
    output = run("check", "--about", ROOT / "tests" / "data" / f"version_{version}.cert", code=0).output
    names = [line.split()[2] for line in output.splitlines() if re.match(r" +[0-9]+ +[0-9]+  [a-z]", line)]
    assert {name.split("/")[0] for name in names} & FAMILIES == families
    assert "core/exact" not in names and ("core/architectures/transformer" in names) == (version == 2)
    assert "core/float32" not in names and ("core/functions/piecewise" in names) == (version == 3)
    unused = {"core/elementary", "core/operations/concatenation", "core/functions/roots", "relaxation/norms",
              "relaxation/softmax", "relaxation/tables"}  # fmt: skip
    assert not unused & set(names)
    for what in ("tokens", "softmax", "integers"):
        assert (f"core/operations/{what}" in names) == (version == 2)
    assert not [name for name in names if name.startswith("statement")]


def test_float32_semantics_and_forbidden_axioms(small_model, tmp_path):
    path = tmp_path / "single.cert"
    arguments = "-p", f"weights={small_model}", "-p", "at_least=best", "--out", path, "--semantics", "float32", "--json"
    result = json.loads(run("prove", PROOF, *arguments, code=0).stdout)
    assert result["semantics"] == "float32" and result["axioms"] == ["ieee754", "libm:float32"]
    assert "every float32 evaluation" in run("show", path, code=0).output
    assert "libm:float32" in run("check", path, "--forbid", "libm:float32", code=1).output
    exact = run("check", path, "--exact", "--forbid", "ieee754", code=0).output
    assert "axiom  libm:float32" in exact and "axiom  ieee754" not in exact
    assert "unknown axiom" in run("check", path, "--forbid", "iee754", code=2).output
    assert "units of work" in run("check", path, "--limit", "1000", code=3).output


def test_an_exact_check_of_real_semantics_rests_on_nothing(certificate):
    assert "axiom  none" in run("check", certificate, "--exact", "--forbid", "ieee754", code=0).output
    run("check", certificate, "--forbid", "ieee754", code=1)


def test_float32_needs_float32_weights(small_model, tmp_path):
    weights = {k: v.astype(np.float64) + 1e-12 for k, v in load_file(small_model).items()}
    save_file(weights, tmp_path / "double.safetensors")
    arguments = (
        "-p",
        f"weights={tmp_path / 'double.safetensors'}",
        "--out",
        tmp_path / "c.cert",
        "--semantics",
        "float32",
    )
    assert "float32 weights" in run("prove", PROOF, *arguments, code=2).output


def test_a_claim_file_imports_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_it.py").write_text("RADIUS = 0.125\n")
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom beside_it import RADIUS\nfrom mechverify import Bounds, ball, capture\n\n\ndef claim():\n"
        "    net = torch.nn.Linear(1, 1).eval()\n"
        "    return Bounds(capture(net, torch.zeros(1, 1))['output'], over=ball([0.0], RADIUS))\n"
    )
    assert load_claim(tmp_path / "mine.py", {}).over.high[0].tolist() == [0.125]


CIRCUITS = ROOT / "proofs" / "running_sum_circuit.py"


def test_circuits_go_on_where_an_earlier_call_stopped(tmp_path):
    arguments = "circuits", CIRCUITS, "-p", "length=2", "--out", tmp_path
    assert "time limit" in run(*arguments, "--time-limit", 0, code=2).output
    first = run(*arguments, "--minimal", "cardinal", code=0).output
    assert "kept  1 of 8" in first and "every circuit of fewer parts disagrees (1 refuted)" in first
    for path in tmp_path.glob("*.cert"):
        run("check", path, code=0)
    assert len(list(tmp_path.glob("*.cert"))) == 2


def test_circuits_refuse_what_they_cannot_read(tmp_path):
    assert "no function `circuits`" in run("circuits", PROOF, "--out", tmp_path, code=2).output
    assert "choose one of quasi" in run("circuits", CIRCUITS, "--minimal", "least", "--out", tmp_path, code=2).output
    assert "agrees" in run("circuits", CIRCUITS, "--agrees", "often", "--out", tmp_path, code=2).output
    assert "unknown parameter" in run("circuits", CIRCUITS, "-p", "k=3", "--out", tmp_path, code=2).output
