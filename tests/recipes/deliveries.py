"""What four vendors send, in the shapes of their documentation; shortened, and with names of nobody."""

import json
import time
from collections.abc import Callable

import stripe
from slack_sdk.signature import SignatureVerifier
from support.signing import mac

SECRET = "whsec_0123456789abcdef0123456789abcdef"

GITHUB = (
    '{"ref":"refs/heads/main","before":"6113728f27ae82c7b1a177c8d03f9e96e0adf246",'
    '"after":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","repository":{"id":186853002,"name":"Hello-World",'
    '"full_name":"Codertocat/Hello-World","private":false,"owner":{"name":"Codertocat","id":21031067}},'
    '"pusher":{"name":"Codertocat"},"created":false,"deleted":false,"forced":false,'
    '"commits":[{"id":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","message":"Größe","added":[],"modified":["a.txt"]}]}'
)
STRIPE = """{
  "id": "evt_1MqqbKLt4dXK03v5qaIbiNCC",
  "object": "event",
  "api_version": "2022-11-15",
  "created": 1680064028,
  "data": {
    "object": {"id": "in_1MtHbELkdIwHu7ixl4OzzPMv", "object": "invoice", "amount_paid": 1099, "currency": "eur"}
  },
  "livemode": false,
  "pending_webhooks": 2,
  "type": "invoice.paid"
}"""
SLACK = (
    '{"token":"z26uFbvR1xHJEdHE1OQiO6t8","team_id":"T123ABC456","api_app_id":"A123ABC456",'
    '"event":{"type":"app_mention","user":"U123ABC456","text":"<@U0LAN0Z89> is it everything a river should be?",'
    '"ts":"1515449522.000016","channel":"C123ABC456","event_ts":"1515449522000016"},'
    '"type":"event_callback","event_id":"Ev123ABC456","event_time":1515449522}'
)
ALERTMANAGER = (
    '{"receiver":"notifier","status":"firing","alerts":[{"status":"firing","labels":{"alertname":"DiskFull",'
    '"instance":"db1:9100","severity":"page"},"annotations":{"summary":"Disk of db1 is full"},'
    '"startsAt":"2026-11-25T19:37:09.482Z","endsAt":"0001-01-01T00:00:00Z","fingerprint":"5b0a3a3c5e3b1f3d"}],'
    '"groupLabels":{"alertname":"DiskFull"},"commonLabels":{"alertname":"DiskFull","severity":"page"},'
    '"commonAnnotations":{},"externalURL":"http://alerts:9093","version":"4","groupKey":"{}:{alertname=\\"DiskFull\\"}",'
    '"truncatedAlerts":0}\n'
)


def _github(body: str) -> dict[str, str]:
    return {
        "User-Agent": "GitHub-Hookshot/044aadd",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-GitHub-Event": "push",
        "X-GitHub-Hook-ID": "292430182",
        "X-Hub-Signature-256": f"sha256={mac(SECRET, body).hex()}",
    }


def _stripe(body: str) -> dict[str, str]:
    now = int(time.time())
    signature = stripe.WebhookSignature._compute_signature(f"{now}.{body}", SECRET)
    return {"User-Agent": "Stripe/1.0", "Stripe-Signature": f"t={now},v1={signature},v0=6ffbb59b"}


def _slack(body: str) -> dict[str, str]:
    now = str(int(time.time()))
    signature = SignatureVerifier(SECRET).generate_signature(timestamp=now, body=body)
    return {"User-Agent": "Slackbot 1.0", "X-Slack-Request-Timestamp": now, "X-Slack-Signature": signature}


def _alertmanager(_: str) -> dict[str, str]:
    return {"User-Agent": "Alertmanager/0.27.0", "Authorization": f"Bearer {SECRET}"}


# By the name of the source, as docs/webhooks.md has it: the body, and the headers for it.
DELIVERIES: dict[str, tuple[str, Callable[[str], dict[str, str]]]] = {
    "github": (GITHUB, _github),
    "pay": (STRIPE, _stripe),
    "chat": (SLACK, _slack),
    "alerts": (ALERTMANAGER, _alertmanager),
}
assert all(json.loads(body) for body, _ in DELIVERIES.values())
