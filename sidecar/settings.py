"""Every setting of the sidecar, typed, in one place: flags override `SIDECAR_*` variables, which
override a `.env` file in the working directory. docs/configuration.md is the table of them.

`load()` is the door for commands and child processes; tests may build `Settings(...)` directly.
Imports nothing of the project but the names of the data folder.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Mapping
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from . import folder

PREFIX = "SIDECAR_"
INTERNAL_VARIABLES = frozenset({"SIDECAR_PARENT_FD", "SIDECAR_LOCK_FD", "SIDECAR_LISTEN_FDS"})
"""What the parent process tells its children; not settings."""

LIVE_PREFIXES = ("am_sk_live", "am_pk_live")


class SettingsError(Exception):
    """The settings cannot be used; the message has one line for each problem, without secrets."""


class Settings(BaseSettings):
    """The effective settings of one process. Immutable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="Address the HTTP server listens on")
    port: int = Field(8700, ge=0, le=65535, description="TCP port; 0 takes a free one")
    uds: Path | None = Field(None, description="Unix socket to listen on as well")
    data_dir: Path = Field(Path(".sidecar"), description="Folder of all embedded files")
    workers: int = Field(1, ge=1, le=64, description="HTTP worker processes")
    catalog: Path | None = Field(None, description="Catalog file pushed before listening")

    secret_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (), repr=False, description="Accepted keys, comma separated; none: one is made in the data folder"
    )
    redis_url: str | None = Field(None, repr=False, description="Redis 7+ or Valkey 8+; none: embedded Valkey")
    database_url: str | None = Field(None, repr=False, description="PostgreSQL 14+; none: SQLite in the data folder")
    durability: Literal["everysec", "always", "replica"] = Field(
        "everysec", description="When an answer counts as kept: fsync each second, before the answer, or on a replica"
    )
    test_clock: bool = Field(False, description="Serve /v1/test_clock, which moves time forward; never with a live key")

    partitions: int = Field(256, ge=1, le=16384, description="Partitions of customers; fixed at the first start")
    idempotency_ttl_s: int = Field(86_400, ge=60, le=31 * 86_400, description="How long idempotency keys are kept")
    idempotency_bytes_max: int = Field(1 << 30, ge=1 << 10, le=1 << 40, description="Bytes of idempotency records kept in Redis")
    log_entries_max: int = Field(1_000_000, ge=1_000, description="Log entries not yet in SQL before calls answer 503")
    redis_timeout_ms: int = Field(2_000, ge=10, le=60_000, description="How long a call waits for Redis")
    hold_max_s: int = Field(86_400, ge=1, le=86_400, description="How long a hold may last, and lasts by default")
    shutdown_timeout_s: int = Field(10, ge=1, le=300, description="How long a stop waits for calls in flight")
    fast_path: bool = Field(True, description="Answer check and track without ASGI between where a request is usual")
    persist_free_overage: bool = Field(
        False, description="Overage of free buckets outlives a reset, and a purchase pays debts first"
    )
    currency: str = Field("usd", description="Currency of prices, three letters")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line written")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment; `load` adds `.env`, whose names it checks."""
        return init_settings, env_settings

    @field_validator("uds", "data_dir", "catalog")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path is not None else None

    @field_validator("uds")
    @classmethod
    def _short_enough(cls, path: Path | None) -> Path | None:
        if path is not None and len(os.fsencode(path)) > folder.SOCKET_PATH_BYTES_MAX:
            raise ValueError(f"a Unix socket's path may have {folder.SOCKET_PATH_BYTES_MAX} bytes, this one is longer")
        return path

    @field_validator("secret_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("secret_keys")
    @classmethod
    def _known_prefix(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for number, key in enumerate(keys, 1):
            if not re.fullmatch(r"am_(sk|pk)[A-Za-z0-9_\-]*", key):
                raise ValueError(
                    f"key {number} must begin with am_sk (secret) or am_pk (publishable), then letters, digits, _ or -"
                )
        return keys

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("redis://", "rediss://", "unix://", "valkey://", "valkeys://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        parts = _parts(url)
        if parts.scheme == "unix":
            if not parts.path:
                raise ValueError("must name a socket, such as unix:///run/redis.sock")
        elif parts.hostname is None:
            raise ValueError("must name a host, such as redis://127.0.0.1:6379/0")
        elif not re.fullmatch(r"/?|/[0-9]+/?", parts.path):
            raise ValueError("may have nothing but a database's number after host and port")
        unknown = [name for name, value in parse_qsl(parts.query, keep_blank_values=True)
                   if not (name == "db" and value.isdigit())]
        if unknown:
            raise ValueError(f"the option {unknown[0]} does not work here; only db=NUMBER does")
        return url

    @field_validator("database_url")
    @classmethod
    def _database_scheme(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("postgres://", "postgresql://", "postgresql+psycopg://", "sqlite:///")):
            raise ValueError("must begin with postgresql:// (or sqlite:///)")
        if not url.startswith("sqlite:"):
            if not _DATABASE_URL.fullmatch(url):
                raise ValueError(f"must be postgresql://user:password@host:port/database; {_PASSWORD_HINT}")
        elif url in ("sqlite:///", "sqlite:///:memory:"):
            raise ValueError("must name a file, such as sqlite:////var/lib/sidecar.db; every process opens it")
        return url

    @field_validator("currency")
    @classmethod
    def _currency_code(cls, code: str) -> str:
        if not re.fullmatch(r"[A-Za-z]{3}", code):
            raise ValueError("must be three letters, such as usd")
        return code.lower()

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.test_clock and self.is_live:
            raise ValueError("SIDECAR_TEST_CLOCK: refused with a live key (am_sk_live…, am_pk_live…); use a test key")
        if not self.secret_keys and not is_loopback(self.host):
            raise ValueError(
                "SIDECAR_HOST: binding off loopback needs keys; set SIDECAR_SECRET_KEYS, or bind to 127.0.0.1"
            )
        if self.durability == "replica" and self.redis_url is None:
            raise ValueError(
                "SIDECAR_DURABILITY: replica needs SIDECAR_REDIS_URL; the embedded server has no replica, use always"
            )
        return self

    @property
    def is_live(self) -> bool:
        """Whether any accepted key is a live one."""
        return any(is_live_key(key) for key in self.secret_keys)

    @property
    def embedded_redis(self) -> bool:
        """Whether the sidecar runs its own Valkey in the data folder."""
        return self.redis_url is None

    @property
    def redis_address(self) -> str:
        """The URL to connect to: the given one, or the embedded server's socket.

        Raises SettingsError while no embedded server has been started in the data folder."""
        if self.redis_url is not None:
            return self.redis_url
        try:
            return "unix://" + folder.valkey_socket_pointer(self.data_dir).read_text().strip()
        except FileNotFoundError:
            raise SettingsError(
                f"no embedded Valkey runs in {self.data_dir}; start `sidecar serve` there, or set SIDECAR_REDIS_URL"
            ) from None

    @property
    def database_address(self) -> str:
        """The SQL URL to connect to: the given one, or SQLite in the data folder."""
        return self.database_url or f"sqlite:///{folder.database(self.data_dir)}"

    def environment(self) -> dict[str, str]:
        """These settings as variables, for a child process that calls `load`."""
        named = {}
        for name, value in self.model_dump().items():
            if value is not None and value != ():
                named[PREFIX + name.upper()] = ",".join(value) if isinstance(value, tuple) else str(value)
        return named

    def masked(self) -> dict[str, str]:
        """Every setting by variable name, as text, secrets masked."""
        return {
            PREFIX + name.upper(): mask(", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value))
            for name, value in self.model_dump().items()
        }


KNOWN_VARIABLES = frozenset(PREFIX + name.upper() for name in Settings.model_fields)


def load(env_file: Path | str | None = ".env", **flags: Any) -> Settings:
    """The effective settings: `flags` that are not None, the environment, then `env_file`.

    In a child of the sidecar the parent's variables are the whole truth and no file is read.
    Raises SettingsError for an unknown `SIDECAR_*` variable or a value that does not fit."""
    in_child = "SIDECAR_PARENT_FD" in os.environ
    from_file = {} if env_file is None or in_child else _read_env_file(Path(env_file))
    given = {name: value for name, value in flags.items() if value is not None}
    problems = _unknown(os.environ, "") + _unknown(from_file, f" in {env_file}")
    if problems:
        raise SettingsError("\n".join(problems))
    for name, value in from_file.items():
        if value and not os.environ.get(name):
            given.setdefault(name.removeprefix(PREFIX).lower(), value)
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(_line(problem) for problem in error.errors(include_input=False))) from None


_PASSWORD_HINT = "within a password, write @ : / ? # as %40 %3A %2F %3F %23"
_DATABASE_URL = re.compile(
    r"[a-z+]+://([^:/]*(:[^@]*)?@)?(\[[0-9A-Fa-f:.%]+\]|[^/:?@\[\]]+)?(:[0-9]{1,5})?(/[^?]*)?(\?.*)?"
)


def _parts(url: str) -> SplitResult:
    """A URL taken apart. Raises ValueError, in words without the URL's secrets, if that cannot be."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is no URL: its host is not one") from None
    try:
        parts.port
    except ValueError:
        raise ValueError(f"the port must be a number up to 65535; {_PASSWORD_HINT}") from None
    return parts


def is_live_key(key: str) -> bool:
    """Whether a key belongs to live data; every other accepted key is a sandbox one."""
    return key.startswith(LIVE_PREFIXES)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_SECRETS = (
    (re.compile(r"\b(am_(?:sk|pk)(?:_test|_live)?)[A-Za-z0-9_\-]+"), r"\1_****"),
    (re.compile(r"(\w://[^/\s:@]*:)\S+(@)"), r"\1****\2"),
    (re.compile(r"(?i)\b((?:password|sslpassword)=)[^&\s]+"), r"\1****"),
)


def mask(text: str) -> str:
    """`text` with keys and the passwords within URLs starred out."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _read_env_file(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    if not path.is_file():
        return {}
    try:
        variables = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"cannot read {path}: {reason}") from None
    return {name: value or "" for name, value in variables.items() if name.startswith(PREFIX)}


def _unknown(variables: Mapping[str, str], where: str) -> list[str]:
    problems = []
    for name in variables:
        if name.startswith(PREFIX) and name not in KNOWN_VARIABLES and name not in INTERNAL_VARIABLES:
            near = difflib.get_close_matches(name, KNOWN_VARIABLES, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else "; `sidecar config` lists the known ones"
            problems.append(f"{name}{where}: no such setting{hint}")
    return problems


def _line(problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    return f"{PREFIX + name.upper()}: {message[:1].lower() + message[1:]}"
