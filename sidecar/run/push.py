"""A catalog file pushed into SQL: by `sidecar push`, which shows and asks, and by `serve --catalog`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import RunError

if TYPE_CHECKING:
    from ..catalog.files import CatalogFile
    from ..settings import Settings
    from ..store.db import Store


def apply(store: Store, path: Path) -> list[str]:
    """Makes the catalog say what the file says; returns a line for each thing changed.

    Raises RunError, with file, line and field, if the file cannot be used."""
    from ..catalog import push
    from ..catalog.files import CatalogFileError

    try:
        diff = push.apply(store, _read(path))
    except CatalogFileError as error:
        raise RunError(str(error)) from None
    lines = [f"{change.kind} {change.id} {change.action}" for change in diff.changes if change.action != "unchanged"]
    return lines + [f"warning: {warning}" for warning in diff.warnings]


def run(settings: Settings, path: Path, ask: bool) -> int:
    """`sidecar push`: shows the difference, asks if it is to, applies, and says what changed.

    Returns the exit code: 1 if the answer was no. Raises RunError if the file cannot be used."""
    from rich.console import Console

    from ..catalog import push
    from ..catalog.diff import render
    from ..catalog.files import CatalogFileError
    from . import prepare

    out = Console(highlight=False, soft_wrap=True)
    try:
        file = _read(path)
        with prepare.store(settings) as store:
            prepare.migrate(settings, store)
            shown = push.plan_push(store, file)
            if shown.is_empty or ask:
                out.print(render(shown))
            if shown.is_empty:
                return 0
            if ask and not _agreed():
                out.print("Nothing was changed.")
                return 1
            out.print(render(push.apply(store, file, shown), done=True))
    except push.CatalogMovedOn as error:
        raise RunError(f"{error}: push again") from None
    except CatalogFileError as error:
        raise RunError(str(error)) from None
    return 0


def _read(path: Path) -> CatalogFile:
    from ..catalog.files import load_catalog

    if not path.is_file():
        raise RunError(f"there is no catalog file {path}")
    return load_catalog(path)


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise RunError("the difference is above; to apply it without being asked, add --yes")
    return input("Apply? [y/N] ").strip().lower() in ("y", "yes")
