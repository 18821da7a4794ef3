"""Webhooks: who may send them, whether they are genuine, which topic they go to, and what is kept of them."""
