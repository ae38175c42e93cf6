"""Settings: flags over environment over `.env`, every refusal in words, no secret ever shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar import settings
from sidecar.settings import Settings, SettingsError, load, mask


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No SIDECAR_* variable of the machine, and a folder without `.env`."""
    for name in [name for name in os.environ if name.startswith("SIDECAR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_need_nothing(tmp_path: Path) -> None:
    made = load()
    assert (made.host, made.port, made.workers) == ("127.0.0.1", 8700, 1)
    assert made.data_dir == tmp_path / ".sidecar"
    assert made.embedded_redis and made.database_address == f"sqlite:///{tmp_path}/.sidecar/sidecar.db"


def test_flags_override_the_environment_which_overrides_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("SIDECAR_PORT=1111\nSIDECAR_WORKERS=3\nSIDECAR_HOST=::1\nOTHER=x\n")
    monkeypatch.setenv("SIDECAR_PORT", "2222")
    monkeypatch.setenv("SIDECAR_WORKERS", "4")
    made = load(port=3333, workers=None)
    assert (made.port, made.workers, made.host) == (3333, 4, "::1")


def test_an_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SIDECAR_PORT=1111\nSIDECAR_REDIS_URL=\n")
    monkeypatch.setenv("SIDECAR_PORT", "")
    monkeypatch.setenv("SIDECAR_DATABASE_URL", "")
    made = load()
    assert (made.port, made.redis_url, made.database_url) == (1111, None, None)


def test_unknown_names_are_refused_with_the_nearest_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIDECAR_SECRET_KEY", "am_sk_1")
    (tmp_path / ".env").write_text("SIDECAR_PROT=1\n")
    with pytest.raises(SettingsError) as refused:
        load()
    assert "SIDECAR_SECRET_KEY: no such setting; did you mean SIDECAR_SECRET_KEYS?" in str(refused.value)
    assert "SIDECAR_PROT in .env: no such setting; did you mean SIDECAR_PORT?" in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": "eighty"}, "SIDECAR_PORT: "),
        ({"port": "65536"}, "SIDECAR_PORT: "),
        ({"workers": "0"}, "SIDECAR_WORKERS: "),
        ({"secret_keys": "sk_1"}, "must begin with am_sk"),
        ({"secret_keys": "am_sk_1\nx"}, "key 1 must begin with am_sk"),
        ({"durability": "sometimes"}, "'everysec', 'always' or 'replica'"),
        ({"durability": "replica"}, "needs SIDECAR_REDIS_URL"),
        ({"host": "0.0.0.0"}, "binding off loopback needs keys"),
        ({"host": "example.com"}, "binding off loopback needs keys"),
        ({"test_clock": "1", "secret_keys": "am_sk_test_1,am_sk_live_1"}, "refused with a live key"),
        ({"test_clock": "1", "secret_keys": "am_pk_live_1"}, "refused with a live key"),
        ({"redis_url": "localhost:6379"}, "must begin with redis://"),
        ({"redis_url": "redis://h:port"}, "the port must be a number"),
        ({"redis_url": "redis://h:65536"}, "the port must be a number"),
        ({"redis_url": "redis://:a/b@h:1"}, "as %40 %3A %2F"),
        ({"redis_url": "redis://h/one"}, "database's number"),
        ({"redis_url": "redis://h/0?ssl_cert_reqs=none"}, "ssl_cert_reqs does not work here"),
        ({"redis_url": "redis://"}, "must name a host"),
        ({"redis_url": "unix://"}, "must name a socket"),
        ({"database_url": "mysql://x"}, "must begin with postgresql://"),
        ({"database_url": "postgresql://u:p@h:x/d"}, "host:port/database"),
        ({"database_url": "postgresql://u:p@w@h/d"}, "as %40 %3A %2F"),
        ({"database_url": "sqlite:x"}, "or sqlite:///"),
        ({"database_url": "sqlite:///:memory:"}, "must name a file"),
        ({"currency": "dollars"}, "three letters"),
        ({"uds": "/tmp/" + "x" * 100}, "100 bytes"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"SIDECAR_{name.upper()}", value)
    with pytest.raises(SettingsError) as refused:
        load()
    assert said in str(refused.value)


@pytest.mark.parametrize("name, url", [
    ("redis_url", "redis://h"), ("redis_url", "rediss://user:p%40ss@[::1]:6379/2"), ("redis_url", "valkeys://h:1/"),
    ("redis_url", "unix:///run/redis.sock?db=1"), ("database_url", "postgresql://u:a#b?c@h/d?sslmode=require"),
    ("database_url", "postgresql:///d?host=/run/postgresql"), ("database_url", "postgres://[::1]:5432/d"),
    ("database_url", "sqlite:////var/lib/s.db"),
])
def test_urls_that_work_are_taken(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setenv(f"SIDECAR_{name.upper()}", url)
    assert getattr(load(), name) == url


def test_an_env_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot read .env: it is not UTF-8 text"):
        load()


@pytest.mark.parametrize("key", ["am_sk_42424242", "am_sk_1234567890", "am_sk_test_x", "am_pk_test_x", "am_skx"])
def test_short_keys_are_sandbox_keys(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("SIDECAR_SECRET_KEYS", f" {key} ,")
    monkeypatch.setenv("SIDECAR_TEST_CLOCK", "1")
    made = load(host="0.0.0.0")
    assert made.secret_keys == (key,) and not made.is_live and made.test_clock


def test_a_refusal_does_not_repeat_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_SECRET_KEYS", "sk_hunter2")
    monkeypatch.setenv("SIDECAR_DATABASE_URL", "mysql://u:hunter2@h/d")
    with pytest.raises(SettingsError) as refused:
        load()
    assert "hunter2" not in str(refused.value) and refused.value.__cause__ is None


def test_a_child_reads_exactly_what_its_parent_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parent = load(
        port=1, uds=tmp_path / "s", secret_keys="am_sk_1,am_pk_2", redis_url="redis://u:p@h/1",
        durability="always", test_clock=True,
    )
    for name, value in parent.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SIDECAR_PARENT_FD", "7")
    (tmp_path / ".env").write_text("SIDECAR_CURRENCY=eur\nSIDECAR_NONSENSE=1\n")
    assert load() == parent


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("am_sk_42424242", "am_sk_****"),
        ("key am_sk_test_abc-D_9, am_pk_live_1!", "key am_sk_test_****, am_pk_live_****!"),
        ("redis://:p@ss/w@host:1/0", "redis://:****@host:1/0"),
        ("postgresql+psycopg://user:pw@h/d?sslmode=require", "postgresql+psycopg://user:****@h/d?sslmode=require"),
        ("postgresql://h/d?user=u&password=pw&x=1", "postgresql://h/d?user=u&password=****&x=1"),
        ("redis://host:6379/0 and unix:///a/b.sock", "redis://host:6379/0 and unix:///a/b.sock"),
    ],
)
def test_masking(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_repr_and_mask_show_no_secret() -> None:
    made = Settings(secret_keys=("am_sk_test_hunter2",), redis_url="redis://:hunter2@h", database_url="postgresql://u:hunter2@h/d")
    assert "hunter2" not in repr(made) and "hunter2" not in str(made.masked())


def test_every_setting_is_documented() -> None:
    table = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    missing = [name for name in settings.KNOWN_VARIABLES if f"`{name}`" not in table]
    assert not missing
