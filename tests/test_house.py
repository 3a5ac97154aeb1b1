"""The house keeps its shape: imports point down, and the kernel stands alone."""

import ast
import subprocess
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent


def test_imports_point_down():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def in_a_circle(imports: dict[str, set[str]]) -> set[str]:
    """The modules from which imports lead back to them."""

    def reached(module: str) -> set[str]:
        seen: set[str] = set()
        path = [module]
        while path:
            path += (new := imports[path.pop()] - seen)
            seen |= new
        return seen

    return {module for module in imports if module in reached(module)}


def test_no_module_imports_itself_in_a_circle():
    """Imports within functions count; outside the kernel, those for types alone as well."""
    for types in (False, True):
        graph = grimp.build_graph("mechverify", cache_dir=None, exclude_type_checking_imports=not types)
        imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
        assert len(imports) > 100
        assert not {m for m in in_a_circle(imports) if not (types and m.startswith("mechverify.kernel."))}
    imports["mechverify.claims.errors"] = {"mechverify.provers.chain"}
    assert in_a_circle(imports) >= {"mechverify.claims.errors", "mechverify.provers.chain", "mechverify.claims.bounds"}


def test_the_kernel_imports_only_numpy_and_the_standard_library():
    for path in (ROOT / "mechverify" / "kernel").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top == "numpy" or name.startswith("mechverify.kernel") or top in sys.stdlib_module_names, (
                    path,
                    name,
                )
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "__import__", "compile"}, path


PIPES = [  # between a process and those that it started itself
    ROOT / "mechverify" / "provers" / f"{name}.py" for name in ("executors", "obligations", "worker")
]


PICKLES = {"pickle", "dill", "joblib", "shelve", "diskcache", "cloudpickle", "marshal"}


def reads_pickles(source: str) -> bool:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
            if PICKLES & {name.split(".")[0] for name in names}:
                return True
        if isinstance(node, ast.Call):
            said = {k.arg: ast.unparse(k.value) for k in node.keywords}
            torchs = ast.unparse(node.func) == "torch.load" and said.get("weights_only") != "True"
            if torchs or said.get("allow_pickle", "False") != "False":
                return True
    return False


def test_no_pickle_is_ever_read():
    """From a file, or from anybody else."""
    for source in ("torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "import marshal",
                   "from pickle import loads", "import joblib.memory"):  # fmt: skip
        assert reads_pickles(source), source
    assert not reads_pickles("torch.load(f, weights_only=True)\nnp.load(f)")
    paths = [path for folder in ("mechverify", "toy_models", "proofs") for path in (ROOT / folder).rglob("*.py")]
    assert {path for path in paths if reads_pickles(path.read_text())} == {*PIPES}
