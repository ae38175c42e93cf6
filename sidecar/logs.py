"""Structured logs on stderr: JSON lines, or coloured text on a terminal; secrets are masked.

Call `setup` once per process, then `structlog.get_logger()` anywhere.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, MutableMapping

import structlog

from .settings import Settings, mask


def setup(settings: Settings, process: str) -> Any:
    """Sends structlog's and the libraries' logs to stderr, each line naming `process`; returns a
    logger."""
    level = getattr(logging, settings.log_level.upper())
    as_text = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _name_process(process),
        structlog.processors.StackInfoRenderer(),
    ]
    # Tracebacks become text before the mask, so that a secret in an exception's message is caught.
    last: list[Any] = [structlog.processors.format_exc_info, _mask_secrets]
    last.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback) if as_text else structlog.processors.JSONRenderer(default=_text))
    structlog.configure(
        processors=shared + last,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    return structlog.get_logger()


def _name_process(process: str) -> Any:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    return add


def _mask_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        event[name] = _masked(value)
    return event


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_masked(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else mask(_text(value))


def _text(value: Any) -> str:
    return str(value)
