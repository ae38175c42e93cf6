"""The command line: what each command prints, its exit codes, and refusals that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from .harness import REPOSITORY, Sidecar, command

EXAMPLE = str(REPOSITORY / "docs" / "examples" / "chat.py")


@pytest.mark.parametrize("args", [[], ["serve"], ["sync"], ["audit"], ["migrate"], ["push"], ["config"], ["version"]])
def test_help_teaches(tmp_path: Path, args: list[str]) -> None:
    done = command(*args, "--help", cwd=tmp_path)
    assert done.returncode == 0 and "Usage:" in done.stdout and done.stderr == ""


def test_config_prints_the_effective_settings_and_no_secret(tmp_path: Path) -> None:
    done = command("config", cwd=tmp_path, settings={
        "SIDECAR_PORT": "9000", "SIDECAR_SECRET_KEYS": "am_sk_test_hunter2,am_pk_test_hunter2",
        "SIDECAR_REDIS_URL": "redis://:hunter2@h:1", "SIDECAR_DATABASE_URL": "postgresql://u:hunter2@h/d",
    })
    assert done.returncode == 0 and "hunter2" not in done.stdout
    lines = done.stdout.splitlines()
    assert "SIDECAR_PORT=9000" in lines and "SIDECAR_REDIS_URL=redis://:****@h:1" in lines
    assert "SIDECAR_SECRET_KEYS=am_sk_test_****, am_pk_test_****" in lines


def test_config_of_a_wrong_setting_is_one_line_on_stderr(tmp_path: Path) -> None:
    done = command("config", cwd=tmp_path, settings={"SIDECAR_WORKER": "2"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "sidecar: SIDECAR_WORKER: no such setting; did you mean SIDECAR_WORKERS?\n"


def test_an_unknown_flag_is_wrong_usage(tmp_path: Path) -> None:
    assert command("serve", "--prot", "1", cwd=tmp_path).returncode == 2


def test_migrate_twice(tmp_path: Path, pg_url: str) -> None:
    for settings in ({}, {"SIDECAR_DATABASE_URL": pg_url}):
        first, second = (command("migrate", cwd=tmp_path, settings=settings) for _ in range(2))
        assert first.returncode == second.returncode == 0, first.stderr
        assert first.stdout == second.stdout and "schema revision" in first.stdout


def test_migrate_of_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    done = command("migrate", cwd=tmp_path, settings={"SIDECAR_DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/d"})
    assert done.returncode == 1 and "cannot use the database" in done.stderr
    assert "hunter2" not in done.stderr and "Traceback" not in done.stderr


def test_push_asks_applies_and_the_second_changes_nothing(tmp_path: Path) -> None:
    asked = command("push", EXAMPLE, cwd=tmp_path)
    assert asked.returncode == 1 and "add --yes" in asked.stderr and "feature messages" in asked.stdout
    first = command("push", EXAMPLE, "--yes", cwd=tmp_path)
    assert first.returncode == 0 and "added" in first.stdout
    second = command("push", EXAMPLE, "--yes", cwd=tmp_path)
    assert second.returncode == 0 and "Nothing to change." in second.stdout


def test_push_of_a_wrong_file_names_file_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("features:\n  - id: messages\n    name: Messages\n    type: nonsense\n")
    done = command("push", str(path), "--yes", cwd=tmp_path)
    assert done.returncode == 1 and f"{path}:4: features.messages.type" in done.stderr, done.stderr
    missing = command("push", "nowhere.py", cwd=tmp_path)
    assert missing.returncode == 1 and "there is no catalog file" in missing.stderr


def test_serve_with_a_wrong_catalog_says_so_and_leaves_nothing(sidecar: Sidecar, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("features:\n  - id: messages\n    name: Messages\n    type: nonsense\n")
    done = command("serve", "--catalog", str(path), cwd=tmp_path, settings=sidecar.settings)
    assert done.returncode == 1 and f"{path}:4:" in done.stderr
    assert sidecar.processes() == []


def test_serve_pushes_the_catalog_it_is_given_and_else_changes_none(sidecar: Sidecar) -> None:
    sidecar.start()
    assert '/v1/customers' in sidecar.output
    sidecar.stop()
    sidecar.start("--catalog", EXAMPLE)
    assert "feature messages added" in sidecar.output and '"feature_id": "messages"' in sidecar.output
    sidecar.stop()
    sidecar.start()
    assert "added" not in sidecar.output and '"feature_id": "messages"' in sidecar.output


def test_serve_on_external_stores_starts_no_embedded_ones(sidecar: Sidecar, valkey, pg_migrated_url: str) -> None:  # type: ignore[no-untyped-def]
    sidecar.settings |= {"SIDECAR_REDIS_URL": valkey.url, "SIDECAR_DATABASE_URL": pg_migrated_url, "SIDECAR_PARTITIONS": "8"}
    sidecar.start()
    assert {process.role for process in sidecar.processes()} == {"parent", "http", "sync"}
    assert {path.name for path in sidecar.data_dir.iterdir()} == {"lock", "secret_key"}
    assert sidecar.stop() == 0 and sidecar.processes() == []


def test_sync_alone_needs_a_running_sidecar(sidecar: Sidecar, tmp_path: Path) -> None:
    done = command("sync", "--data-dir", str(sidecar.data_dir), cwd=tmp_path)
    assert done.returncode == 1 and "no sidecar runs on" in done.stderr
    (tmp_path / "file").write_text("")
    done = command("sync", "--data-dir", "file", cwd=tmp_path)
    assert done.returncode == 1 and "no sidecar runs on" in done.stderr and "Traceback" not in done.stderr
