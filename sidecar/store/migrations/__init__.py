"""The schema's history, one revision per change; run by `sidecar.store.migrate`."""
