"""One partition's protocol between Redis and SQL, as a pure model: no Redis, no SQL, no time.

Every method of `RedisSim` is one atomic script, every method of `SqlSim` one transaction. What goes
on between them is an *actor*: a generator that yields wherever the real process may be preempted,
be killed or lose its reply. `World` owns both stores and the actors, injects faults, and keeps what
no store knows (which operations were acknowledged, what Redis really lost) to judge the invariants.

Quantities are plain ints, keys never expire here (so `kl` is a flag), a customer has one bucket.
`Fences` holds one switch per fence; a test turns one off and expects a violation.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

Id = tuple[int, int]
"""A log id, (generation, sequence)."""
NOTHING: Id = (0, -1)
Actor = Generator[None, None, None]


class Violation(AssertionError):
    """A promise of the protocol does not hold."""


class Disconnected(Exception):
    """The connection was made to a server process that is gone."""


FENCES = {
    "load_checks_evicted": "a load behind meta.ev is refused",
    "load_checks_generation": "a load of another generation, or into a closed partition, is refused",
    "load_fills_absent_only": "a load never overwrites",
    "step_checks_version": "step n applies over n-1 only",
    "spend_checks_generation": "calls of another generation or run change nothing",
    "evict_checks_cursor": "state is evicted only when all of its log is in SQL",
    "evict_raises_evicted": "an eviction raises meta.ev",
    "delete_leaves_tombstone": "a deleted customer's state stays as a tombstone until evicted",
    "new_life_keeps_log_id": "a state loaded over a tombstone keeps the tombstone's log id",
    "worker_cas_cursor": "a batch commits only from the cursor it read after",
    "worker_cas_generation": "a batch commits only under the generation it read under",
    "worker_read_fenced": "the log is read only from a partition open for SQL's generation",
    "opener_rechecks_generation": "the opener sees in SQL, after begin_open, that no one took a later one",
    "opener_drops": "states of customers with records past the stream's end are dropped",
    "opener_drops_by_last_record": "... found by the last log id of each name, deleted ones included",
    "opener_sees_forks": "a stream that does not continue SQL's history is dropped wholly",
    "opening_has_record": "end_open appends an opening record that names its predecessor",
    "end_open_checks_generation": "end_open and drops of a superseded opener do nothing",
    "end_open_own_run": "end_open writes the run_id that begin_open saw",
    "opener_asks_for_keys": "after a loss, unknown keys are looked up in SQL",
    "lookup_fenced": "a look-up in SQL counts for its generation, and not behind meta.ev",
    "keys_leave_when_synced": "an idempotency record is swept early only when it is in SQL",
    "gap_checked": "the worker takes only the successor of its cursor",
}


@dataclass(frozen=True)
class Entry:
    """A log record. `op` is the model's own name for the call that made it."""

    kind: str  # use, step, delete, open
    name: str = ""
    cid: int = 0
    version: int = 0
    delta: int = 0
    key: str = ""
    op: int = 0
    reply: int = 0
    base: Id = NOTHING
    """Of an opening: the log id that this generation continues from."""


@dataclass(frozen=True)
class State:
    """A customer in Redis; `last` is the id of its last log record."""

    cid: int
    version: int
    balance: int
    last: Id = NOTHING
    dead: bool = False


@dataclass(frozen=True)
class Receipt:
    """An idempotency record."""

    cid: int
    id: Id
    reply: int
    op: int


@dataclass(frozen=True)
class Meta:
    gen: int = 0
    run: int = 0
    """The server run it is open for; 0 is closed."""
    ev: Id = NOTHING
    tr: Id = NOTHING
    """The stream was trimmed up to here, so SQL had it all."""
    kl: bool = False


@dataclass(frozen=True)
class Begun:
    """What begin_open says of the stream that it closed."""

    last: Id
    continues: bool
    """Nothing follows the cursor, or what follows is its successor."""
    known: Id
    """The highest log id that SQL must have had, by evictions and trims."""


def follows(id: Id, entry: Entry, cursor: Id) -> bool:
    """Whether an entry is the one right after the cursor."""
    if entry.kind == "open":
        return entry.base == cursor and id > cursor
    return id == (cursor[0], cursor[1] + 1)


@dataclass
class RedisSim:
    """One partition in one server process. Methods are scripts."""

    fences: frozenset[str]
    run: int = 1
    meta: Meta = field(default_factory=Meta)
    states: dict[str, State] = field(default_factory=dict)
    receipts: dict[tuple[str, str], Receipt] = field(default_factory=dict)
    log: list[tuple[Id, Entry]] = field(default_factory=list)
    last: Id = NOTHING

    def copy(self) -> RedisSim:
        return replace(
            self, states=dict(self.states), receipts=dict(self.receipts), log=list(self.log)
        )

    def stale(self, run: int, gen: int) -> bool:
        return self.meta.run != run or self.meta.gen != gen

    def append(self, entry: Entry) -> Id:
        gen = self.meta.gen
        if self.last[0] > gen:
            raise Violation(f"XADD {gen}-* behind {self.last}")
        self.last = (gen, self.last[1] + 1 if self.last[0] == gen else 0)
        self.log.append((self.last, entry))
        return self.last

    def spend(
        self, run: int, gen: int, name: str, amount: int, key: str, looked: tuple[int, Id] | None, op: int
    ) -> tuple[Any, ...]:
        if "spend_checks_generation" in self.fences and self.stale(run, gen):
            return ("STALE",)
        state = self.states.get(name)
        if state is None or state.dead:
            return ("MISSING",)
        if key:
            receipt = self.receipts.get((name, key))
            if receipt and receipt.cid == state.cid:
                return ("REPLAY", receipt.reply)
            if self.meta.kl and not self.counts(looked):
                return ("ASK", state.cid)
        if state.balance < amount:
            return ("REFUSED",)
        left = state.balance - amount
        id = self.append(Entry("use", name, state.cid, state.version, -amount, key, op, left))
        self.states[name] = replace(state, balance=left, last=id)
        if key:
            self.receipts[name, key] = Receipt(state.cid, id, left, op)
        return ("OK", left)

    def counts(self, looked: tuple[int, Id] | None) -> bool:
        """Whether a look-up that found nothing, made at (generation, cursor) of SQL, still holds."""
        if looked is None:
            return False
        if "lookup_fenced" not in self.fences:
            return True
        return looked[0] == self.meta.gen and looked[1] >= self.meta.ev

    def load(self, run: int, gen: int, cursor: Id, name: str, state: State) -> str:
        if "load_checks_generation" in self.fences and self.stale(run, gen):
            return "STALE"
        if "load_checks_evicted" in self.fences and cursor < self.meta.ev:
            return "BEHIND"
        there = self.states.get(name)
        if there and "load_fills_absent_only" in self.fences:
            if there.cid >= state.cid:
                return "THERE"
            if not there.dead:
                return "OTHER"
        if there and "new_life_keeps_log_id" in self.fences:
            state = replace(state, last=max(there.last, state.last))
        self.states[name] = state
        return "LOADED"

    def project(self, run: int, gen: int, name: str, cid: int, version: int, kind: str, amount: int) -> str:
        """Step `version`: add units, set the balance (a live value), mark, or delete."""
        if self.stale(run, gen):
            return "STALE"
        state = self.states.get(name)
        if state is None or state.cid < cid:
            return "MISSING"
        if state.cid > cid or state.dead:
            return "DONE"
        if "step_checks_version" in self.fences:
            if state.version >= version:
                return "DONE"
            if state.version < version - 1:
                return "GAP"
        delta = {"add": amount, "set": amount - state.balance, "mark": 0, "delete": 0}[kind]
        entry = Entry("delete" if kind == "delete" else "step", name, cid, version, delta)
        id = self.append(entry)
        if kind == "delete" and "delete_leaves_tombstone" not in self.fences:
            del self.states[name]
        else:
            self.states[name] = State(cid, version, state.balance + delta, id, kind == "delete")
        return "DONE"

    def evict(self, run: int, gen: int, cursor: Id, name: str) -> None:
        state = self.states.get(name)
        if self.stale(run, gen) or state is None:
            return
        if "evict_checks_cursor" in self.fences and state.last > cursor:
            return
        del self.states[name]
        if "evict_raises_evicted" in self.fences:
            self.meta = replace(self.meta, ev=max(self.meta.ev, state.last))

    def sweep_key(self, run: int, gen: int, cursor: Id, name: str, key: str) -> None:
        """Drops a record before its end, when they outgrow their bound."""
        receipt = self.receipts.get((name, key))
        if self.stale(run, gen) or receipt is None:
            return
        if "keys_leave_when_synced" in self.fences and receipt.id > cursor:
            return
        del self.receipts[name, key]
        self.meta = replace(self.meta, ev=max(self.meta.ev, receipt.id), kl=True)

    def read(self, run: int, gen: int, cursor: Id, count: int) -> list[tuple[Id, Entry]] | Meta:
        """Entries after the cursor, or what SQL is to be compared with."""
        if "worker_read_fenced" in self.fences and self.stale(run, gen):
            return self.meta
        if "gap_checked" in self.fences and cursor < max(self.meta.tr, self.meta.ev):
            return self.meta
        return [(id, entry) for id, entry in self.log if id > cursor][:count]

    def trim(self, run: int, gen: int, cursor: Id) -> None:
        if not self.stale(run, gen):
            self.log = [(id, entry) for id, entry in self.log if id > cursor]
            self.meta = replace(self.meta, tr=max(self.meta.tr, cursor))

    def begin_open(self, gen: int, cursor: Id) -> Begun | None:
        """Closes the partition under `gen`. None: a later generation is at work."""
        if self.meta.gen >= gen:
            return None
        self.meta = replace(self.meta, gen=gen, run=0)
        after = next(((id, entry) for id, entry in self.log if id > cursor), None)
        return Begun(
            self.last, after is None or follows(*after, cursor), max(self.meta.tr, self.meta.ev)
        )

    def opening(self, gen: int) -> bool:
        if "end_open_checks_generation" not in self.fences:
            return True
        return self.meta.gen == gen and self.meta.run == 0

    def drop(self, gen: int, name: str) -> bool:
        if self.opening(gen):
            self.states.pop(name, None)
        return self.opening(gen)

    def drop_log_and_keys(self, gen: int) -> bool:
        if self.opening(gen):
            self.log, self.receipts = [], {}
        return self.opening(gen)

    def end_open(self, gen: int, run: int, base: Id, cursor: Id, lost: bool) -> bool:
        if not self.opening(gen):
            return False
        meta = replace(self.meta, gen=gen, run=run, ev=max(self.meta.ev, cursor))
        self.meta = replace(meta, kl=meta.kl or (lost and "opener_asks_for_keys" in self.fences))
        if "opening_has_record" in self.fences:
            self.append(Entry("open", base=base))
        return True


@dataclass(frozen=True)
class Customer:
    """A customer in SQL. `balance` stands as of `applied` and the cursor."""

    cid: int
    name: str
    structure: int = 0
    applied: int = 0
    balance: int = 0
    last: Id = NOTHING
    """Id of the last log record about it."""
    deleted: bool = False  # decided; the name is free at once
    gone: bool = False  # ... and the deletion's record was applied


@dataclass(frozen=True)
class Snapshot:
    """What one SQL snapshot says for a load: every unfinished life of the name, oldest first."""

    gen: int
    cursor: Id
    lives: tuple[tuple[Customer, tuple[tuple[int, str, int], ...]], ...]


@dataclass
class SqlSim:
    """SQL's side of one partition. Methods are transactions."""

    fences: frozenset[str]
    gen: int = 0
    cursor: Id = NOTHING
    customers: dict[int, Customer] = field(default_factory=dict)
    outbox: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)
    ledger: list[tuple[Id, int, int]] = field(default_factory=list)  # id, cid, delta
    keys: dict[tuple[int, str], Receipt] = field(default_factory=dict)
    history: list[tuple[Id, Entry]] = field(default_factory=list)  # the model's, no table

    def copy(self) -> SqlSim:
        return replace(
            self, customers=dict(self.customers), outbox=dict(self.outbox), ledger=list(self.ledger),
            keys=dict(self.keys), history=list(self.history),
        )

    def live(self, name: str) -> Customer | None:
        return next((c for c in self.customers.values() if c.name == name and not c.deleted), None)

    def change(self, name: str, kind: str, amount: int) -> None:
        """A purchase, a plan change, a creation or a deletion: the next version and its outbox row."""
        customer = self.live(name)
        if kind == "create":
            if customer:
                return
            kind, customer = "add", Customer(len(self.customers) + 1, name)
        elif not customer:
            return
        version = customer.structure + 1
        self.customers[customer.cid] = replace(customer, structure=version, deleted=kind == "delete")
        self.outbox[customer.cid, version] = (kind, amount)

    def take_generation(self, expected: int) -> Id | None:
        """The cursor, if this caller got generation expected + 1."""
        if self.gen != expected:
            return None
        self.gen += 1
        return self.cursor

    def snapshot(self, name: str) -> Snapshot:
        lives = []
        for customer in self.customers.values():
            if customer.name == name and not customer.gone:
                steps = tuple(
                    (v, *self.outbox[customer.cid, v])
                    for v in range(customer.applied + 1, customer.structure + 1)
                )
                lives.append((customer, steps))
        return Snapshot(self.gen, self.cursor, tuple(lives))

    def names_past(self, last: Id) -> set[str]:
        """Names with log records past an id."""
        if "opener_drops_by_last_record" in self.fences:
            return {c.name for c in self.customers.values() if c.last > last}
        return {self.customers[cid].name for id, cid, _ in self.ledger if id > last}

    def commit(self, gen: int, cursor: Id, batch: Iterable[tuple[Id, Entry]]) -> str:
        """The worker's transaction. CONFLICT and GAP leave nothing behind."""
        if "worker_cas_generation" in self.fences and self.gen != gen:
            return "CONFLICT"
        if "worker_cas_cursor" in self.fences and self.cursor != cursor:
            return "CONFLICT"
        at = cursor
        for id, entry in batch:
            fresh = id[1] == 0 and id[0] > at[0]
            chained = follows(id, entry, at) if "opening_has_record" in self.fences else (
                fresh or id == (at[0], at[1] + 1)
            )
            if "gap_checked" in self.fences and not chained:
                return "GAP"
            if entry.kind in ("step", "delete") and entry.version > self.customers[entry.cid].structure:
                return "GAP"
            at = id
        for id, entry in batch:
            self.apply(id, entry)
        self.cursor = at
        return "OK"

    def apply(self, id: Id, entry: Entry) -> None:
        self.history.append((id, entry))
        if entry.kind == "open":
            return
        customer = self.customers[entry.cid]
        if customer.gone:
            raise Violation(f"{id}: a record of a customer whose deletion SQL has")
        customer = replace(customer, balance=customer.balance + entry.delta, last=id)
        if entry.delta:
            self.ledger.append((id, entry.cid, entry.delta))
        if entry.key:
            if (entry.cid, entry.key) in self.keys:
                raise Violation(f"key {entry.key} is in SQL twice")
            self.keys[entry.cid, entry.key] = Receipt(entry.cid, id, entry.reply, entry.op)
        if entry.kind in ("step", "delete"):
            if entry.version != customer.applied + 1:
                raise Violation(f"{id}: step {entry.version} over {customer.applied}")
            customer = replace(customer, applied=entry.version)
            self.outbox.pop((entry.cid, entry.version), None)
        if entry.kind == "delete":
            customer = replace(customer, gone=True)
            self.ledger = [row for row in self.ledger if row[1] != entry.cid]
            self.keys = {k: r for k, r in self.keys.items() if k[0] != entry.cid}
        self.customers[entry.cid] = customer


class World:
    """Both stores, the actors between them, and the faults."""

    def __init__(self, without: Iterable[str] = ()) -> None:
        fences = frozenset(FENCES) - frozenset(without)
        assert not set(without) - set(FENCES), "no such fence"
        self.fences = fences
        self.redis = RedisSim(fences)
        self.sql = SqlSim(fences)
        self.actors: list[Actor] = []
        self.snapshots: list[RedisSim] = []
        self.runs = 1
        self.ops = 0
        self.acked: set[int] = set()
        self.lost: set[int] = set()
        self.alarms: list[str] = []

    # What the driver does.

    def start(self, actor: Actor) -> Actor | None:
        """Puts an actor beside the others, unless there are too many."""
        if len(self.actors) < 7:
            self.actors.append(actor)
            return actor
        return None

    def step(self, index: int) -> None:
        """Moves one actor to its next yield."""
        if self.actors:
            actor = self.actors[index % len(self.actors)]
            try:
                next(actor)
            except (StopIteration, Disconnected):
                self.actors.remove(actor)

    def run(self, actor: Actor) -> None:
        """Runs an actor to its end, undisturbed."""
        try:
            for _ in actor:
                self.check()
        except Disconnected:
            pass

    def crash(self, index: int) -> None:
        """Kills an actor where it stands; the call it made last was carried out, its reply is lost."""
        if self.actors:
            self.actors.pop(index % len(self.actors)).close()

    def keep_snapshot(self) -> None:
        self.snapshots = [*self.snapshots[-4:], self.redis.copy()]

    def restart(self, index: int | None) -> None:
        """A new server process, with all of Redis' data (None) or an older state of it; states may
        come back in any order, as of a replica that was cut off for a while."""
        if index is not None and self.snapshots:
            self.redis = self.snapshots[index % len(self.snapshots)].copy()
        self.runs += 1
        self.redis.run = self.runs
        self.note_lost()

    def flushall(self) -> None:
        """Everything goes, the server process and its connections stay."""
        self.redis = RedisSim(self.fences, run=self.redis.run)
        self.note_lost()

    def note_lost(self) -> None:
        held = {entry.op for _, entry in self.redis.log} | {entry.op for _, entry in self.sql.history}
        self.lost |= self.acked - held

    # Actors.

    def call(self, run: int, script: Callable[..., Any], *args: Any) -> Any:
        """One script call on a connection made to server process `run`."""
        if run != self.redis.run:
            raise Disconnected
        return script(*args)

    def open(self) -> Actor:
        run, seen = self.redis.run, self.sql.gen
        yield
        cursor = self.sql.take_generation(seen)
        if cursor is None:
            return
        gen = seen + 1
        yield
        begun: Begun | None = self.call(run, lambda: self.redis.begin_open(gen, cursor))
        yield
        if begun is None:
            if self.redis.meta.gen > self.sql.gen:
                self.alarms.append("opener: Redis is of a later generation than SQL")
            return
        if "opener_rechecks_generation" in self.fences and self.sql.gen != gen:
            return
        if begun.known > cursor:
            self.alarms.append(f"opener: SQL is at {cursor}, and had {begun.known}")
            return
        past = self.sql.names_past(begun.last)
        yield
        fork = not begun.continues or (cursor > begun.last and cursor[0] != begun.last[0])
        if "opener_sees_forks" not in self.fences:
            fork = False
        lost = fork or cursor > begun.last
        base = cursor if fork else max(cursor, begun.last)
        if fork:
            self.call(run, self.redis.drop_log_and_keys, gen)
            yield
        if lost and "opener_drops" in self.fences:
            for name in sorted(set(self.redis.states) if fork else past):
                if not self.call(run, self.redis.drop, gen, name):
                    return
                yield
        yield
        if "end_open_own_run" in self.fences:
            self.call(run, self.redis.end_open, gen, run, base, cursor, lost)
        else:
            self.redis.end_open(gen, self.redis.run, base, cursor, lost)

    def load(self, name: str) -> Actor:
        """Makes Redis hold the customer with every step applied: request, worker and caller alike.
        Lives of one name go oldest first: a name's new customer waits for the old one's deletion."""
        run = self.redis.run
        for _ in range(3):
            snapshot = self.sql.snapshot(name)
            yield
            again = False
            for customer, steps in snapshot.lives:
                state = State(customer.cid, customer.applied, customer.balance)
                said = self.call(run, self.redis.load, run, snapshot.gen, snapshot.cursor, name, state)
                yield
                if said == "STALE":
                    return
                for version, kind, amount in steps if said in ("LOADED", "THERE") else ():
                    said = self.call(
                        run, self.redis.project, run, snapshot.gen, name, customer.cid, version, kind, amount
                    )
                    yield
                    if said != "DONE":
                        break
                if said in ("BEHIND", "OTHER", "MISSING", "GAP", "STALE"):
                    again = True
                    break
            if not again:
                return

    def spend(self, name: str, amount: int, key: str = "") -> Actor:
        """One call, with a key also its repeat: both do the same."""
        self.ops += 1
        op, run, gen = self.ops, self.redis.run, self.redis.meta.gen
        looked: tuple[int, Id] | None = None
        yield
        for _ in range(4):
            before = self.survivors(name, key)
            said = self.call(run, self.redis.spend, run, gen, name, amount, key, looked, op)
            self.judge(said, before)
            yield  # the reply may be lost
            if said[0] == "OK":
                self.acked.add(op)
                if not self.recorded(op):
                    self.lost.add(op)  # Redis lost it while the reply was on its way
                return
            if said[0] == "STALE":
                meta = self.call(run, lambda: self.redis.meta)
                if meta.run != run:
                    return
                gen = meta.gen
            elif said[0] == "MISSING":
                yield from self.load(name)
            elif said[0] == "ASK":
                found = self.sql.keys.get((said[1], key))
                looked = (self.sql.gen, self.sql.cursor)
                yield
                if found:
                    return
            else:
                return

    def work(self, count: int, trim: bool) -> Actor:
        run, gen, cursor = self.redis.run, self.sql.gen, self.sql.cursor
        yield
        batch = self.call(run, self.redis.read, run, gen, cursor, count)
        yield
        if isinstance(batch, Meta):
            # A slow worker looks the same: only SQL read after Redis tells.
            if batch.gen > self.sql.gen or max(batch.tr, batch.ev) > self.sql.cursor:
                self.alarms.append(f"worker: SQL is at {self.sql.cursor}, Redis knows more: {batch}")
            return
        said = self.sql.commit(gen, cursor, batch)
        if said == "GAP":
            self.alarms.append(f"worker: gap after {cursor}")
        yield
        if said == "OK" and trim:
            cursor = self.sql.cursor
            yield
            self.call(run, self.redis.trim, run, gen, cursor)

    def evict(self, name: str, key: str = "") -> Actor:
        run, gen, cursor = self.redis.run, self.sql.gen, self.sql.cursor
        yield
        if key:
            self.call(run, self.redis.sweep_key, run, gen, cursor, name, key)
        else:
            self.call(run, self.redis.evict, run, gen, cursor, name)

    def change(self, name: str, kind: str, amount: int) -> Actor:
        self.sql.change(name, kind, amount)
        yield
        yield from self.load(name)

    # Judging.

    @property
    def is_open(self) -> bool:
        return self.redis.meta.run == self.redis.run

    def unread(self) -> list[tuple[Id, Entry]]:
        return [(id, entry) for id, entry in self.redis.log if id > self.sql.cursor]

    def recorded(self, op: int) -> bool:
        return any(entry.op == op for _, entry in self.sql.history) or any(
            entry.op == op for _, entry in self.redis.log
        )

    def survivors(self, name: str, key: str) -> list[Entry]:
        """What a key of the name's customer in Redis did, as far as either store has it."""
        state = self.redis.states.get(name)
        if not key or not state or not self.is_open:
            return []
        return [
            entry for _, entry in self.sql.history + self.unread()
            if entry.key == key and entry.cid == state.cid
        ]

    def judge(self, said: tuple[Any, ...], before: list[Entry]) -> None:
        if said[0] == "OK" and not self.is_open:
            raise Violation("a closed partition was written to")
        if said[0] == "OK" and before:
            raise Violation(f"a key was carried out again: {before}")
        if said[0] == "REPLAY" and [e.reply for e in before] != [said[1]]:
            raise Violation(f"a repeat was answered {said[1]}, the first is {before}")

    def check(self) -> None:
        """Every invariant that holds between any two steps."""
        sql, redis = self.sql, self.redis
        totals: dict[int, int] = {}
        for _, cid, delta in sql.ledger:
            totals[cid] = totals.get(cid, 0) + delta
        for customer in sql.customers.values():
            if not customer.gone and customer.balance != totals.get(customer.cid, 0):
                raise Violation(f"{customer} is not its ledger's sum")
            if customer.balance < 0:
                raise Violation(f"{customer} is overspent")
        if self.is_open:
            self.check_equal()

    def check_equal(self) -> None:
        """An open partition: Redis = SQL at the cursor + unread log, no more and no less."""
        sql, redis = self.sql, self.redis
        lives = {c.cid: (c.applied, c.balance) for c in sql.customers.values() if not c.gone}
        unread, at, ops = self.unread(), sql.cursor, set()
        for id, entry in unread:
            if "opening_has_record" in self.fences and not follows(id, entry, at):
                raise Violation(f"{id} does not follow {at}")
            at = id
            if entry.kind == "open":
                continue
            if entry.cid not in lives:
                raise Violation(f"{id}: a record of a customer that is not there")
            version, balance = lives[entry.cid]
            if entry.version != version + (entry.kind != "use"):
                raise Violation(f"{id}: version {entry.version} over {version}")
            lives[entry.cid] = (entry.version, balance + entry.delta)
            if balance + entry.delta < 0:
                raise Violation(f"{id}: overspent, to be synced as {balance + entry.delta}")
            if entry.kind == "delete":
                del lives[entry.cid]
            state = redis.states.get(entry.name)
            if state is None or state.cid < entry.cid or state.last < id:
                raise Violation(f"{id} is unread, and the state behind it is {state}")
            ops.add(entry.op)
        for name, state in redis.states.items():
            if state.dead and state.cid in lives:
                raise Violation(f"{name}: a tombstone of one who lives")
            if not state.dead and lives.get(state.cid) != (state.version, state.balance):
                raise Violation(f"{name}: Redis {state}, SQL and log {lives.get(state.cid)}")
        kept = {entry.op for _, entry in sql.history} | ops
        missing = self.acked - self.lost - kept
        if missing:
            raise Violation(f"acknowledged, never lost by Redis, in neither store: {missing}")
        keyed = [(e.cid, e.key) for _, e in [*sql.history, *unread] if e.key]
        if len(keyed) != len(set(keyed)):
            raise Violation("a key is carried out twice")

    def settle(self) -> None:
        """All faults end; whoever is alive runs on, then the ordinary work. Everything must meet."""
        for _ in range(200):
            if not self.actors:
                break
            self.step(0)
            self.check()
        else:
            raise Violation("an actor does not end")
        for _ in range(3):
            if not self.is_open or self.redis.meta.gen != self.sql.gen:
                self.run(self.open())
            for name in sorted({c.name for c in self.sql.customers.values() if not c.gone}):
                self.run(self.load(name))
            while self.unread():
                cursor = self.sql.cursor
                self.run(self.work(3, False))
                if self.sql.cursor == cursor:
                    break
            for name in sorted({c.name for c in self.sql.customers.values() if not c.gone}):
                self.run(self.load(name))
            self.check()
        if self.alarms:
            raise Violation(f"alarm: {self.alarms[0]}")
        if not self.is_open or self.unread() or self.sql.outbox:
            raise Violation(f"never settles: {self.redis.meta}, {self.unread()}, {self.sql.outbox}")
        for customer in self.sql.customers.values():
            state = self.redis.states.get(customer.name)
            if not customer.deleted and (
                state is None
                or (state.cid, state.version, state.balance)
                != (customer.cid, customer.structure, customer.balance)
            ):
                raise Violation(f"after all work: SQL {customer}, Redis {state}")
