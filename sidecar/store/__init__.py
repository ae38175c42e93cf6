"""SQL: tables, migrations, and named queries grouped by noun.

A query is a plain function of a SQLAlchemy connection; `Store` gives it a snapshot or a
transaction. Nothing here knows of Redis, HTTP or prices.
"""
