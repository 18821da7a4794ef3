"""What handlers find in the application. (ACCESS and HANDOVER stand beside what they lead to.)"""

from aiohttp import web

from notifier.service import Service

SERVICE = web.AppKey("service", Service)
