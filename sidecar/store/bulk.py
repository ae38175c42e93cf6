"""Many rows in one statement, by the fastest way that each driver has: for the sync worker, which
writes nearly everything that is ever written.

Rows are tuples of what the driver takes; JSON comes as text. On SQLite a statement is run for each row,
within the library; on PostgreSQL rows to insert are copied, and all others travel as one array for each
column. Rows that are read come as the driver gives them. Errors are SQLAlchemy's, as if it had run the
statement.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from typing import Any, Iterable, Iterator, Sequence

from sqlalchemy import Connection, Dialect, Table, exc

Rows = Sequence[tuple[Any, ...]]
KEYS_PER_QUERY = 1000  # SQLite takes 32,766 variables in one statement


def select(
    conn: Connection, table: Table, columns: Sequence[str], keys: Sequence[str], wanted: Iterable[tuple[int, ...]], *,
    where: str = "", lock: bool = False,
) -> Iterator[tuple[Any, ...]]:
    """Columns of the rows that have one of the wanted keys, which are whole numbers and all different, and
    for which `where` holds. `lock`: others may not change them before the transaction ends; they are locked
    in the order of their keys, so that two who do it cannot wait for each other."""
    name, some = _quoted(table.name), sorted(wanted)
    for at in range(0, len(some), KEYS_PER_QUERY):
        yield from _select(conn, table, name, columns, keys, some[at : at + KEYS_PER_QUERY], where, lock)


def _select(
    conn: Connection, table: Table, name: str, columns: Sequence[str], keys: Sequence[str], wanted: Rows, where: str, lock: bool
) -> list[tuple[Any, ...]]:
    conditions = [f"{name}.{_quoted(key)} = new.{_quoted(key)}" for key in keys] + ([where] if where else [])
    values: Sequence[Any]
    if conn.dialect.name == "sqlite":  # CROSS: not by a scan of the whole table; nobody else writes, once one does
        one = f"({', '.join('?' * len(keys))})"
        source, values = f"WITH new({_list(keys)}) AS (VALUES {', '.join([one] * len(wanted))})", tuple(chain.from_iterable(wanted))
        tables, ending = f"new CROSS JOIN {name}", ""
    else:
        unnested, values = _unnested(conn.dialect, table, keys, wanted)
        source, tables = "", f"{unnested} JOIN {name} ON true"
        ending = f"ORDER BY {', '.join(f'{name}.{_quoted(key)}' for key in keys)} FOR UPDATE OF {name}" if lock else ""
    statement = (f"{source} SELECT {', '.join([f'{name}.{_quoted(column)}' for column in columns])} FROM {tables} "
                 f"WHERE {' AND '.join(conditions)} {ending}")
    with _cursor(conn, statement) as cursor:
        cursor.execute(statement, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def insert(conn: Connection, table: Table, rows: Rows) -> None:
    """New rows, each with all columns in the table's order."""
    if not rows:
        return
    if conn.dialect.name == "sqlite":
        values, rows = _easily_bound(rows)
        conn.exec_driver_sql(f"INSERT INTO {_with_columns(table)} VALUES ({values})", rows)
    else:
        _copy(conn, f"COPY {_with_columns(table)} FROM STDIN", rows)


def upsert(conn: Connection, table: Table, rows: Rows) -> None:
    """Rows as for `insert`, but of numbers and bytes alone, and each with another primary key; a row
    that there is already becomes like the new one."""
    if not rows:
        return
    keys = [column.name for column in table.primary_key.columns]
    others = ", ".join(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in table.columns.keys() if name not in keys)
    conflict = f"ON CONFLICT ({_list(keys)}) DO UPDATE SET {others}"
    if conn.dialect.name == "sqlite":
        values, rows = _easily_bound(rows)
        conn.exec_driver_sql(f"INSERT INTO {_with_columns(table)} VALUES ({values}) {conflict}", rows)
    else:
        source, values = _unnested(conn.dialect, table, table.columns.keys(), rows)
        conn.exec_driver_sql(f"INSERT INTO {_with_columns(table)} SELECT * FROM {source} {conflict}", values)


def update(conn: Connection, table: Table, columns: Sequence[str], keys: Sequence[str], rows: Rows) -> None:
    """Sets columns of the rows that have these keys: each tuple has the columns' values, then the
    keys'; of numbers, booleans and None alone, and no key twice."""
    if not rows:
        return
    if conn.dialect.name == "sqlite":
        sets, where = (glue.join(f"{_quoted(name)} = ?" for name in names) for glue, names in ((", ", columns), (" AND ", keys)))
        conn.exec_driver_sql(f"UPDATE {_quoted(table.name)} SET {sets} WHERE {where}", list(rows))
    else:
        source, values = _unnested(conn.dialect, table, (*columns, *keys), rows)
        sets = ", ".join(f"{_quoted(name)} = new.{_quoted(name)}" for name in columns)
        where = " AND ".join(f"{_quoted(table.name)}.{_quoted(name)} = new.{_quoted(name)}" for name in keys)
        conn.exec_driver_sql(f"UPDATE {_quoted(table.name)} SET {sets} FROM {source} WHERE {where}", values)


def _easily_bound(rows: Rows) -> tuple[str, Rows]:
    """What stands after VALUES on SQLite, and the rows to bind to it. Before it binds None or bytes the
    driver asks whether they adapt themselves, which takes longer than to insert the rest of a row: so a
    column without any value is said to be NULL, and bytes come as bytearray."""
    values, bound = list[str](), list[Iterable[Any]]()
    for first, column in zip(rows[0], zip(*rows)):
        if first is None and column.count(None) == len(rows):
            values.append("NULL")
            continue
        values.append("?")
        bound.append(map(bytearray, column) if type(first) is bytes and {*map(type, column)} == {bytes} else column)
    return ", ".join(values), list(zip(*bound))


def _copy(conn: Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Copies rows into PostgreSQL by the driver's own hand."""
    with _cursor(conn, statement) as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


@contextmanager
def _cursor(conn: Connection, statement: str) -> Iterator[Any]:
    """The driver's own cursor for a statement; its errors are reported as SQLAlchemy does."""
    driver, dialect = conn.connection.driver_connection, conn.dialect
    assert driver is not None
    cursor = None
    try:
        cursor = driver.cursor()
        yield cursor
    except dialect.loaded_dbapi.Error as error:
        gone = dialect.is_disconnect(error, conn.connection.dbapi_connection, cursor)
        raise exc.DBAPIError.instance(
            statement, (), error, dialect.loaded_dbapi.Error, connection_invalidated=gone, dialect=dialect
        ) from error
    finally:
        if cursor is not None:
            cursor.close()


def _unnested(dialect: Dialect, table: Table, names: Sequence[str], rows: Rows) -> tuple[str, tuple[str, ...]]:
    """Rows as a table `new` of PostgreSQL: its text, and an array in text for each column."""
    casts = ", ".join(f"%s::{table.c[name].type.compile(dialect)}[]" for name in names)
    return f"unnest({casts}) AS new({_list(names)})", tuple([_array(column) for column in zip(*rows)])


def _array(values: Sequence[Any]) -> str:
    """Numbers, booleans, None or bytes as PostgreSQL writes an array of them."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    return f'"\\\\x{value.hex()}"' if isinstance(value, bytes) else str(value)


def _with_columns(table: Table) -> str:
    return f"{_quoted(table.name)} ({_list(table.columns.keys())})"


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(_quoted, names))


def _quoted(name: str) -> str:
    return f'"{name}"'
