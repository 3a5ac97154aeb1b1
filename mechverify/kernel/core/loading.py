"""Tables whose rows stand in several modules of a package, each loaded where one of its rows is asked for."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

Row = TypeVar("Row")


class Rows(Mapping[str, Row], Generic[Row]):
    """The rows by name; `groups` says which names each module of the package has in its `ROWS`. Other names have no
    row, whatever a module holds."""

    def __init__(self, package: str, groups: Mapping[str, tuple[str, ...]]):
        self.modules = {
            name: f"{package}.{group}"
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
