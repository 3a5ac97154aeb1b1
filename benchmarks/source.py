"""What the kernel's source says of itself: imports, forbidden calls, and calls that come back to their caller."""

import ast
import sys
from pathlib import Path

KERNEL = Path(__file__).parent.parent / "mechverify" / "kernel"
FORBIDDEN = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
MODULES = {"pickle", "importlib", "marshal", "ctypes", "subprocess", "shelve", "runpy", "code"}
RECEIVERS = {"ar": "Arithmetic", "semantics": "Real"}  # what these names hold, wherever the kernel uses them
Function = tuple[str, str]  # module, qualified name


def trees() -> dict[str, ast.Module]:
    names = {p: ".".join(p.relative_to(KERNEL.parent.parent).with_suffix("").parts) for p in KERNEL.rglob("*.py")}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text()) for path, name in sorted(names.items())}


def foreign_imports() -> list[str]:
    """Imports beyond the standard library, numpy and the kernel itself, and those that load code."""
    found = []
    for module, tree in trees().items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                own = name == "mechverify.kernel" or name.startswith("mechverify.kernel.")
                if not (own or top == "numpy" or top in sys.stdlib_module_names) or top in MODULES:
                    found.append(f"{module}: {name}")
    return found


def forbidden_calls() -> list[str]:
    """Mentions, not only calls, of what evaluates or imports text (`re.compile` is an attribute, and no such name)."""
    return [
        f"{module}: {node.id}"
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in FORBIDDEN
    ]


def recursive_functions() -> list[str]:
    """Functions from which a chain of calls leads back to themselves. An attribute's method is looked up by name in
    every class of the kernel, but for `self`, modules and RECEIVERS, where the class is known."""
    graph = _Calls(trees()).graph
    found = []
    for start in graph:
        seen, todo = set(), list(graph[start])
        while todo:
            here = todo.pop()
            if here not in seen:
                seen.add(here)
                todo += graph.get(here, ())
        if start in seen:
            found.append(":".join(start))
    return found


class _Calls:
    def __init__(self, modules: dict[str, ast.Module]):
        self.graph: dict[Function, set[Function]] = {}
        self.functions: dict[str, dict[str, Function]] = {}  # module -> name -> function or class
        self.methods: dict[str, dict[str, Function]] = {}  # class -> name -> method
        self.bases: dict[str, list[str]] = {}
        self.aliases: dict[str, dict[str, str]] = {}  # module -> name -> module
        for module, tree in modules.items():
            self._declare(module, tree)
        for module, tree in modules.items():
            self._imports(module, tree, modules)
        for module, tree in modules.items():
            self._visit(module, tree, "", None, self.functions[module])

    def _declare(self, module: str, tree: ast.Module) -> None:
        self.functions[module] = {}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                self.functions[module][node.name] = module, node.name
            elif isinstance(node, ast.ClassDef):
                methods = {f.name: (module, f"{node.name}.{f.name}") for f in node.body
                           if isinstance(f, ast.FunctionDef)}  # fmt: skip
                self.methods[node.name] = methods
                self.bases[node.name] = [b.id for b in node.bases if isinstance(b, ast.Name)]
                if "__init__" in methods:
                    self.functions[module][node.name] = methods["__init__"]

    def _imports(self, module: str, tree: ast.Module, modules: dict[str, ast.Module]) -> None:
        self.aliases[module] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for a in node.names:
                    target, name = f"{node.module}.{a.name}", a.asname or a.name
                    if target in modules:
                        self.aliases[module][name] = target
                    elif a.name in self.functions.get(node.module or "", {}):
                        self.functions[module][name] = self.functions[node.module][a.name]

    def _visit(self, module: str, node: ast.AST, prefix: str, owner: str | None, scope: dict[str, Function]) -> None:
        """Enter functions and classes below `node`; calls are collected where a function is entered."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                self._visit(module, child, f"{child.name}.", child.name, scope)
            elif isinstance(child, ast.FunctionDef):
                name = f"{prefix}{child.name}"
                inner = {f.name: (module, f"{name}.{f.name}") for f in ast.walk(child)
                         if isinstance(f, ast.FunctionDef) and f is not child}  # fmt: skip
                within = scope | inner
                self.graph[module, name] = {t for call in _calls(child) for t in self._targets(module, owner, within,
                                                                                              call)}  # fmt: skip
                self._visit(module, child, f"{name}.", owner, within)
            else:
                self._visit(module, child, prefix, owner, scope)

    def _targets(self, module: str, owner: str | None, scope: dict[str, Function], call: ast.expr) -> set[Function]:
        if isinstance(call, ast.Name):
            return {scope[call.id]} if call.id in scope else set()
        if not isinstance(call, ast.Attribute):
            return set()
        receiver = call.value.id if isinstance(call.value, ast.Name) else getattr(call.value, "attr", "")
        if receiver in self.aliases[module]:
            target = self.functions[self.aliases[module][receiver]].get(call.attr)
            return {target} if target else set()
        if receiver == "self" and owner:
            classes = self._related(owner)
        elif receiver in RECEIVERS:
            classes = self._related(RECEIVERS[receiver])
        elif receiver in {"np", "json", "re", "math", "struct", "hashlib", "zlib"}:
            return set()
        else:
            classes = set(self.methods)
        return {self.methods[c][call.attr] for c in classes if call.attr in self.methods.get(c, {})}

    def _related(self, name: str) -> set[str]:
        """A class, its bases and its subclasses."""
        found = {name}
        while True:
            more = {b for c in found for b in self.bases.get(c, [])} | {c for c, b in self.bases.items()
                                                                       if set(b) & found}  # fmt: skip
            if more <= found:
                return found
            found |= more


def _calls(function: ast.FunctionDef) -> list[ast.expr]:
    """What a function calls in its own body; nested functions are functions of their own, lambdas are not."""
    found, todo = [], list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.Call):
            found.append(node.func)
        todo += ast.iter_child_nodes(node)
    return found


if __name__ == "__main__":
    print(foreign_imports(), forbidden_calls(), recursive_functions(), sep="\n")
