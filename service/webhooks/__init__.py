"""Webhooks: what addresses may be called, and the deliverer that notifies them."""
