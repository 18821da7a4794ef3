"""notifier token"""

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from notifier.cli.database import with_settings
from notifier.cli.status import FAILED, OK, USAGE, notice

if TYPE_CHECKING:
    from notifier.settings import Settings


def token(arguments: argparse.Namespace) -> int:
    return with_settings(lambda settings: _token(settings, arguments))


def _token(settings: "Settings", arguments: argparse.Namespace) -> int:
    import jwt

    from notifier.access.tokens import Tokens
    from notifier.core.errors import InvalidToken

    if not settings.tokens or not settings.tokens.secrets:
        notice("There is no NOTIFIER_JWT_SECRET to sign with. Set it as the server has it.")
        return USAGE
    now = int(time.time())
    claims: dict[str, Any] = {
        "sub": arguments.subject,
        "iat": now,
        "exp": now + int(arguments.expires.total_seconds()),
        "notifier": {"publish": arguments.publish, "subscribe": arguments.subscribe},
    }
    if settings.tokens.issuer:
        claims["iss"] = settings.tokens.issuer
    if settings.tokens.audience:
        claims["aud"] = settings.tokens.audience
    try:
        made = jwt.encode(claims, settings.tokens.secrets[0], algorithm="HS256")
        # With the server's own eyes: one that it would refuse is of no use.
        Tokens(settings.tokens).verify(made.encode(), now)
    except InvalidToken as error:
        notice(str(error))
        return FAILED
    sys.stdout.write(f"{made}\n")
    return OK
