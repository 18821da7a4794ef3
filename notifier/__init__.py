"""Notifier: long-polling notifications over plain HTTP, with Postgres as the only dependency."""

__version__ = "0.1.0"
