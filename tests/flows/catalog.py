"""What the flow tests sell. Each part has a group and features of its own, so that one customer's
default plans do not meet another part's."""

from __future__ import annotations

from typing import Any

FEATURES: list[dict[str, Any]] = [
    {"id": "messages", "name": "Messages", "type": "single_use"},
    {"id": "images", "name": "Images", "type": "single_use"},
    {"id": "basic_messages", "name": "Basic messages", "type": "single_use"},
    {"id": "premium_messages", "name": "Premium messages", "type": "single_use"},
    {
        "id": "usd_credits", "name": "USD credits", "type": "credit_system",
        "credit_schema": [
            {"metered_feature_id": "basic_messages", "credit_cost": 0.01},
            {"metered_feature_id": "premium_messages", "credit_cost": 0.10},
        ],
    },
    {"id": "notifications", "name": "Notifications", "type": "single_use"},
    {"id": "sso", "name": "SSO", "type": "boolean"},
    {"id": "seats", "name": "Seats", "type": "continuous_use"},
    {"id": "words", "name": "Words", "type": "single_use"},
    {"id": "tokens", "name": "Tokens", "type": "single_use", "precision": 0},
]

PRODUCTS: list[dict[str, Any]] = [
    {
        "id": "free", "name": "Free", "is_default": True, "group": "chat",
        "items": [{"feature_id": "messages", "included_usage": 10, "interval": "month"}],
    },
    {
        "id": "top_up", "name": "Top up",
        "items": [{"feature_id": "messages", "price": 10, "billing_units": 100, "usage_model": "prepaid"}],
    },
    {
        "id": "free_images", "name": "Free images", "is_default": True, "group": "images",
        "items": [{"feature_id": "images", "included_usage": 10}],
    },
    {
        "id": "image_top_up", "name": "Image top up",
        "items": [{"feature_id": "images", "price": 10, "billing_units": 100, "usage_model": "prepaid"}],
    },
    {
        "id": "free_credits", "name": "Free credits", "is_default": True, "group": "credits",
        "items": [{"feature_id": "usd_credits", "included_usage": 5, "interval": "month"}],
    },
    {
        "id": "pro", "name": "Pro", "group": "credits",
        "items": [
            {"price": 10, "interval": "month"},
            {"feature_id": "usd_credits", "included_usage": 10, "interval": "month"},
        ],
    },
    {
        "id": "credit_top_up", "name": "Credit top up",
        "items": [{"feature_id": "usd_credits", "price": 1, "usage_model": "prepaid"}],
    },
    {
        "id": "free_notifications", "name": "Free notifications", "is_default": True, "group": "notifications",
        "items": [{"feature_id": "notifications", "included_usage": 1000, "interval": "month"}],
    },
    {
        "id": "pay_as_you_go", "name": "Pay as you go", "group": "notifications",
        "items": [{
            "feature_id": "notifications", "included_usage": 1000, "interval": "month", "price": 1,
            "billing_units": 1000, "usage_model": "pay_per_use", "reset_usage_when_enabled": False,
        }],
    },
    {
        "id": "team", "name": "Team", "group": "team",
        "items": [
            {"feature_id": "seats", "included_usage": 3},
            {"feature_id": "sso"},
            {"feature_id": "words", "included_usage": 50, "interval": "month", "entity_feature_id": "seats"},
            {"feature_id": "words", "included_usage": 100, "interval": "month"},
        ],
    },
    {
        "id": "bigger_team", "name": "Bigger team", "group": "team",
        "items": [{"feature_id": "seats", "included_usage": 10}, {"feature_id": "words", "included_usage": "inf"}],
    },
    {
        "id": "seat_words", "name": "Seat words", "is_add_on": True,
        "items": [{"feature_id": "words", "included_usage": 20, "interval": "month"}],
    },
    {
        "id": "packs", "name": "Packs", "group": "packs",
        "items": [
            {
                "feature_id": "tokens", "included_usage": 2, "interval": "month", "price": 5, "billing_units": 3,
                "usage_model": "prepaid", "usage_limit": 20,
            },
            {"price": 20, "interval": "month"},
        ],
    },
    {
        "id": "seat_cap", "name": "Seat cap", "group": "team",
        "items": [{"feature_id": "seats", "included_usage": 1, "price": 7, "usage_limit": 2, "usage_model": "pay_per_use"}],
    },
    {"id": "cheaper", "name": "Cheaper", "group": "packs", "items": [{"price": 3, "interval": "month"}]},
]
