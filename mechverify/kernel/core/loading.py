"""What is loaded where a theorem needs it: modules, and tables whose rows stand in several modules of a package."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")


def late(module: str) -> Any:
    """A module of the kernel, by its name there: also one that stands above."""
    return import_module(f"mechverify.kernel.{module}")


class Rows(Mapping[str, Row], Generic[Row]):
    """The rows by name; `groups` says which names each module of a package of the kernel has in its `ROWS`. Other names
    have no row, whatever a module holds."""

    def __init__(self, package: str, groups: Mapping[str, tuple[str, ...]]):
        self.modules = {
            name: f"mechverify.kernel.{package}.{group}"
            for group, names in groups.items()
            for name in names
        }
        self.loaded: dict[str, Row] = {}

    def __getitem__(self, name: str) -> Row:
        if name not in self.loaded:
            self.loaded[name] = import_module(self.modules[name]).ROWS[name]
        return self.loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)
