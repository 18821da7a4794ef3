import json

from django.db import connection


def publish(topic: str, data: object) -> None:
    """Publish with the transaction that is under way: when it commits, and not if it is rolled back."""
    with connection.cursor() as cursor:
        cursor.execute("select notifier.publish(%s, %s)", [topic, json.dumps(data)])


def revoke(user_id: int) -> None:
    """End what this user follows, and refuse the tokens issued until now."""
    with connection.cursor() as cursor:
        cursor.execute("select notifier.revoke(%s)", [str(user_id)])
