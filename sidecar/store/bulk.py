"""Many rows in one statement, by the fastest way that each driver has: for the sync worker, which
writes nearly everything that is ever written.

Rows are tuples of what the driver takes; JSON comes as text. On SQLite a statement is run for each row,
within the library; on PostgreSQL rows to insert are copied, and all others travel as one array for each
column. Errors are SQLAlchemy's, as if it had run the statement.
"""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from sqlalchemy import Connection, Dialect, Table, exc

Rows = Sequence[tuple[Any, ...]]


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
    columns = list(zip(*rows))
    empty = [column.count(None) == len(rows) for column in columns]
    bound = [
        map(bytearray, column) if {*map(type, column)} == {bytes} else column
        for column, is_empty in zip(columns, empty) if not is_empty
    ]
    return ", ".join(["NULL" if is_empty else "?" for is_empty in empty]), list(zip(*bound))


def _copy(conn: Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Copies rows into PostgreSQL by the driver's own hand, and reports its errors as SQLAlchemy does."""
    driver, dialect = conn.connection.driver_connection, conn.dialect
    assert driver is not None
    with driver.cursor() as cursor:
        try:
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
        except dialect.loaded_dbapi.Error as error:
            gone = dialect.is_disconnect(error, conn.connection.dbapi_connection, cursor)
            raise exc.DBAPIError.instance(
                statement, (), error, dialect.loaded_dbapi.Error, connection_invalidated=gone, dialect=dialect
            ) from error


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
