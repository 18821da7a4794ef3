"""Where to enter the URL of a source, for each scheme: what `notifier source show` says."""

_STANDARD = (
    "Enter the URL as an endpoint. The signing secret that is shown there (whsec_…) is the secret of this source."
)

HINTS = {
    "hmac": "Enter the URL and the secret where the sender has its webhooks.",
    "token": "Have the sender call the URL with the secret in the header that is set.",
    "standard": _STANDARD,
    "none": "Enter the URL where the sender has its webhooks. Anyone who knows it can send.",
    "alertmanager": "In alertmanager.yml: receivers, webhook_configs, url; under http_config, authorization, the "
    "secret as credentials (or basic_auth).",
    "bitbucket": "Repository settings, Webhooks, Add webhook: the URL, the secret, and the triggers.",
    "cloudevents": "Have the sender call the URL with Authorization: Bearer and the secret.",
    "discord": "Developer Portal, your application: Interactions Endpoint URL. The secret is the Public Key.",
    "dropbox": "App Console, your app, Webhooks: the URL. The secret is the App secret.",
    "gitea": "Settings, Webhooks, Add webhook, Gitea (or Forgejo): Target URL, POST, application/json, Secret.",
    "github": "Settings, Webhooks, Add webhook: Payload URL, Content type application/json, Secret, and the events.",
    "gitlab": "Settings, Webhooks, Add new webhook: URL; Signing token (whsec_…), or Secret token; and the triggers.",
    "grafana": "Alerting, Contact points, Webhook: URL, and under HMAC signature the secret.",
    "heroku": "heroku webhooks:add -i api:release -l notify -u URL -s SECRET",
    "linear": "Settings, API, Webhooks, New webhook: URL. The secret is the Signing secret that is shown there.",
    "meta": "App Dashboard, Webhooks: Callback URL and Verify token. The secret is the App secret.",
    "pagerduty": "Integrations, Generic Webhooks (v3), New Webhook: URL. The secret is shown once, when it is made.",
    "sentry": "Settings, Custom Integrations: Webhook URL. The secret is the Client Secret.",
    "shopify": "Settings, Notifications, Webhooks: URL, JSON. The secret is shown there; that of an app is its own.",
    "slack": "api.slack.com/apps, Event Subscriptions: Request URL. The secret is Basic Information, Signing Secret.",
    "stripe": "Developers, Webhooks, Add endpoint: the URL and the events. The secret is its Signing secret (whsec_…).",
    "twilio": "Phone Numbers, Messaging, A message comes in: Webhook, POST, the URL exactly as it is set here. The "
    "secret is the Auth Token.",
    "woocommerce": "WooCommerce, Settings, Advanced, Webhooks: Delivery URL and Secret.",
    "x": "Register the URL with the webhooks API. The secret is the API key secret (consumer secret).",
    "zoom": "App Marketplace, your app, Feature, Event Subscriptions: the URL. The secret is the Secret Token.",
}
