"""The `sidecar` command. Each command loads what it needs when it runs, so that `--help` is quick.

Exit codes: 0 done; 1 refused or failed, with the reason on stderr; 2 wrong usage. `audit` has its
own: 0 no differences, 1 some, 2 could not compare.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer

from .run.errors import RunError
from .settings import SettingsError, load, mask

EXIT_FAILED = 1
EXIT_AUDIT_IMPOSSIBLE = 2

app = typer.Typer(
    name="sidecar",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # its tracebacks show local variables, keys included
    help="""Usage limits, prepaid top-ups and credits, answered beside your application.

[bold]sidecar serve[/] runs everything with no configuration: HTTP API, Redis-compatible store, SQL and \
sync worker, with all data in ./.sidecar.

Settings come from flags, SIDECAR_* variables, or a .env file, in this order; [bold]sidecar config[/] \
shows the result.""",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage (audit: 2 could not compare).",
)

DataDir = Annotated[
    Optional[Path], typer.Option("--data-dir", help="Folder of all embedded files (default ./.sidecar)", show_default=False)
]


@app.command(
    epilog="Examples:  sidecar serve --catalog docs/examples/chat.py  |  "
    "SIDECAR_SECRET_KEYS=am_sk_test_1 sidecar serve --port 9000 --workers 2 --uds /tmp/sidecar.sock"
)
def serve(
    host: Annotated[Optional[str], typer.Option(help="Address to listen on (default 127.0.0.1)", show_default=False)] = None,
    port: Annotated[Optional[int], typer.Option(help="TCP port; 0 takes a free one (default 8700)", show_default=False)] = None,
    uds: Annotated[Optional[Path], typer.Option(help="Unix socket to listen on as well", show_default=False)] = None,
    data_dir: DataDir = None,
    workers: Annotated[Optional[int], typer.Option(help="HTTP worker processes (default 1)", show_default=False)] = None,
    catalog: Annotated[
        Optional[Path], typer.Option(help="Catalog file (.py, .yaml, .json) pushed before listening", show_default=False)
    ] = None,
) -> None:
    """Run the sidecar until Ctrl-C or SIGTERM.

    Without SIDECAR_SECRET_KEYS it makes a test key, keeps it in the data folder and prints it.

    Without --catalog it starts with the catalog it has, which is empty at first, and changes none.

    A first Ctrl-C finishes the calls in flight, a second one is quicker."""
    settings = load(host=host, port=port, uds=uds, data_dir=data_dir, workers=workers, catalog=catalog)
    from .run.supervisor import serve as run

    raise typer.Exit(run(settings))


@app.command(epilog="Example:  SIDECAR_REDIS_URL=redis://… SIDECAR_DATABASE_URL=postgresql://… sidecar sync")
def sync(data_dir: DataDir = None) -> None:
    """Run one sync worker alone, which carries Redis' log into SQL.

    Beside an external Redis, or beside the `sidecar serve` that runs on the data folder. Two or more
    may run at once."""
    settings = load(data_dir=data_dir)
    from .run import sync_worker

    raise typer.Exit(sync_worker.alone(settings))


@app.command(epilog="Example:  sidecar audit --data-dir /var/lib/sidecar || echo 'differences, or could not compare'")
def audit(data_dir: DataDir = None) -> None:
    """Compare Redis with SQL, customer by customer, and print the differences.

    Beside a running sidecar or alone: then it starts the embedded Valkey for the duration. Exit
    code 0: no differences; 1: some; 2: could not compare."""
    try:
        settings = load(data_dir=data_dir)
        from .run.audit import run

        code = run(settings)
    except (SettingsError, RunError, OSError) as error:
        _fail(error, EXIT_AUDIT_IMPOSSIBLE)
    raise typer.Exit(code)


@app.command(epilog="Example:  sidecar explain ada messages --entity seat-1")
def explain(
    customer: Annotated[str, typer.Argument(help="Id of the customer", show_default=False)],
    feature: Annotated[str, typer.Argument(help="Id of the feature", show_default=False)],
    entity: Annotated[str, typer.Option("--entity", help="As a call with this entity sees it", show_default=False)] = "",
    data_dir: DataDir = None,
) -> None:
    """Show where a customer's units went: who pays next, what limits it, what changed lately.

    Beside a running sidecar or alone, as GET /v1/customers/{id}/explain answers it."""
    settings = load(data_dir=data_dir)
    from .run.explain import run

    raise typer.Exit(run(settings, customer, feature, entity))


@app.command(epilog="Example:  SIDECAR_DATABASE_URL=postgresql://… sidecar migrate")
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to this release's schema; `serve` does so by itself.

    Does nothing on a database that has it. Any number may run at once."""
    settings = load(data_dir=data_dir)
    from .run import prepare

    with prepare.store(settings) as store:
        typer.echo(f"the database is at schema revision {prepare.migrate(settings, store)}")


@app.command(epilog="Example:  sidecar push docs/examples/chat.py --yes")
def push(
    file: Annotated[Path, typer.Argument(help="Catalog as Python, YAML or JSON", show_default=False)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply without asking")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show how a catalog file differs from the catalog, ask, apply, and say what changed.

    Running sidecars see it within a second. Pushing again changes nothing."""
    settings = load(data_dir=data_dir)
    from .run.push import run

    raise typer.Exit(run(settings, file, ask=not yes))


@app.command(epilog="Example:  SIDECAR_PORT=9000 sidecar config")
def config() -> None:
    """Print the effective settings, secrets masked."""
    for name, value in load().masked().items():
        typer.echo(f"{name}={value}")


@app.command()
def version() -> None:
    """Print the version."""
    from . import __version__

    typer.echo(f"sidecar {__version__}")


def main() -> None:
    """The console script: runs a command; a refusal is one message on stderr and exit code 1."""
    try:
        app()
    except (SettingsError, RunError, OSError) as error:
        _fail(error, EXIT_FAILED)


def _fail(error: Exception, code: int) -> NoReturn:
    text = str(error)
    if isinstance(error, OSError):  # a full disk, no right to a file: for people, without a traceback
        text = ": ".join(filter(None, [error.filename and str(error.filename), error.strerror])) or text
    for line in mask(text).splitlines():
        typer.echo(f"sidecar: {line}", err=True)
    sys.exit(code)
