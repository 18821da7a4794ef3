import os
import subprocess
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_out
from django.db import connections
from django.db.models.signals import pre_migrate

from live.publishing import revoke


class LiveConfig(AppConfig):
    name = "live"

    def ready(self) -> None:
        pre_migrate.connect(migrate_notifier, sender=self)
        user_logged_out.connect(end_tokens)


def migrate_notifier(using: str, **_: object) -> None:
    """Before Django's migrations, so that these may use the schema; on the test database too."""
    if using == "default":
        database = connections[using].settings_dict["NAME"]
        url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{database}").geturl()
        subprocess.run(["notifier", "migrate"], env=os.environ | {"DATABASE_URL": url}, check=True)


def end_tokens(user: object, **_: object) -> None:
    if user is not None:
        revoke(user.pk)
