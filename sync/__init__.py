"""The other way: what scripts did in Redis, carried into SQL exactly once, and watched over.

`records` decodes the log, `reader` reads it, `working`, `amounts` and `apply` bring a batch into SQL,
`worker` is the loop with its background duties, `status` tells how far it is, `audit` compares the
two stores.
"""
