"""Django under gunicorn, in one file: no database, no sessions, and of the usual middleware what an API needs."""

import json
import secrets

import topics_of_threads as topics
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_hex(),
)


@require_GET
def poll(request: HttpRequest, topic: str) -> JsonResponse:
    return JsonResponse(topics.poll(topic, int(request.GET.get("after", 0))))


@require_POST
def publish(request: HttpRequest, topic: str) -> JsonResponse:
    return JsonResponse(topics.publish(topic, json.loads(request.body)), status=201)


@require_GET
def health(_: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


urlpatterns = [path("poll/<topic>", poll), path("publish/<topic>", publish), path("health", health)]

app = get_wsgi_application()
