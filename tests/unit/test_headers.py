"""What libraries make of text in a header."""

import pytest

from notifier.wire.headers import header_text

MEANT = "Müll für Zoë"


def as_aiohttp_gives_it(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (MEANT.encode(), MEANT),
        (MEANT.encode("latin-1"), MEANT),
        (b"=?UTF-8?B?TcO8bGwgZsO8ciBab8Or?=", MEANT),
        (b"=?utf-8?q?M=C3=BCll_f=C3=BCr_Zo=C3=AB?=", MEANT),
        (b"=?ISO-8859-1?Q?M=FCll_f=FCr_Zo=EB?=", MEANT),
        (b"=?utf-8*de?q?M=C3=BCll?=", "Müll"),
        # Cut in the middle of a character; what is between two words is not part of the text.
        (b"=?utf-8?B?TcO8bGwgZsM=?= \t=?utf-8?B?vHIgWm/Dqw==?=", MEANT),
        (b"=?utf-8?q?M=C3=BC?= =?iso-8859-1?q?ll_f=FCr?=", "Müll für"),
        (b"the =?utf-8?q?M=C3=BCll?=, today", "the Müll, today"),
        (b"=?utf-8?q??=", ""),
        (b"=?iso-2022-jp?B?GyRCJVUlISUkJWsbKEI=?=", "ファイル"),
        (b"plain", "plain"),
    ],
)
def test_the_text_is_what_was_meant(raw, text):
    assert header_text(as_aiohttp_gives_it(raw)) == text


@pytest.mark.parametrize(
    "raw",
    [
        "=?utf-8?x?abc?=",
        "=?utf-8?q?a b?=",
        "=?utf-8?B?!!!?=",
        "=?utf-8?q?=FF?=",
        "=?unicode_escape?q?a?=",
        "=?punycode?q?a?=",
        "=?nonsense?q?a?=",
        "=?iso-8859-99?q?=e9?=",
        "=?utf-8?q?abc",
        "a =? b ?= c",
        "=?=?=?=?",
    ],
)
def test_what_is_not_an_encoded_word_stays_as_it_is(raw):
    assert header_text(raw) == raw
