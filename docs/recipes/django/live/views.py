import time

import jwt
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

TOKEN_LIFETIME_S = 3600


def token_for(user_id: int) -> str:
    now = int(time.time())
    claims = {
        "sub": str(user_id),
        "iat": now,
        "exp": now + TOKEN_LIFETIME_S,
        "notifier": {"subscribe": [f"user/{user_id}/**", "all"]},
    }
    return jwt.encode(claims, settings.NOTIFIER_JWT_SECRET, algorithm="HS256")


@require_GET
@never_cache
def token(request: HttpRequest) -> JsonResponse:
    if not request.user.is_authenticated:
        return JsonResponse({"error": "log in first"}, status=401)
    return JsonResponse({"token": token_for(request.user.pk)})
