"""Tokens: what each must be like, and a sentence for each way in which it is not."""

import json
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from support.tokens import SECRET, Signer, b64, hs256, joined, jwks

from notifier.access import jwks as jwks_module
from notifier.access.jwks import parse_keys, read_keys
from notifier.access.remote_keys import RemoteKeys
from notifier.access.tokens import MAX_TOKEN, Token, Tokens, UnknownKey
from notifier.core.errors import InvalidToken, Unavailable
from notifier.core.topics import check_item
from notifier.settings import SettingsError, TokenSettings

NOW = 1_800_000_000.5
GOOD = {"sub": "7", "exp": NOW + 600, "iat": NOW - 10, "notifier": {"subscribe": ["user/7/**"]}}

RSA, EC, ED = Signer("RS256", "rsa"), Signer("ES256", "ec"), Signer("EdDSA", "ed")


def tokens(**settings: object) -> Tokens:
    return Tokens(TokenSettings(**{"secrets": (SECRET,)} | settings))


def with_keys(*keys: object, **settings: object) -> Tokens:
    return Tokens(TokenSettings(keys="keys.json", **settings), parse_keys(jwks(*keys)))


def refused(token: bytes, by: Tokens | None = None, now: float = NOW) -> str:
    """The sentence with which it is refused, which repeats nothing of it."""
    with pytest.raises(InvalidToken) as caught:
        (by or tokens()).verify(token, now)
    sentence = str(caught.value)
    assert sentence.endswith("."), sentence
    assert len(sentence) < 400
    assert not any(len(part) > 8 and part.decode("latin-1") in sentence for part in token.split(b"."))
    return sentence


def changed(**claims: object) -> bytes:
    """A token with other claims; None takes one away."""
    return hs256({name: value for name, value in (GOOD | claims).items() if value is not None})


def raw(name: str, value: str) -> bytes:
    """A token whose claim is this text."""
    return hs256(json.dumps(GOOD | {name: "HERE"}).replace('"HERE"', value).encode())


# What is taken


@pytest.mark.rule("A-40")
def test_a_token_says_who_may_do_what_until_when():
    token = changed(notifier={"publish": ["a", "b/*"], "subscribe": ["**"], "more": 1}, aud="other", jti="x")
    assert tokens().verify(token, NOW) == Token("7", ("a", "b/*"), ("**",), NOW + 600, NOW - 10)


def test_a_token_without_the_claim_or_with_an_empty_one_allows_nothing():
    for claim in (None, {}, {"publish": [], "subscribe": []}):
        assert tokens().verify(changed(notifier=claim), NOW)[1:3] == ((), ())


@pytest.mark.rule("A-40")
def test_each_secret_is_good_while_they_are_rotated():
    other = b"another-secret-of-more-than-32-bytes"
    both = tokens(secrets=(SECRET, other))
    for secret in (SECRET, other):
        assert both.verify(hs256(GOOD, secret), NOW).subject == "7"
    refused(hs256(GOOD, other))


@pytest.mark.rule("A-40")
@pytest.mark.parametrize("signer", [RSA, EC, ED], ids=lambda signer: signer.algorithm)
def test_each_kind_of_key_pair_verifies_its_own(signer: Signer):
    keys = with_keys(RSA.jwk(), EC.jwk(), ED.jwk())
    assert keys.verify(signer.token(GOOD), NOW).subject == "7"
    another = Signer(signer.algorithm, signer.kid)
    assert "signature" in refused(another.token(GOOD), keys)
    # A token that names no key is verified with all for its algorithm, if they are few.
    nameless = Signer(signer.algorithm, None)
    assert with_keys(another.jwk(), nameless.jwk()).verify(nameless.token(GOOD), NOW).subject == "7"
    assert "signature" in refused(nameless.token(GOOD), with_keys(another.jwk()))
    many = [another.jwk(kid=str(number)) for number in range(4)]
    with pytest.raises(UnknownKey, match="names no key"):
        with_keys(nameless.jwk(), *many).verify(nameless.token(GOOD), NOW)


def test_few_keys_may_have_one_name():
    signers = [Signer("EdDSA") for _ in range(5)]
    keys = with_keys(*(signer.jwk() for signer in signers))
    for signer in signers[:4]:
        assert keys.verify(signer.token(GOOD), NOW)
    assert "signature" in refused(signers[4].token(GOOD), keys)
    assert keys.keys
    assert len(keys.keys.skipped) == 1


def test_times_may_have_decimals_and_need_no_point():
    for exp in (NOW + 1.25, int(NOW) + 2):
        assert tokens().verify(changed(exp=exp), NOW).expires == exp


# What is not: the signature


def test_a_changed_token_is_refused():
    header, claims, signature = changed().split(b".")
    other = changed(sub="8").split(b".")
    for forged in ([header, other[1], signature], [header, claims, other[2]], [header, claims, b64(b"x" * 32)]):
        assert "signature" in refused(b".".join(forged))


@pytest.mark.rule("A-41")
def test_what_is_not_signed_is_refused():
    for algorithm in ("none", "None", "NONE", "", None, 1, ["HS256"], "HS384", "HS512", "hs256", "A" * 300):
        assert "(alg)" in refused(hs256(GOOD, header={"alg": algorithm}))
        assert "(alg)" in refused(joined({"alg": algorithm}, GOOD) + b".")
    assert "(alg)" in refused(hs256(GOOD, header={}))
    assert "signature" in refused(joined({"alg": "HS256"}, GOOD) + b".")


@pytest.mark.rule("A-41")
@pytest.mark.parametrize("signer", [RSA, EC, ED], ids=lambda signer: signer.algorithm)
def test_a_public_key_is_no_secret(signer: Signer):
    texts = [json.dumps(signer.jwk()).encode(), jwks(signer.jwk())]
    texts += [
        signer.public.public_bytes(how, PublicFormat.SubjectPublicKeyInfo) for how in (Encoding.PEM, Encoding.DER)
    ]
    texts.append(texts[2].strip())
    for by in (
        with_keys(signer.jwk()),
        Tokens(TokenSettings(secrets=(SECRET,), keys="k"), parse_keys(jwks(signer.jwk()))),
    ):
        for text in texts:
            refused(hs256(GOOD, text, {"alg": "HS256", "kid": signer.kid}), by)


@pytest.mark.rule("A-41")
def test_a_key_is_for_one_algorithm():
    keys = with_keys(RSA.jwk(), EC.jwk())
    for algorithm, signer in (("RS512", RSA), ("PS256", RSA), ("ES256", RSA), ("RS256", EC), ("ES384", EC)):
        with pytest.raises(UnknownKey):
            keys.verify(signer.token(GOOD, alg=algorithm), NOW)


@pytest.mark.rule("A-41")
def test_a_token_cannot_bring_its_own_key():
    for member, value in {
        "jwk": ED.jwk(),
        "jku": "https://x.example",
        "x5u": "https://x.example",
        "crit": ["exp"],
    }.items():
        assert member in refused(ED.token(GOOD, **{member: value}), with_keys(ED.jwk()))
        assert member in refused(hs256(GOOD, header={"alg": "HS256", member: value}))


def test_keys_that_are_not_there():
    assert "NOTIFIER_JWT_KEYS" in refused(ED.token(GOOD))
    assert "NOTIFIER_JWT_SECRET" in refused(hs256(GOOD), with_keys(ED.jwk()))
    with pytest.raises(UnknownKey, match=r"\(kid\) that the token names"):
        with_keys(ED.jwk()).verify(ED.token(GOOD, kid="other"), NOW)
    for kid in (1, "", "x" * 256, ["ed"]):
        assert "kid" in refused(ED.token(GOOD, kid=kid), with_keys(ED.jwk()))
    with pytest.raises(Unavailable):
        Tokens(TokenSettings(keys="https://auth.example.com")).verify(ED.token(GOOD), NOW)


def test_a_secret_that_is_a_public_key_is_refused_at_start():
    for secret in (json.dumps(ED.jwk()).encode(), b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + b"x" * 40):
        with pytest.raises(SettingsError, match="NOTIFIER_JWT_KEYS"):
            tokens(secrets=(secret,))


# The form


@pytest.mark.rule("A-41")
def test_malformed_tokens():
    good = changed()
    header, claims, signature = good.split(b".")
    for token in (
        b"..",
        b"a.b.c",
        b"." + claims + b"." + signature,
        header + b".." + signature,
        good + b".x",
        good + b"=",
        good.replace(b".", b" ", 1),
        b" " + good,
        good + b"\n",
        b"\xff" + good[1:],
        good[:-1] + "é".encode(),
        header + b"." + claims + b"." + signature[:-1] + b"+",
        header + b"." + claims + b"." + signature[:-1] + b"/",
        header + b"A." + claims + b"." + signature,
        b"A." + claims + b"." + signature,
    ):
        assert "malformed" in refused(token), token
    assert "too long" in refused(changed(more="x" * MAX_TOKEN))


def test_a_token_has_one_spelling():
    good = changed()
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for last in alphabet.replace(good[-1:], b""):
        refused(good[:-1] + bytes([last]))


@pytest.mark.rule("A-41")
def test_json_that_two_readers_would_read_differently_is_refused():
    for text in (
        b'{"sub": "7", "sub": "8", "exp": 1900000000}',
        b'{"exp": 1800000600, "sub": "7", "notifier": {"subscribe": [], "subscribe": ["**"]}}',
        b'{"exp": 1800000600, "sub": "7", "x": NaN}',
        b'{"exp": 1800000600, "sub": "7", "x": 1e400}',
        b'\xef\xbb\xbf{"exp": 1800000600, "sub": "7"}',
        b'{"exp": 1800000600, "sub": "\xff"}',
        b'{"exp": 1800000600, "sub": "\\ud800"}',
        b'{"exp": 1800000600, "sub": "7", "x": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"exp": 1800000600, "sub": "7"',
        b"",
    ):
        assert "malformed" in refused(hs256(text) if text else hs256(b" "))
    for text in (b"[]", b"1", b"null", b'"x"'):
        assert "object" in refused(hs256(text))
        assert "object" in refused(hs256(GOOD, header=text))
    assert "malformed" in refused(hs256(GOOD, header=b'{"alg": "none", "alg": "HS256"}'))


# The claims


@pytest.mark.rule("A-41")
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
def test_times_are_numbers_within_bounds(name: str):
    for value in ('"1800000600"', "true", "null", "[]", "{}", "-1", "1099511627777", "1e13", "1" + "0" * 300, "-0.5"):
        assert name in refused(raw(name, value))
    for value in ("NaN", "Infinity", "1" + "0" * 400, "1e999"):
        assert "malformed" in refused(raw(name, value))


@pytest.mark.rule("A-41")
def test_a_token_must_expire_and_has_a_subject():
    assert "exp" in refused(changed(exp=None))
    for subject in (None, "", "x" * 256, 7, ["7"], True):
        assert "sub" in refused(changed(sub=subject))
    for subject in ("a\nb", "a\x00", "\x7f", "\x85"):
        assert "control" in refused(changed(sub=subject))
    assert "key:" in refused(changed(sub="key:backend"))
    assert tokens().verify(changed(sub="å" * 255), NOW).subject == "å" * 255


@pytest.mark.rule("A-41")
def test_the_expiry_is_exact_and_beginnings_have_a_minute():
    assert refused(changed(exp=NOW - 12)) == "The token expired 12 s ago."
    assert refused(changed(exp=NOW - 7200)) == "The token expired 2 h ago."
    assert "expired" in refused(changed(exp=NOW))
    for name in ("nbf", "iat"):
        assert tokens().verify(changed(**{name: NOW + 60}), NOW)
        assert name in refused(changed(**{name: NOW + 61}))


@pytest.mark.rule("A-41")
def test_a_token_has_a_longest_lifetime():
    day = tokens(lifetime=timedelta(days=1))
    assert day.verify(changed(exp=NOW + 86400, iat=NOW), NOW)
    sentence = "The token is valid for 2 d; at most 24 h are taken (NOTIFIER_JWT_LIFETIME)."
    assert refused(changed(exp=NOW + 86400, iat=NOW - 86400), day) == sentence
    # Without the time of issue, it is as if it were issued now.
    assert day.verify(changed(exp=NOW + 86400, iat=None), NOW)
    assert "valid for" in refused(changed(exp=NOW + 86500, iat=None), day)


@pytest.mark.rule("A-41")
def test_the_audience_and_the_issuer_are_those_of_the_settings():
    strict = tokens(audience="us", issuer="them")
    assert strict.verify(changed(aud="us", iss="them"), NOW)
    assert strict.verify(changed(aud=["x", "us"], iss="them"), NOW)
    for audience in (None, "", "US", "usa", ["x"], [], {"us": 1}, 1, [["us"]]):
        assert "(aud)" in refused(changed(aud=audience, iss="them"), strict)
    for issuer in (None, "", "THEM", ["them"], 1):
        assert "(iss)" in refused(changed(aud="us", iss=issuer), strict)
    assert tokens().verify(changed(aud="anyone", iss="anyone"), NOW)


@pytest.mark.rule("A-42")
def test_a_malformed_claim_refuses_the_token():
    for claim in (None, [], "x", 1):
        token = raw("notifier", json.dumps(claim))
        assert '"notifier"' in refused(token)
    for action in ("publish", "subscribe"):
        for patterns in (
            None,
            "a",
            {"a": 1},
            [1],
            [None],
            ["a", ["b"]],
            [""],
            ["a b"],
            ["a//b"],
            ["a/**/b"],
            [".."],
            ["x*"],
        ):
            assert '"notifier"' in refused(changed(notifier={action: patterns}))
    assert tokens().verify(changed(notifier={"publish": ["a"] * 50, "subscribe": ["b"] * 50}), NOW)
    assert "100" in refused(changed(notifier={"publish": ["a"] * 50, "subscribe": ["b"] * 51}))


# Templates


@pytest.mark.rule("A-43")
def test_templates_give_every_token_topics_of_its_own():
    filled = tokens(subscribe=("user/{sub}/**", "u-{sub}", "all"), publish=("from/{sub}",))
    said = filled.verify(changed(sub="me@x.org", notifier={"publish": ["a"]}), NOW)
    assert (said.publish, said.subscribe) == (("a", "from/me@x.org"), ("user/me@x.org/**", "u-me@x.org", "all"))


@pytest.mark.rule("A-43")
def test_a_subject_never_widens_a_template():
    for template in ("user/{sub}/**", "user/{sub}", "u-{sub}/x", "{sub}"):
        filled = tokens(subscribe=(template,))
        for subject in ("*", "**", "a/b", "/", "a/", "..", ".", "a*", "a,b", "%2A", "a b", "{sub}", "auth0|1", "å"):
            assert "(sub)" in refused(changed(sub=subject), filled)
    assert "too long" in refused(changed(sub="x" * 255), tokens(publish=("user/{sub}/**",)))
    # It matters only where the subject is named.
    assert tokens(subscribe=("all",)).verify(changed(sub="*"), NOW).subscribe == ("user/7/**", "all")


# Anything

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["**", "a", "us", "7"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TIMES = (
    st.sampled_from([0, NOW - 1, NOW, NOW + 1, NOW + 61, 2**41, "1", 10**400, True, float("nan"), NOW + 86461]) | VALUES
)
ITEMS = st.lists(st.sampled_from(["a", "a/*", "**", "b/c", "a//", "", "*/**", "x*"]), max_size=3)
CLAIM = st.fixed_dictionaries({}, optional={"publish": ITEMS, "subscribe": ITEMS, "more": VALUES})


def mostly(good: st.SearchStrategy, other: st.SearchStrategy) -> st.SearchStrategy:
    """One of several, which may all have to be good at once."""
    return st.integers(0, 9).flatmap(lambda number: other if number == 0 else good)


CLAIMS = st.fixed_dictionaries(
    {
        "sub": mostly(
            st.sampled_from(["7", "me@x.org", "a.b"]), st.sampled_from(["*", "..", "a/b"]) | st.text() | VALUES
        ),
        "exp": mostly(st.floats(NOW + 1, NOW + 86400) | st.integers(int(NOW) + 1, int(NOW) + 80000), TIMES),
    },
    optional={
        "iat": mostly(st.floats(NOW - 1000, NOW + 60), TIMES),
        "nbf": mostly(st.floats(0, NOW + 60), TIMES),
        "notifier": mostly(CLAIM, VALUES | st.fixed_dictionaries({"publish": VALUES})),
        "aud": VALUES,
        "iss": VALUES,
    },
)


@given(
    claims=CLAIMS,
    secret=mostly(st.just(SECRET), st.just(b"another")),
    algorithm=mostly(st.just("HS256"), st.just("none")),
)
def test_whatever_a_token_says_it_is_refused_or_means_that(claims: dict, secret: bytes, algorithm: str):
    token = hs256(claims, secret, {"alg": algorithm})
    try:
        said = tokens(subscribe=("user/{sub}/**",)).verify(token, NOW)
    except InvalidToken:
        return
    # The oracle: all of this holds, or it is refused.
    assert (secret, algorithm) == (SECRET, "HS256")
    assert isinstance(claims["exp"], int | float)
    assert NOW < claims["exp"] == said.expires <= NOW + 86400 + 60
    assert all(claims.get(name, 0) <= NOW + 60 for name in ("iat", "nbf"))
    claim = claims.get("notifier", {})
    assert said.publish == tuple(claim.get("publish", []))
    assert said.subscribe == (*claim.get("subscribe", []), f"user/{claims['sub']}/**")
    assert all(check_item(item) for item in said.publish + said.subscribe)
    assert "/" not in claims["sub"]
    assert "*" not in claims["sub"]


@given(token=st.binary(max_size=200) | st.lists(st.binary(max_size=60).map(b64), max_size=4).map(b".".join))
def test_whatever_comes_is_refused(token: bytes):
    by = Tokens(TokenSettings(secrets=(SECRET,), keys="k"), parse_keys(jwks(ED.jwk())))
    with pytest.raises(InvalidToken):
        by.verify(token, NOW)


@given(signature=st.binary(max_size=300), signer=st.sampled_from([RSA, EC, ED]))
def test_whatever_the_signature_is_it_is_refused(signature: bytes, signer: Signer):
    keys = with_keys(RSA.jwk(), EC.jwk(), ED.jwk())
    header, claims, _ = signer.token(GOOD).split(b".")
    refused(b".".join([header, claims, b64(signature)]), keys)


# Key sets


def test_keys_that_cannot_be_used_are_left_out():
    keys = parse_keys(
        jwks(
            ED.jwk(),
            "x",
            {},
            {"kty": "oct", "k": "c2VjcmV0"},
            ED.jwk(kid="private", d="x"),
            ED.jwk(kid="encryption", use="enc"),
            ED.jwk(kid="operations", key_ops=["encrypt"]),
            ED.jwk(kid="curve", crv="X25519"),
            ED.jwk(kid="algorithm", alg="HS256"),
            ED.jwk(kid="value", x="AAAA"),
            EC.jwk(kid="point", x=EC.jwk()["y"]),
            RSA.jwk(kid="short", n="AQAB" * 20),
            RSA.jwk(kid="strange", n=5),
            ED.jwk(kid=5),
            {"kty": ["RSA"], "alg": ["RS256"]},
        )
    )
    assert len(keys) == 1
    assert len(keys.skipped) == 14
    assert keys.find("ed", "EdDSA")


def test_what_is_not_a_key_set_is_refused():
    for text in (b"", b"{", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1]}', b"\xff", b"x" * 70_000):
        with pytest.raises(ValueError):
            parse_keys(text)
    with pytest.raises(ValueError, match="100 keys"):
        parse_keys(jwks(*[{}] * 101))


def test_a_file_of_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(ED.jwk(), {"kty": "oct", "k": "c2VjcmV0"}))
    assert read_keys(str(file)).find("ed", "EdDSA")
    assert "keys that are not used (1)" in caplog.text
    assert "c2VjcmV0" not in caplog.text


@pytest.mark.parametrize("text", [None, b"", b"{}", b'{"keys": []}', b"x" * 70_000])
def test_a_file_without_keys_is_told_at_start(tmp_path: Path, text: bytes | None):
    file = tmp_path / "jwks.json"
    if text is not None:
        file.write_bytes(text)
    for path in (file, tmp_path):
        with pytest.raises(SettingsError, match=r"^NOTIFIER_JWT_KEYS: .*\.$"):
            read_keys(str(path))


def test_public_keys_need_a_package_and_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jwks_module, "has_crypto", False)
    for work in (lambda: read_keys("jwks.json"), lambda: RemoteKeys("https://auth.example.com", lambda _: None)):
        with pytest.raises(SettingsError, match=r"pip install 'pg-notifier\[crypto\]'"):
            work()
    # Secrets do not.
    assert tokens().verify(changed(), NOW)
