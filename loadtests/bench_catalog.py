"""The benchmark's catalog: one feature in two buckets, a month's and one that never ends, too large to
be used up."""

from sidecar.catalog.builders import feature, feature_item, product

calls = feature(id="calls", name="Calls", type="single_use")

plan = product(
    id="bench",
    name="Bench",
    is_default=True,
    items=[
        feature_item(feature_id=calls, included_usage=1_000_000_000, interval="month"),
        feature_item(feature_id=calls, included_usage=1_000_000_000),
    ],
)
