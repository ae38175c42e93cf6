import { feature, featureItem, priceItem, pricedFeatureItem, product } from "atmn";

// Features
export const messages = feature({
  id: "messages",
  name: "Messages",
  type: "single_use",
});

export const notifications = feature({
  id: "notifications",
  name: "Notifications",
  type: "single_use",
});

export const basicMessages = feature({
  id: "basic_messages",
  name: "Basic messages",
  type: "single_use",
});

export const premiumMessages = feature({
  id: "premium_messages",
  name: "Premium messages",
  type: "single_use",
});

export const seats = feature({
  id: "seats",
  name: "Seats",
  type: "continuous_use",
});

export const sso = feature({
  id: "sso",
  name: "SSO Auth",
  type: "boolean",
});

export const usdCredits = feature({
  id: "usd_credits",
  name: "USD credits",
  type: "credit_system",
  credit_schema: [
    { metered_feature_id: basicMessages.id, credit_cost: 0.01 },
    { metered_feature_id: premiumMessages.id, credit_cost: 0.1 },
  ],
});

// Products
export const free = product({
  id: "free",
  name: "Free",
  is_default: true,
  items: [
    featureItem({ feature_id: messages.id, included_usage: 10, interval: "month" }),
    featureItem({ feature_id: notifications.id, included_usage: 1000, interval: "month" }),
    featureItem({ feature_id: usdCredits.id, included_usage: 5, interval: "month" }),
    featureItem({ feature_id: seats.id, included_usage: 3 }),
    featureItem({ feature_id: sso.id }),
  ],
});

export const pro = product({
  id: "pro",
  name: "Pro",
  items: [
    priceItem({ price: 10, interval: "month" }),
    featureItem({ feature_id: usdCredits.id, included_usage: 10, interval: "month" }),
  ],
});

export const payAsYouGo = product({
  id: "pay_as_you_go",
  name: "Pay as you go",
  items: [
    pricedFeatureItem({
      feature_id: notifications.id,
      included_usage: 1000,
      interval: "month",
      price: 1,
      billing_units: 1000,
      usage_model: "pay_per_use",
      reset_usage_when_enabled: false,
    }),
  ],
});

export const topUp = product({
  id: "top_up",
  name: "Top up",
  items: [
    pricedFeatureItem({
      feature_id: messages.id,
      price: 10,
      billing_units: 100,
      usage_model: "prepaid",
    }),
  ],
});
