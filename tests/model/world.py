"""Short builders for the worked cases: a model whose amounts in and out are plain decimals."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from sidecar.domain.intervals import add_interval, code_of
from sidecar.domain.quantities import scale, unscale

from .buckets import Bucket, Rollover, RolloverRule
from .calls import DONE, Model
from .caps import ABSOLUTE, PERCENT, Caps
from .features import Catalog, Feature
from .walk import CAP

DAY_MS = 86_400_000
START = 1_767_225_600_000  # 2026-01-01


def s(value) -> int:
    """A decimal as a scaled quantity."""
    return scale(str(value), 6)


class World:
    """A model with short builders; amounts in and out are plain decimals."""

    def __init__(self, *features: Feature, **model):
        self.model = Model(Catalog(features or (Feature("msg"),)), now=START, **model)
        self.no = 0

    def bucket(self, granted, interval="month", feature="msg", **more) -> int:
        """Grants a bucket; `max`: pay-per-use with so much purchasable; `rolls`: (length, max)."""
        self.no += 1
        code = code_of(interval)
        if "rolls" in more:
            length, most = more["rolls"]
            more["rolls"] = RolloverRule(length, None if most is None else s(most))
        amount = 0 if more.get("unlimited") else s(granted)
        if "max" in more:
            more |= {"usage_allowed": True, "paid": True, "purchasable": more.pop("max")}
            if more["purchasable"] is not None:
                more["purchasable"] = s(more["purchasable"])
        if code and not more.get("next_reset_at"):
            more |= {"anchor": START, "next_reset_at": add_interval(START, code, 1, 1)}
        more.setdefault("created_at", START + self.no)
        more.setdefault("plan_id", "plan")
        self.model.account.add(Bucket(self.no, feature, granted=amount, balance=amount, interval=code, **more))
        return self.no

    def track(self, value=1, feature="msg", mode=CAP, **more):
        answer = self.model.track({feature: s(value)}, mode, **more)
        return answer.status if answer.status != DONE else unscale(answer.features[0].applied, 6)

    def event(self, name, value, mode=CAP):
        features = self.model.catalog.features_of_event(name)
        return self.model.track({f: s(value) for f in features}, mode).status

    def check(self, required=1, feature="msg", **more):
        return self.model.check(feature, s(required), **more)

    def allowed(self, required=1, feature="msg", **more) -> bool:
        return self.check(required, feature, **more).allowed

    def r(self, feature="msg", entity=""):
        return unscale(self.model.sums(feature, entity).remaining, 6)

    def u(self, feature="msg", entity=""):
        return unscale(self.model.sums(feature, entity).usage, 6)

    def bal(self, feature="msg", entity=""):
        return unscale(self.model.sums(feature, entity).balance, 6)

    def rollover(self, no: int, amount, expires_at: int = 0, entity: str = "") -> int:
        """Puts a rollover beside a bucket, which then rolls over for a year; its number."""
        self.find(no).rolls = self.find(no).rolls or RolloverRule(12)
        number = self.model.account.next_rollover
        self.model.account.next_rollover += 1
        self.find(no).rollovers.append(Rollover(number, s(amount), s(amount), expires_at, START, entity))
        return number

    def rollovers(self, no: int, entity: str = "") -> list:
        """(balance, granted) of a bucket's rollovers."""
        return [(unscale(r.balance, 6), unscale(r.granted, 6)) for r in self.find(no).rollovers if r.entity_id == entity]

    def caps(self, feature="msg", entity="", spend=None, percent=None, control=None, windows=None, off=False):
        """Spend limits in units or percent, and windows as (limit, interval, anchor kind)."""
        limits = None if spend is None and percent is None and not off else ()
        limits = limits if spend is None else limits + ((ABSOLUTE, s(spend)),)
        limits = limits if percent is None else limits + ((PERCENT, percent * 10_000),)
        if windows is not None:
            windows = tuple((s(limit), code_of(interval), kind) for limit, interval, kind in windows)
        self.model.set_caps(feature, Caps(limits, control, windows), entity)

    def hold(self, value, feature="msg", entity="", lock="lock", **more):
        return self.model.hold(lock, feature, s(value), entity, **more)

    def confirm(self, value=None, lock="lock"):
        """Confirms at a value; the event it writes, in units, None for none."""
        answer = self.model.finalize(lock, "confirm", None if value is None else s(value))
        assert answer.status == DONE, answer
        return answer.feature and unscale(answer.feature.requested, 6)

    def release(self, lock="lock"):
        answer = self.model.finalize(lock, "release")
        assert answer.status == DONE, answer
        return answer.feature and unscale(answer.feature.requested, 6)

    def counter(self, feature="msg", entity=""):
        """What the windows of a feature have counted, open or not."""
        return [unscale(w.used, 6) for (f, e, *_), w in self.model.account.windows.items() if (f, e) == (feature, entity)]

    def find(self, no: int) -> Bucket:
        """The bucket as it stands: every call makes a new account."""
        return self.model.account.find(no)

    def left(self, no: int):
        return unscale(self.find(no).balance, 6)

    def month_later(self, months=1):
        self.model.advance(add_interval(START, code_of("month"), 1, months))


def D(text) -> Decimal:
    """An exact decimal."""
    return Decimal(text)


def credits_world() -> World:
    """The credit systems of the worked cases."""
    actions = [Feature(f"action{i}", event_names=("action-event",) if i in (1, 3) else ()) for i in (1, 2, 3)]
    return World(
        *actions,
        Feature("credits", "credit_system", credit_schema=(("action1", Fraction("0.2")), ("action2", Fraction("0.6")))),
        Feature("credits2", "credit_system", credit_schema=(("action3", Fraction("1.4")),)),
        Feature("credits3", "credit_system", credit_schema=(("action1", Fraction(2)),)),
    )
