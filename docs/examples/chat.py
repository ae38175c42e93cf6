"""The catalog of a chat application, with four ways to sell. Start a sidecar with it by

    sidecar serve --catalog docs/examples/chat.py

or change a running one with `sidecar push docs/examples/chat.py`. Plans of one group replace each
other, so that each part below can be used by itself.
"""

from sidecar.catalog.builders import (
    feature,
    feature_item,
    price_item,
    priced_feature_item,
    product,
)

# --- Messages: 10 a month for free, and packages of 100 for 10 USD that never expire.
# --- Images: 10 for free, once, and the same kind of packages.

messages = feature(id="messages", name="Messages", type="single_use")
images = feature(id="images", name="Images", type="single_use")

free = product(
    id="free",
    name="Free",
    is_default=True,
    items=[
        feature_item(feature_id=messages, included_usage=10, interval="month"),
        feature_item(feature_id=images, included_usage=10),
    ],
)

top_up = product(
    id="top_up",
    name="Top up",
    items=[
        priced_feature_item(feature_id=messages, price=10, billing_units=100, usage_model="prepaid"),
    ],
)

image_top_up = product(
    id="image_top_up",
    name="Image top up",
    items=[
        priced_feature_item(feature_id=images, price=10, billing_units=100, usage_model="prepaid"),
    ],
)

# --- Credits in USD: two models draw from them at their own cost. 5 a month for free, 10 a month
# --- for 10 USD, and more at 1 USD each.

basic_messages = feature(id="basic_messages", name="Basic messages", type="single_use")
premium_messages = feature(id="premium_messages", name="Premium messages", type="single_use")

usd_credits = feature(
    id="usd_credits",
    name="USD credits",
    type="credit_system",
    credit_schema=[
        {"metered_feature_id": basic_messages, "credit_cost": 0.01},
        {"metered_feature_id": premium_messages, "credit_cost": 0.10},
    ],
)

free_credits = product(
    id="free_credits",
    name="Free credits",
    group="credits",
    is_default=True,
    items=[
        feature_item(feature_id=usd_credits, included_usage=5, interval="month"),
    ],
)

pro = product(
    id="pro",
    name="Pro",
    group="credits",
    items=[
        price_item(price=10, interval="month"),
        feature_item(feature_id=usd_credits, included_usage=10, interval="month"),
    ],
)

credit_top_up = product(
    id="credit_top_up",
    name="Credit top up",
    items=[
        priced_feature_item(feature_id=usd_credits, price=1, usage_model="prepaid"),
    ],
)

# --- Notifications: 1,000 a month for free, or with a card on file as many as you like, 1 USD per
# --- 1,000 beyond those. What was used before the switch stays used.

notifications = feature(id="notifications", name="Notifications", type="single_use")

free_notifications = product(
    id="free_notifications",
    name="Free notifications",
    group="notifications",
    is_default=True,
    items=[
        feature_item(feature_id=notifications, included_usage=1000, interval="month"),
    ],
)

pay_as_you_go = product(
    id="pay_as_you_go",
    name="Pay as you go",
    group="notifications",
    items=[
        priced_feature_item(
            feature_id=notifications,
            included_usage=1000,
            interval="month",
            price=1,
            billing_units=1000,
            usage_model="pay_per_use",
            reset_usage_when_enabled=False,
        ),
    ],
)
