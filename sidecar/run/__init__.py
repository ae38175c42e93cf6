"""The processes of one sidecar: who starts whom, who ends whom, and what they inherit.

    supervisor (sidecar serve)
      ├─ watch          ends Valkey when the supervisor is gone
      │    └─ valkey-server
      ├─ prepare        migrations and the catalog file, once
      ├─ http_worker    × workers
      └─ sync.worker

Every child holds the read end of a pipe from the supervisor and ends at its EOF, and the lock of
the data folder, so that the folder stays taken until the last of them has ended.
The HTTP and sync workers and the preparation are copies of the supervisor (`fork`), which has loaded
their code (`preload`). Where a copy cannot be had, on macOS, they begin in `begin`, which ties them
to the supervisor before they load it themselves.
docs/configuration.md, "Processes and signals", says what a signal or a kill does.
"""
