"""Webhook sources without I/O: signatures, topics from hostile input, and what is kept of the headers."""

import hashlib
import hmac
import json
import re
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.core.errors import BadSignature, InvalidSource, Unavailable
from notifier.core.messages import BYTES, FORM, TEXT
from notifier.core.topics import check_topic
from notifier.core.webhooks import kept, signatures, templates
from notifier.core.webhooks.delivery import MAX_FIELDS, Delivery
from notifier.core.webhooks.sources import Source, check_source

SECRET = "It's a Secret to Everybody"
BODY = b"Hello, World!"
# The example in GitHub's documentation, "Validating webhook deliveries".
SIGNATURE = b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

GITHUB_TOPIC = "github/{repository.full_name}/{header:X-GitHub-Event}"
PUSH = json.dumps({"repository": {"full_name": "octo/hello"}, "commits": [{"id": "c0ffee"}]}).encode()


def github(*secrets: str, topic: str = GITHUB_TOPIC) -> Source:
    return check_source("github", "github", topic, secrets or (SECRET,))


def open_source(topic: str) -> Source:
    return check_source("ci", "none", topic)


def signed(signature: bytes, name: bytes = b"X-Hub-Signature-256") -> list[tuple[bytes, bytes]]:
    return [(b"Host", b"localhost"), (name, signature)]


def verify(source, headers, body):
    signatures.verify(source.rows, source.secrets, Delivery(headers, body), 0)


def topic_for(source, headers, body, query=b""):
    return templates.topic_for(source.topic, Delivery(headers, body, query))


def kept_headers(headers, **options):
    return kept.kept_headers(Delivery(headers, b""), **options)


# Signatures


def test_githubs_own_example_is_accepted():
    verify(github(), signed(SIGNATURE), BODY)
    verify(github(), signed(SIGNATURE, b"x-hub-signature-256"), BODY)


def test_any_of_several_secrets_is_accepted():
    verify(github("the old one", SECRET), signed(SIGNATURE), BODY)
    verify(github(SECRET, "the new one"), signed(SIGNATURE), BODY)


def test_the_signature_covers_every_byte_as_it_came():
    body = b'\xef\xbb\xbf{\r\n "a": 1, "a": 2}\xff\x00'
    mac = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    verify(github(), signed(b"sha256=" + mac.encode()), body)
    with pytest.raises(BadSignature):
        verify(github(), signed(b"sha256=" + mac.encode()), body + b"\n")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"X-Hub-Signature", b"sha1=" + b"0" * 40)],
        signed(SIGNATURE) + signed(SIGNATURE),
        signed(SIGNATURE) + signed(b"sha256=" + b"0" * 64),
        signed(b""),
        signed(b"sha256="),
        signed(SIGNATURE.removeprefix(b"sha256=")),
        signed(SIGNATURE.replace(b"sha256", b"sha1")),
        signed(SIGNATURE[:-1]),
        signed(SIGNATURE + b"0"),
        signed(SIGNATURE + b"," + SIGNATURE),
        signed("sha256=é".encode()),
        signed(b"sha256=\xff\xfe\x00"),
        signed(b"sha256=" + b"0" * 64),
    ],
)
def test_a_missing_doubled_wrong_or_hostile_signature_is_refused(headers):
    with pytest.raises(BadSignature) as refused:
        verify(github(), headers, BODY)
    assert refused.value.status == 401
    assert SECRET not in str(refused.value)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_no_signature_value_raises_anything_but_a_refusal(value, body):
    with pytest.raises(BadSignature):
        verify(github(), signed(value), body)


def test_a_source_without_secrets_refuses_everything():
    with pytest.raises(BadSignature):
        verify(Source("x", "github", "x"), signed(SIGNATURE), BODY)


def test_a_scheme_that_this_version_does_not_know_is_our_own_trouble():
    """A newer version has added the source; the sender must try again."""
    with pytest.raises(Unavailable):
        verify(Source("x", "sha0", "x", (SECRET,)), signed(SIGNATURE), BODY)


def test_the_scheme_none_checks_nothing():
    verify(open_source("ci"), [], BODY)


# Sources


def test_a_source_never_shows_its_secrets():
    assert SECRET not in repr(github())
    assert SECRET not in f"{github()}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("", "none", "x"), "name of a source"),
        (("-ci", "none", "x"), "name of a source"),
        (("CI", "none", "x"), "name of a source"),
        (("c/i", "none", "x"), "name of a source"),
        (("ci\n", "none", "x"), "name of a source"),
        (("c" * 64, "none", "x"), "name of a source"),
        (("ci", "subversion", "x"), "There is no scheme 'subversion'; there are: hmac, token, standard, "),
        (("ci", "github", "x"), "needs the secret"),
        (("ci", "none", "x", [SECRET]), "would protect nothing"),
        (("ci", "github", "x", [""]), "printable"),
        (("ci", "github", "x", [SECRET + "\n"]), "printable"),
        (("ci", "github", "x", ["\ufeff" + SECRET]), "printable"),
        (("ci", "github", "x", [SECRET + " "]), "begins or ends with a space"),
        (("ci", "github", "x", [" " + SECRET]), "begins or ends with a space"),
        (("ci", "github", "x", [SECRET + "\udcff"]), "printable"),
        (("ci", "github", "x", [SECRET] * 9), "at most 8 secrets"),
        (("ci", "none", ""), "cannot be empty"),
        (("ci", "none", "/x"), "yields no topic"),
        (("ci", "none", "x/"), "yields no topic"),
        (("ci", "none", "x//{a}"), "yields no topic"),
        (("ci", "none", "x/../{a}"), "yields no topic"),
        (("ci", "none", "x y"), "yields no topic"),
        (("ci", "none", "ci/*"), "yields no topic"),
        (("ci", "none", "ci/{a"), "braces"),
        (("ci", "none", "ci/a}"), "braces"),
        (("ci", "none", "ci/{}"), "braces"),
        (("ci", "none", "ci/{a..b}"), "braces"),
        (("ci", "none", "ci/{{a}}"), "braces"),
        (("ci", "none", "ci/{header:}"), "braces"),
        (("ci", "none", "ci/{a|}"), "braces"),
        (("ci", "none", "ci/{|a}"), "braces"),
        (("ci", "none", "ci/{a|b"), "braces"),
        (("ci", "none", 'ci/{a."b}'), "braces"),
        (("ci", "none", 'ci/{a""}'), "braces"),
        (("ci", "none", "ci/{query:token}"), "credential"),
        (("ci", "none", "ci/{a|form:api_key}"), "credential"),
        (("ci", "none", "ci/{heder:X-Event}"), "braces"),
        (("ci", "none", "ci/{a b}"), "braces"),
        (("ci", "none", "ci/{header:Authorization}"), "credential"),
        (("ci", "none", "ci/{header:X-Gitlab-Token}"), "credential"),
        (("ci", "none", "x" * 256), "at most 255"),
    ],
)
def test_a_malformed_source_is_refused_with_a_sentence(arguments, sentence):
    with pytest.raises(InvalidSource, match=re.escape(sentence)) as refused:
        check_source(*arguments)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["a", "0", "git-hub_2", "c" * 63])
def test_a_well_formed_source_is_made(name):
    assert check_source(name, "github", GITHUB_TOPIC, [SECRET]) == Source(name, "github", GITHUB_TOPIC, (SECRET,))


# Topics


@pytest.mark.parametrize(
    ("template", "topic"),
    [
        ("ci", "ci"),
        (GITHUB_TOPIC, "github/octo/hello/push"),
        ("{repository.full_name}", "octo/hello"),
        ("c-{commits.0.id}.x", "c-c0ffee.x"),
        ("{commits.1.id}", "_"),
        ("{commits.id}", "_"),
        ("{repository}", "_"),
        ("{commits}", "_"),
        ("{repository.full_name.x}", "_"),
        ("{header:x-github-event}/{header:Missing}", "push/_"),
    ],
)
def test_a_template_takes_json_fields_and_headers(template, topic):
    headers = [(b"Content-Type", b"application/json"), (b"X-GitHub-Event", b"push")]
    assert topic_for(open_source(template), headers, PUSH) == topic


@pytest.mark.rule("W-5")
@pytest.mark.parametrize(
    ("template", "topic"),
    [
        ("{repository.full_name|organization.login}", "octo"),
        ("{installation.id|organization.id|header:X-GitHub-Event}", "7"),
        ("{a|b|header:Missing|header:X-GitHub-Event}", "push"),
        ("{a|b}", "_"),
        ("{organization.name|organization.login}", "octo"),
        ('{labels."a.b/c"}', "quoted"),
        ('{labels."x|y"|a}', "2"),
        ('{a|labels."x|y"}', "2"),
        ("{query:project}/{query:missing|query:project}", "p_1/p_1"),
        ("{query:list[]|query:n}", None),
        ("{form:From}", "_"),
    ],
)
def test_a_template_has_alternatives_quoted_keys_and_the_query(template, topic):
    body = {"organization": {"login": "octo", "name": "", "id": 7}, "labels": {"a.b/c": "quoted", "x|y": 2}}
    headers = [(b"Content-Type", b"application/json"), (b"X-GitHub-Event", b"push")]
    if topic is None:
        with pytest.raises(InvalidSource):
            open_source(template)
    else:
        query = b"project=p%201&project=other&n=1"
        assert topic_for(open_source(template), headers, json.dumps(body).encode(), query) == topic


@pytest.mark.rule("W-5")
def test_a_template_takes_the_fields_of_a_form():
    headers = [(b"Content-Type", b"application/x-www-form-urlencoded")]
    body = b"From=%2B15551234&Body=a+b&From=2&x=" + "é".encode("latin-1")
    assert topic_for(open_source("sms/{form:From}/{form:Body}/{form:x}"), headers, body) == "sms/+15551234/a_b/_"
    assert topic_for(open_source("{form:From}"), [], body) == "_"


def test_the_fields_of_a_form_are_bounded():
    delivery = Delivery(
        [(b"Content-Type", b"application/x-www-form-urlencoded")],
        b"&".join(b"f%d=1" % n for n in range(MAX_FIELDS + 10)),
    )
    assert len(delivery.form) == MAX_FIELDS


@pytest.mark.rule("W-5")
@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"v": "x"}',
        '{"v": "x", "w": "é"}'.encode("latin-1"),
        b'\xef\xbb\xbf{"v": "x", "w": "\xe9"}',
        b"payload=%EF%BB%BF%7B%22v%22%3A+%22x%22%7D",
        b"a=1&payload=%7B%22v%22%3A+%22x%22%2C%22w%22%3A%22%E9%22%7D",
    ],
)
def test_a_template_reads_json_behind_a_byte_order_mark_and_in_latin_1(body):
    kind = b"application/x-www-form-urlencoded" if b"payload" in body else b"application/json"
    assert topic_for(open_source("t/{v}"), [(b"Content-Type", kind)], body) == "t/x"


@pytest.mark.parametrize(
    ("value", "topic"),
    [
        (12, "t/12"),
        (10**30, f"t/{10**30}"),
        (1.5, "t/1.5"),
        (True, "t/true"),
        (None, "t/_"),
        ("", "t/_"),
        ("a b*c?ü#", "t/a_b_c___"),
        ("💥\x00\r\n", "t/____"),
        ("a/b", "t/a/b"),
        ("/a//b/", "t/_/a/_/b/_"),
        ("..", "t/_"),
        ("../../etc", "t/_/_/etc"),
        ("a/./b/...", "t/a/_/b/..."),
        ("x" * 300, "t/" + "x" * 253),
        ("x" * 251 + "/../y", "t/" + "x" * 251 + "/_"),
        ("x" * 252 + "/y", "t/" + "x" * 252),
    ],
)
def test_a_value_becomes_part_of_a_topic_whatever_it_is(value, topic):
    assert topic_for(open_source("t/{v}"), [], json.dumps({"v": value}).encode()) == topic


def test_numbers_stay_as_they_are_written():
    assert topic_for(open_source("{v}"), [], b'{"v": 1E22}') == "1E22"
    assert topic_for(open_source("{v}"), [], b'{"v": 1.50}') == "1.50"
    assert topic_for(open_source("{v}"), [], b'{"v": %s}' % (b"9" * 300)) == "9" * 255


@pytest.mark.parametrize("value", ['"\\ud800"', "1e400", "9" * 401, "[" * 60 + "]" * 60, "NaN"])
def test_a_body_that_not_every_reader_can_read_gives_no_fields(value):
    assert topic_for(open_source("t/{a}"), [], b'{"a": 1, "b": %b}' % value.encode()) == "t/_"


def test_dots_around_a_value_cannot_make_a_dot_segment():
    assert topic_for(open_source("a/.{v}"), [], b'{"v": "."}') == "a/_"
    assert topic_for(open_source("{v}./a"), [], b'{"v": "x/."}') == "x/_/a"


def test_githubs_form_encoding_is_read():
    body = b"payload=" + quote_plus(PUSH.decode()).encode() + b"&x=1"
    headers = [(b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")]
    assert topic_for(open_source("{repository.full_name}"), headers, body) == "octo/hello"
    assert topic_for(open_source("{repository.full_name}"), headers, b"x=1&y=2") == "_"
    # What `curl -d '{...}'` sends is called a form and is none.
    assert topic_for(open_source("{repository.full_name}"), headers, PUSH) == "octo/hello"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"\xef\xbb\xbf" * 2 + b'{"a": 1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"null",
        b'"a"',
        b"payload=%7B",
    ],
)
def test_without_a_json_object_all_fields_are_missing(body):
    form = [(b"Content-Type", b"application/x-www-form-urlencoded")]
    assert topic_for(open_source("t/{a}"), [], body) == "t/_"
    assert topic_for(open_source("t/{a}"), form, body) == "t/_"


_awkward = st.text(alphabet=st.sampled_from(list("a./_ \x00\n*é💥{}%")), max_size=300) | st.text(max_size=20)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _awkward,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=3),
    max_leaves=8,
)
_bodies = st.binary(max_size=200) | _json.map(lambda value: json.dumps(value).encode())
_headers = st.lists(
    st.tuples(
        st.sampled_from([b"X-A", b"x-a", b"Content-Type", b"Connection", b""]) | st.binary(max_size=10),
        st.sampled_from([b"application/x-www-form-urlencoded"]) | st.binary(max_size=300),
    ),
    max_size=5,
)
_parts = ["{a}", "{b}", "{a.b}", "{a.0.b}", "{0}", "{header:X-A}", "{header:Content-Type}", "/", ".", "..", "x", "@"]


def _accepted(template: str) -> bool:
    try:
        open_source(template)
    except InvalidSource:
        return False
    return True


@given(st.lists(st.sampled_from(_parts), min_size=1, max_size=8).map("".join).filter(_accepted), _headers, _bodies)
def test_any_headers_and_any_body_give_a_topic_for_any_accepted_template(template, headers, body):
    topic = topic_for(open_source(template), headers, body)
    assert check_topic(topic) == topic


@given(st.text(alphabet=st.sampled_from(list("{}:ab.0/header-\n ")), max_size=30), _headers, _bodies)
def test_a_template_is_either_refused_or_gives_a_topic(template, headers, body):
    if _accepted(template):
        check_topic(topic_for(open_source(template), headers, body))


# What is kept


def names_kept(*names: str) -> list[str]:
    return [name for name, _ in kept_headers([(name.encode(), b"v") for name in names])]


@pytest.mark.rule("W-6")
def test_credentials_are_not_kept():
    credentials = ["Authorization", "Proxy-Authorization", "Cookie", "X-Gitlab-Token", "X-Api-Key", "X-APIKEY"]
    credentials += ["X-Amz-Security-Token", "My-Secret", "X_Auth", "x-password", "Ocp-Apim-Subscription-Key"]
    credentials += ["X-CSRFToken", "CF-Access-Jwt-Assertion", "X-Session-Id", "X-Shopify-Access-Token"]
    credentials += ["X-Telegram-Bot-Api-Secret-Token", "X-Goog-Channel-Token", "x-functions-key", "Private-Token"]
    assert names_kept(*credentials) == []


def test_headers_about_the_transport_are_not_kept():
    transport = ["Host", "Connection", "Content-Length", "Transfer-Encoding", "Accept-Encoding", "Via", "TE"]
    transport += ["X-Forwarded-For", "X-Forwarded-Proto", "X-Request-Start", "Keep-Alive", "Content-Type", "Forwarded"]
    assert names_kept(*transport) == []
    assert kept_headers([(b"Connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"X-End", b"2")]) == [("X-End", "2")]


@pytest.mark.rule("W-6")
def test_headers_a_receiver_needs_are_kept_and_those_that_tell_most_come_first():
    telling = ["X-GitHub-Event", "X-GitHub-Delivery", "X-Hub-Signature-256", "Stripe-Signature", "webhook-id"]
    telling += ["X-Event-Key", "ce-type", "X-Shopify-Topic", "X-Hook-UUID", "Linear-Timestamp"]
    others = ["Idempotency-Key", "User-Agent", "X-Twice", "X-Twice", "Hostname", "X-Via", "I-Twilio-Idempotency-Token"]
    others += ["X-Author", "X-Routing-Key", "X-Tokens-Used", "Authority", "X-Monkey"]
    assert names_kept(*others, *telling) == telling + others
    assert names_kept(*telling, *others) == telling + others
    given = [(b"X-Event", b"1"), (b"X-A", b"2"), (b"X-Mine", b"3"), (b"X-Not", b"4")]
    assert kept_headers(given, first={"x-mine"}, without={"x-not"}) == [("X-Mine", "3"), ("X-Event", "1"), ("X-A", "2")]


def test_kept_values_are_text_without_control_characters():
    headers = [(b"A", "Grüße".encode()), (b"B", b"Gr\xfc\xdfe"), (b"C", b"a\r\nSet-Cookie: b\x00\x7f\t"), (b"D", b"")]
    assert kept_headers(headers) == [("A", "Grüße"), ("B", "Grüße"), ("C", "a  Set-Cookie: b"), ("D", "")]
    assert kept_headers([(b"", b"v"), (b"a b", b"v"), (b"a\r\nb", b"v"), ("ü".encode(), b"v")]) == []


@pytest.mark.rule("W-6")
def test_kept_headers_are_bounded_and_large_ones_push_out_neither_the_signature_nor_the_rest():
    assert len(kept_headers([(b"X", b"v")] * 1000)) == 64
    assert kept_headers([(b"A", b"v" * 9000), (b"B", b"v")]) == [("B", "v")]
    full = [(b"X-%d" % n, b"v" * 900) for n in range(9)]
    first = kept_headers([*full, (b"X-Hub-Signature-256", SIGNATURE), (b"X-Mine", b"v" * 80)], first={"x-mine"})
    assert first[:2] == [("X-Mine", "v" * 80), ("X-Hub-Signature-256", SIGNATURE.decode())]
    assert len(first) == 5


@given(_headers)
def test_kept_headers_are_safe_and_small_whatever_comes(headers):
    result = kept_headers(headers)
    assert all(value.isprintable() or not re.search(r"[\x00-\x1f\x7f]", value) for _, value in result)
    assert sum(len(name) + len(value.encode()) + 20 for name, value in result) <= 3072


@pytest.mark.rule("W-4")
@pytest.mark.parametrize(
    ("content_type", "body", "stored_as", "came_as"),
    [
        ("application/json", b"{}", None, None),
        ("Application/JSON", b"{}", None, None),
        ("application/json; charset=utf-8", b"{}", "application/json; charset=utf-8", None),
        ("application/vnd.api+json", b"{}", "application/vnd.api+json", None),
        ("application/json", b"not json", TEXT, "application/json"),
        ("application/json", b"\xef\xbb\xbf{}", TEXT, "application/json"),
        ("application/json; charset=iso-8859-1", b'{"a": "\xe9"}', BYTES, "application/json; charset=iso-8859-1"),
        ("application/cloudevents+json", b"[1e400]", TEXT, "application/cloudevents+json"),
        ("application/json", b"[" * 61 + b"]" * 61, TEXT, "application/json"),
        ("text/xml; charset=iso-8859-1", b"<a>\xe9</a>", "text/xml; charset=iso-8859-1", None),
        (FORM, b"payload=%7B%7D", FORM, None),
        (FORM, b"{}", FORM, None),
        ("", b"{}", None, None),
        ("no type", b"text", TEXT, None),
        ("a/" + "b" * 254, b"\xff", BYTES, None),
    ],
)
def test_a_webhook_is_never_refused_for_its_body_or_its_type_and_both_are_kept(content_type, body, stored_as, came_as):
    message = kept.message_of(Delivery([(b"Content-Type", content_type.encode())], body), "t", "ci", verified=True)
    assert (message.body, message.content_type) == (body, stored_as)
    beside = kept.kept_of(message.headers)
    assert (beside.source, beside.verified, dict(beside.headers).get("Content-Type")) == ("ci", True, came_as)


@pytest.mark.parametrize("stored", [None, "[]", "1", "{}", '{"headers": [], "source": "ci", "more": 1}'])
def test_headers_that_no_server_has_written_are_none(stored):
    assert kept.kept_of(stored) is None
