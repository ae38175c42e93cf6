"""The other way: what scripts did in Redis, carried into SQL exactly once, and watched over.

`reader` reads the log (`calls`: of many partitions at once), `records` and `changes` decode it; `load` reads the rows that a batch touches,
`working` plays the batch on them, `flush` writes it, `apply` does so in one transaction. `worker` is
the loop with its background `duties` (`tidy` decides what leaves the hot state), `status` tells how
far it is, `audit` and `compare` hold the two stores against each other.
"""
