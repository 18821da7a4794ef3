"""What handlers find in the application."""

from aiohttp import web

from notifier.service import Service

SERVICE = web.AppKey("service", Service)
