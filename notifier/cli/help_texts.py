"""What `notifier COMMAND --help` says besides its arguments."""

ENVIRONMENT_OF_CLIENTS = """
environment:
  NOTIFIER_URL  the server, unless --url is given; default http://127.0.0.1:PORT (8080)
  NOTIFIER_KEY  a key or a token, if the server needs one; default the first NOTIFIER_ADMIN_KEY
"""

ENVIRONMENT_OF_SERVERS = """
environment:
  DATABASE_URL  the database; else the embedded one in ./.notifier
  HOST, PORT    where it listens (127.0.0.1, 8080)
  ...           docs/settings.md has the table of all
"""

DATABASE = """
environment:
  DATABASE_URL  the database; else the embedded one in ./.notifier
"""

PUBLISH = """examples:
  notifier publish orders/42 '{"status": "paid"}' --title Paid --priority 4 --tags money
  make 2>&1 | notifier publish builds/main - --text
  notifier publish cameras/door - --type image/jpeg < door.jpg
  notifier publish reminders 'Take out the bins' --delay 12h
"""

SUBSCRIBE = """No message is lost or printed twice across reconnects and restarts of the server. The id in
a line is a cursor: to continue later, give the last one as --after, or let --state keep it.
Notices about gaps and retries go to standard error. It ends at Ctrl-C, when its output is
closed, after --count messages, or with --once when all that was there is printed.

examples:
  notifier subscribe 'orders/*' builds/main
  notifier subscribe 'orders/**' --since 10m | jq --unbuffered .data
  notifier subscribe orders/42 --last 1 --count 1
  notifier subscribe 'orders/*' --once --state orders.cursor >> orders.ndjson
"""

HISTORY = """The oldest comes first, and the command ends. The id in the first line, given as --before, leads
further back; that in the last one, given as --after to subscribe, leads forwards.

examples:
  notifier history 'orders/*' --last 10
  notifier history 'orders/**' builds/main --before 1795635427800822 | jq .data
"""

FORWARD = """Each message is posted to URL, one at a time and in order: its bytes and content type as they
came, the headers of a webhook, and its id as Notifier-Id. A 5xx, 408, 425, 429 and no answer are
tried again until there is another answer; nothing behind it is sent meanwhile. Any other answer
than 2xx, also a redirect, is told on standard error with the id, and the message is left out.
With --state a crash loses nothing; the message that was under way may be sent twice.

examples:
  notifier forward 'github/**' http://localhost:3000/webhooks
  notifier forward 'github/**' http://localhost:3000/webhooks --id 1795635427800822
  notifier forward 'gitlab/**' http://localhost:3000/webhooks --header @secrets.txt --last 3
  notifier forward 'stripe/**' https://billing.internal/hooks --state stripe.cursor
"""

LIST_SCHEDULED = """It lists what the key may publish, and so take back; without bodies, which it need not be allowed to
read.

examples:
  notifier scheduled list | head
  notifier scheduled list 'reminders/*' --json
"""

CANCEL_SCHEDULED = """Status 1: one of them is not scheduled any more, or never was. The others are taken back all the
same.

examples:
  notifier scheduled cancel 7
  notifier scheduled list reminders | cut -f 1 | xargs -r notifier scheduled cancel
"""

ADD_SOURCE = """examples:
  openssl rand -hex 20 | tee secret.txt | notifier source add github --scheme github --secret - \\
      --topic 'github/{repository.full_name}/{header:X-GitHub-Event}'
  notifier source add pay --scheme stripe --secret whsec_… --topic 'stripe/{type}'
  notifier source add sms --scheme twilio --secret … --set url=https://example.com/hooks/sms --topic 'sms/{form:From}'
  notifier source add shop --scheme hmac --set header=X-Sign --set encoding=base64 --secret … --topic shop
  notifier source add alerts --scheme token --secret … --topic alerts
  notifier source add ci --scheme none --topic 'ci/{project}'

schemes:
  hmac      options: header (needed), prefix, separator, signed ("{timestamp}.{body}"), digest, encoding (hex, base64),
            key (text, base64, hex), timestamp (a header, json:FIELD, item:PREFIX), unit (s, ms), tolerance, id
  token     a header that holds the secret; options: header, as (bearer, basic, plain)
  standard  Standard Webhooks, and Svix
  none      nothing is checked; 16 random characters are added to the name
  alertmanager bitbucket cloudevents discord dropbox gitea github gitlab grafana (header, timestamp) heroku linear meta
  pagerduty sentry shopify slack stripe twilio (url, needed) woocommerce x zoom
"""

TEST_SOURCE = """The body is read from standard input, byte for byte. Nothing is published.

example:
  notifier source test github --header 'X-Hub-Signature-256: sha256=…' < body.json
"""

ROTATE = """No webhook is refused meanwhile: enter the new secret at the sender before the old one stops counting.

example:
  openssl rand -hex 20 | tee secret.txt | notifier source rotate github --secret -
"""

CREATE_KEY = """The key alone goes to standard output, once; only its hash is stored. Send it as
Authorization: Bearer KEY. Patterns: * is one segment, ** at the end all the rest.

examples:
  notifier key create shop --publish 'orders/**' --publish stock
  notifier key create wallboard --subscribe 'builds/*' --expires 90d
  notifier key create operator --admin
"""

CHANGE_KEY = """The key may do what is given here and nothing else. Its polls that wait end within a second.

examples:
  notifier key change shop --publish 'orders/**'
"""

SIGN = """The token alone goes to standard output. It is for trying things out, and for scripts: for their
logged-in users, applications sign tokens themselves, with any JWT library.

examples:
  notifier token 7 --subscribe 'user/7/**' --subscribe news
  notifier token sensor --publish 'sensors/*' --expires 10m

environment:
  NOTIFIER_JWT_SECRET  what to sign with, as the server has it; of several, the first
  NOTIFIER_JWT_...     the other settings for tokens, which are kept to
"""
