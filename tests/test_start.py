"""`mechverify init`: what it writes runs, and says what was assumed."""

import ast
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from mechverify.claims import ClaimError
from mechverify.cli import app
from mechverify.start import begin

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "models"
WEIGHTS = ROOT / "toy_models" / "weights"
GUESSES = {  # shipped weights, and the mechanism that they were trained for
    "max_of_4_seed0": "Max(*x)",
    "2_heads_max_of_4_seed0": "Max(*x)",
    "running_sum_seed0": "sign(sum(x)) + 1",
    "add_mod_59_seed0": "Mod(sum(x), 59)",
    "induction_of_6_seed0": "Piecewise((b, Eq(a, last))",
}
OTHERS = {  # models made by others: what stands in the file
    "arena-cumsum": "sign(sum(x)) + 1",
    "arena-palindrome": "load(weights, length=length)",
    "arena-sorted-list": "load(weights, length=length)",
    "c113-mlp-seed1": "Mod(sum(x), 113)",
    "decompiled-majority": "n_heads=1: the file doesn't tell, so this was assumed",
    "gbmi-induction8": "Piecewise((b, Eq(a, last))",
    "grokking-113-low-precision": "Mod(x[0] + x[1], 113)",
    "induction6-2heads": "Piecewise((b, Eq(a, last))",
    "induction8-1head": "Piecewise((b, Eq(a, last))",
    "max10-2heads": "Max(*x)",
    "max4-4heads": "Max(*x)",
}


def invoke(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(w) for w in words])


def proved(file: Path, folder: Path, *options: object) -> str:
    """The verdict of the claim file that was written."""
    done = invoke("prove", file, "--time-limit", 20, "--out", folder / "found.cert", *options)
    assert done.exit_code in (0, 3), done.output
    if done.exit_code == 3:  # honest, where a search took too long
        assert "time limit" in done.output
    return done.stdout


@pytest.mark.parametrize("name", GUESSES)
def test_shipped_weights(name, tmp_path):
    text = begin(str(WEIGHTS / f"{name}.safetensors"))
    assert (
        f"mechanism = {GUESSES[name]}" in text.replace("sum(Piecewise", "Piecewise")
        and "100.0% of 1,000 inputs" in text
    )
    (tmp_path / "claim.py").write_text(text)
    if name in ("max_of_4_seed0", "add_mod_59_seed0"):
        assert "BOUNDED" in proved(tmp_path / "claim.py", tmp_path)
        assert "PROVED" in proved(tmp_path / "claim.py", tmp_path, "-p", "at_least=0.99")


def test_what_was_assumed_is_said_where_it_is_seen(tmp_path, monkeypatch):
    """Another number of heads makes another model, which may agree nearly as often."""
    monkeypatch.chdir(tmp_path)
    save_file(gpt2_weights(), "gpt.safetensors")
    assumed = "n_heads=1: the file doesn't tell, so this was assumed; --heads says another"
    done = invoke("init", "gpt.safetensors")
    assert assumed in done.stdout and f"* {assumed}" in Path("claim_gpt.py").read_text()
    done = invoke("init", "gpt.safetensors", "--heads", 2, "--out", "two.py")
    assert "layers: 1, heads: 2, tokens: 6" in done.stdout and "assumed" not in done.stdout
    assert "n_heads=2" in Path("two.py").read_text() and "assumed" not in Path("two.py").read_text()


def gpt2_weights(vocab=6, length=4, width=8):
    rng = np.random.default_rng(0)
    shapes = {
        "wte.weight": (vocab, width), "wpe.weight": (length, width), "ln_f.weight": (width,), "ln_f.bias": (width,),
        **{f"h.0.{name}": shape for name, shape in {
            "ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width), "attn.c_proj.bias": (width,),
            "mlp.c_fc.weight": (width, 4 * width), "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (4 * width, width), "mlp.c_proj.bias": (width,)}.items()},
    }  # fmt: skip
    return {f"transformer.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_repetition_is_asked_of_as_many_tokens_as_can_be_run():
    """It is a condition on the tokens: fewer sequences than there are."""
    text = begin(str(WEIGHTS / "induction_of_6_seed0.safetensors"))
    assert "length=6" in text and "It reads up to" not in text


@pytest.mark.parametrize("name", OTHERS)
def test_models_made_by_others(name, tmp_path):
    """Each makes a claim; which of them are proved in a second is the benchmark's affair."""
    source = SHARED / f"{name}.safetensors"
    if not source.exists():
        pytest.skip(f"{source} isn't here: models made by others are not shipped")
    text = begin(str(source))
    assert OTHERS[name] in text
    (tmp_path / "claim.py").write_text(text)
    from mechverify.claims.file import load_claim

    assert "Accuracy" in repr(load_claim(tmp_path / "claim.py", {}))
    if name in ("c113-mlp-seed1", "arena-palindrome"):
        assert "verdict  BOUNDED" in proved(tmp_path / "claim.py", tmp_path)


NETS = """import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))


def image():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(5, 3), nn.Linear(3, 2)

    def forward(self, ids):
        return self.out(torch.relu(self.embed(ids).sum(1)))


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok, self.pos = nn.Embedding(5, 5), nn.Embedding(4, 5)
        nn.init.eye_(self.tok.weight)
        nn.init.zeros_(self.pos.weight)

    def forward(self, ids):
        return self.tok(ids) + self.pos(torch.arange(ids.shape[1]))


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok = nn.Embedding(5, 5)

    def forward(self, ids):
        return self.tok(ids), 2 * self.tok(ids)


normed = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))
not_one = 3


def broken(size):
    return nn.Linear(size, size)


class Wants(nn.Module):
    def forward(self, x):
        return x.exp()
"""


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [("net", (), "centre = torch.zeros(4,)"), ("normed", (), "centre = (torch.arange(4) % 2 * 2.0 - 1)"),
     ("image", ("--shape", "1,4,4"), "centre = torch.zeros(1, 4, 4)"), ("Wants", ("--shape", "2"), "Bounds("),
     ("Words", (), 'Accuracy(model["output"], equals=mechanism'), ("Pairs", (), 'Bounds(model["output.0"]'),
     ("Last", (), 'length=4, at_least="best"')],
)  # fmt: skip
def test_a_plain_module_from_the_command_line(what, options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = f"nets_{what.lower()}"  # imported once a session
    Path(f"{module}.py").write_text(NETS)
    done = invoke("init", f"{module}.py:{what}", *options)
    assert done.exit_code == 0, done.output
    file = Path(f"claim_{what}.py")
    assert f"mechverify prove {file}" in done.stdout and "THIS_FILE" not in file.read_text()
    assert ast.get_docstring(ast.parse(file.read_text())) and file.read_text().count("#") >= 3
    assert said in file.read_text()
    assert "verdict  BOUNDED" in proved(file, tmp_path)
    if what == "Last":
        assert "mechanism = x[-1]" in file.read_text() and "on 100.0% of 1,000" in file.read_text()
    before = file.read_text()
    again = invoke("init", f"{module}.py:{what}", *options)
    assert again.exit_code == 2 and "is there already" in again.stderr and file.read_text() == before


def test_what_cannot_be_read_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    Path("my-net.py").write_text(NETS)
    Path("text.safetensors").write_text("no weights")
    save_file({}, "empty.safetensors")
    superposition = WEIGHTS / "superposition_5_in_2.safetensors"
    for words, message in (
        (("nets.py",), "which module? say nets.py:name"), (("nets.py:absent",), "defines no 'absent'"),
        (("nets.py:not_one",), "must need no arguments"), (("nets.py:broken",), "must need no arguments"),
        (("nets.py:image",), "--shape says another"), (("nets.py:Wants",), "Say --shape, without the batch"),
        (("nets.py:net", "--shape", "wide"), "as 3,8,8"), (("nets.py:net", "--shape", "3"), "--shape says another"),
        (("my-net.py:net",), "rename it to my_model.py"), (("absent.safetensors",), "or give a module as FILE.py:name"),
        (("text.safetensors",), "safetensors.torch.save_file"), (("empty.safetensors",), "mechverify init FILE.py:name"),
        ((str(superposition),), "mechverify init FILE.py:name"), (("absent.py:net",), "can't read module file absent.py"),
        (("nets.py:net", "--out", "nowhere/c.py"), "a folder that exists"),
    ):  # fmt: skip
        done = invoke("init", *words)
        assert done.exit_code == 2 and not done.stdout and "Traceback" not in done.output, done.output
        assert message in " ".join(done.stderr.split()), done.stderr
    assert not list(tmp_path.glob("claim_*"))


def test_a_module_of_that_name_is_needed():
    with pytest.raises(ClaimError, match="which module"):
        begin("x.py")
