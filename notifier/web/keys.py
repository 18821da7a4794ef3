"""What handlers find in the application."""

from typing import TYPE_CHECKING

from aiohttp import web

from notifier.service import Service

if TYPE_CHECKING:
    from notifier.web.desk import Desk

SERVICE = web.AppKey("service", Service)
# Only where connections of parked polls are handed over.
DESK: "web.AppKey[Desk]" = web.AppKey("desk")
