"""Reading the fields of one object of outside input, with every problem noted by its path.

A reader answers None for a field that is left out, null, or wrong (then a problem is noted), so
that one pass finds all problems. It knows nothing of features or plans.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Iterable, Sequence

from ..domain.quantities import QuantityError, scale, unscale
from ..errors import ApiError, NotSupported

ID_PATTERN = re.compile(r"[A-Za-z0-9_.:@-]{1,256}")
TEXT_CHARACTERS_MAX = 1000
MONEY_MAX = Decimal(10**12)
MONEY_PLACES_MAX = 12
PERCENT_PLACES_MAX = 4


@dataclass(frozen=True)
class Problem:
    """What is wrong with the field at `path`, and what to do."""

    path: str
    message: str
    not_supported: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def below(self, path: str) -> Problem:
        """The same problem, seen from an object that has this one at `path`."""
        return replace(self, path=join(path, self.path))


class Problems(list[Problem]):
    """The problems found in one pass."""

    def add(self, path: str, message: str, not_supported: bool = False) -> None:
        self.append(Problem(path, message, not_supported))

    def raise_for_caller(self) -> None:
        """Raises ApiError 400 if there is any problem: `invalid_inputs` with all of them, or
        `not_supported` if nothing else is wrong."""
        wrong = [str(problem) for problem in self if not problem.not_supported]
        if wrong:
            message = wrong[0] if len(wrong) == 1 else "[Validation Errors] " + "; ".join(wrong)
            raise ApiError(400, "invalid_inputs", message)
        for problem in self:
            raise NotSupported(problem.path, problem.message)


def join(path: str, name: str) -> str:
    """`path.name`, either of which may be empty; an index needs no dot."""
    if not path or not name or name.startswith("["):
        return path + name
    return f"{path}.{name}"


def canonical(value: Decimal | int) -> Decimal:
    """The same number written plainly, without exponent or trailing zeros."""
    text = format(Decimal(value), "f")
    return Decimal(text.rstrip("0").rstrip(".") or "0") if "." in text else Decimal(text)


class Fields:
    """The fields of the object `raw`, which stands at `path`."""

    def __init__(self, raw: Any, path: str, problems: Problems):
        self.path = path
        self.problems = problems
        self.is_object = isinstance(raw, dict)
        self.raw: dict[str, Any] = raw if self.is_object else {}
        if not self.is_object:
            problems.add(path, "must be an object")

    def has(self, name: str) -> bool:
        """Whether the field is given, null included."""
        return name in self.raw

    def given(self, name: str) -> bool:
        """Whether the field is given and not null."""
        return self.raw.get(name) is not None

    def wrong(self, name: str, message: str) -> None:
        """Notes a problem with the field."""
        self.problems.add(join(self.path, name), message)

    def unsupported(self, name: str, message: str = "is not supported yet") -> None:
        """Notes that a known field has no effect yet."""
        self.problems.add(join(self.path, name), message, not_supported=True)

    def only(self, known: Iterable[str]) -> None:
        """Notes every field that is not one of these, with the nearest known name."""
        names = list(known)
        for name in self.raw:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(names)}"
                self.wrong(str(name), "is not a known field" + hint)

    def text(self, name: str) -> str | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > TEXT_CHARACTERS_MAX or not _storable(value):
            self.wrong(name, f"must be a text of at most {TEXT_CHARACTERS_MAX} characters, without control codes")
            return None
        return value

    def identifier(self, name: str) -> str | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not ID_PATTERN.fullmatch(value):
            self.wrong(name, "must be 1 to 256 letters, digits or any of _ - . : @")
            return None
        return value

    def flag(self, name: str) -> bool | None:
        value = self.raw.get(name)
        if value is not None and not isinstance(value, bool):
            self.wrong(name, "must be true or false")
            return None
        return value

    def choice(self, name: str, options: Sequence[str], hint: str = "") -> str | None:
        value = self.raw.get(name)
        if value is None or value in options and isinstance(value, str):
            return value
        self.wrong(name, f"must be one of {', '.join(options)}{hint}, got {_shown(value)}")
        return None

    def integer(self, name: str, least: int, most: int) -> int | None:
        value = self.number(name)
        if value is None:
            return None
        if not least <= value <= most or value != value.to_integral_value():
            self.wrong(name, f"must be a whole number from {least} to {most}, got {value}")
            return None
        return int(value)

    def number(self, name: str) -> Decimal | None:
        value = self.raw.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not Decimal(value).is_finite():
            self.wrong(name, f"must be a number, got {_shown(value)}")
            return None
        return Decimal(value)

    def amount(self, name: str) -> Decimal | None:
        """An amount of money, 0 or more, kept exactly."""
        value = self.number(name)
        if value is None:
            return None
        if value < 0 or value >= MONEY_MAX:
            self.wrong(name, f"must be from 0 to {MONEY_MAX - 1}, got {value}")
            return None
        value = canonical(value)
        if -value.as_tuple().exponent > MONEY_PLACES_MAX:  # type: ignore[operator]
            self.wrong(name, f"must have at most {MONEY_PLACES_MAX} decimal places")
            return None
        return value

    def quantity(self, name: str, precision: int) -> Decimal | None:
        """A quantity of a feature, 0 or more, rounded to its precision."""
        value = self.number(name)
        if value is None:
            return None
        if value < 0:
            self.wrong(name, f"must be 0 or more, got {value}")
            return None
        try:
            return Decimal(unscale(scale(value, precision), precision))
        except QuantityError as problem:
            self.wrong(name, str(problem))
            return None

    def percent(self, name: str, most: int) -> Decimal | None:
        """A percentage from 0 to `most`, kept exactly."""
        value = self.number(name)
        if value is None:
            return None
        if not 0 <= value <= most:
            self.wrong(name, f"must be a percentage from 0 to {most}, got {value}")
            return None
        value = canonical(value)
        if -value.as_tuple().exponent > PERCENT_PLACES_MAX:  # type: ignore[operator]
            self.wrong(name, f"must have at most {PERCENT_PLACES_MAX} decimal places, got {value}")
            return None
        return value

    def objects(self, name: str) -> list[Fields] | None:
        """The entries of a list of objects, each a reader at its own path."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            self.wrong(name, "must be a list")
            return None
        at = join(self.path, name)
        return [Fields(entry, f"{at}[{i}]", self.problems) for i, entry in enumerate(value)]

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of different texts, none empty."""
        value = self.raw.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or any(
            not isinstance(entry, str) or not 0 < len(entry) <= 256 or not _storable(entry) for entry in value
        ):
            self.wrong(name, "must be a list of texts of 1 to 256 characters")
            return None
        if len(set(value)) < len(value):
            self.wrong(name, "names one twice")
            return None
        return tuple(value)


def _storable(text: str) -> bool:
    """No NUL, which PostgreSQL refuses, and no half of a surrogate pair, which is no text."""
    return not any(char == "\0" or 0xD800 <= ord(char) <= 0xDFFF for char in text)


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
