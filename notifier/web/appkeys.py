"""What handlers find in the application. (ACCESS and HANDOVER are defined beside their values.)"""

from aiohttp import web

from notifier.service import Service

SERVICE = web.AppKey("service", Service)
