"""What must be done once before anything is served: migrations, and the push of `--catalog`.

In a process of its own, beside Valkey's start and the loading of the workers' code.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterator

from . import heap, push
from .errors import RunError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..settings import Settings
    from ..store.db import Store
    from .child import Child
    from .signals import Signals


@dataclass(frozen=True)
class Facts:
    """What the preparation found: lines on what the push changed, and a feature to try."""

    changes: list[str]
    feature_id: str | None


class Preparation:
    """The running preparation, seen from the supervisor."""

    def __init__(self, child: Child):
        self._child = child
        self._output = tempfile.TemporaryFile()  # a pipe would block a child with much to tell
        child.start(stdout=self._output)

    def finish(self, signals: Signals) -> Facts:
        """Waits for the end. Raises RunError with its message if it failed, Stop on a signal."""
        told_at = time.monotonic() + 3.0
        try:
            while self._child.running:
                signals.pause(0.05)
                if time.monotonic() > told_at:
                    print("still starting: the database is being prepared …", flush=True)
                    told_at = time.monotonic() + 5.0
        finally:
            self._child.kill()
        try:
            with self._output as output:
                output.seek(0)
                answer = json.loads(output.read())
        except ValueError:
            raise RunError(f"preparing the database failed (exit code {self._child.exit_code}); see above") from None
        if "error" in answer:
            raise RunError(answer["error"])
        return Facts(answer["changes"], answer["feature_id"])


def main() -> int:
    """Prepares, and writes one line of JSON: `changes` and `feature_id`, or `error`."""
    from .. import settings as settings_module
    from .parent import watch_parent

    watch_parent(lambda: None, grace_s=0.0)
    heap.loading()  # and it ends soon after
    settings = settings_module.load()
    try:
        answer: dict[str, object] = _prepare(settings)
    except RunError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)
    sys.stdout.flush()
    return 0


def _prepare(settings: Settings) -> dict[str, object]:
    with store(settings) as opened:
        migrate(settings, opened)
        _ensure_partitions(settings, opened)
        changes = push.apply(opened, settings.catalog) if settings.catalog is not None else []
        return {"changes": changes, "feature_id": opened.read_sync(_first_metered_feature)}


@contextlib.contextmanager
def store(settings: Settings) -> Iterator[Store]:
    """The SQL store, closed at the end; makes the data folder for SQLite if it has to.

    Raises RunError if the folder cannot be made."""
    from ..store.db import Store

    if settings.database_url is None:
        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot use the data folder {settings.data_dir}: {error.strerror}") from None
    opened = Store(settings.database_address)
    try:
        yield opened
    finally:
        opened.close()


def migrate(settings: Settings, store: Store) -> str:
    """Brings the database to this release's schema; returns the revision.

    Raises RunError if the database cannot be reached or is of a later release."""
    from sqlalchemy.exc import SQLAlchemyError

    from ..settings import mask
    from ..store import migrate as migrations

    try:
        return migrations.upgrade(store)
    except migrations.SchemaTooNew as error:
        raise RunError(f"{error}; install that release of sidecar, or use another database") from None
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise RunError(mask(f"cannot use the database {settings.database_address}: {reason}")) from None


def _ensure_partitions(settings: Settings, store: Store) -> None:
    from ..store import partitions

    try:
        store.write_sync(partitions.ensure, settings.partitions)
    except partitions.PartitionCountDiffers as error:
        raise RunError(str(error)) from None


def _first_metered_feature(conn: Connection) -> str | None:
    """A feature the banner's curl line can check; None in an empty catalog."""
    from sqlalchemy import select

    from ..store.tables import features

    query = select(features.c.id).where(features.c.archived.is_(False), features.c.type != "boolean")
    return conn.execute(query.order_by(features.c.created_at, features.c.id).limit(1)).scalar()


if __name__ == "__main__":
    os._exit(main())  # everything is closed; the interpreter's own end takes longer than the look at the schema
