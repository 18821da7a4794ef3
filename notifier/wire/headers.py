"""Text in headers. HTTP has no encoding for it, so each library has its own."""

import re
from binascii import Error, a2b_base64, a2b_qp

# RFC 2047, section 2: what programs write that can send nothing but ASCII in a header. No part has a question mark in
# it, so looking for them takes no longer than the text is long.
_WORD = r"=\?[A-Za-z0-9-]{1,20}(?:\*[A-Za-z0-9-]{1,20})?\?[bBqQ]\?[!->@-~]*\?="
_WORDS = re.compile(rf"{_WORD}(?:[ \t]+{_WORD})*", re.ASCII)

# Those that mail is written in. Python knows others, some of which take very long.
_CHARSETS = re.compile(
    "utf-8|us-ascii|iso-8859-[0-9]{1,2}|windows-125[0-9]|koi8-[ru]|big5|gb(2312|k|18030)|shift_jis|euc-(jp|kr)"
    "|iso-2022-jp",
    re.ASCII | re.IGNORECASE,
)


def header_text(value: str) -> str:
    """The text that a header `value`, as aiohttp gives it, was meant to be: UTF-8, in which encoded words (RFC 2047)
    are decoded; else Latin-1."""
    try:
        value.encode()
    except UnicodeEncodeError:  # what is not UTF-8 is kept as surrogates
        return value.encode(errors="surrogateescape").decode("latin-1")
    return _WORDS.sub(_decoded, value) if "=?" in value else value


def _decoded(words: re.Match[str]) -> str:
    """A run of encoded words as text; as it is where that cannot be told."""
    text, raw, charset = "", b"", "us-ascii"
    try:
        for word in words[0].split():
            name, encoding, encoded = word.removeprefix("=?").removesuffix("?=").split("?")
            name = name.partition("*")[0]  # behind it is the language
            if name.lower() != charset:
                text, raw, charset = text + _decode(raw, charset), b"", name.lower()
            # Writers cut a text into words anywhere, in the middle of a character too.
            raw += a2b_base64(encoded, strict_mode=True) if encoding in "bB" else a2b_qp(encoded, header=True)
        return text + _decode(raw, charset)
    except (Error, UnicodeDecodeError, LookupError):
        return words[0]


def _decode(raw: bytes, charset: str) -> str:
    if not _CHARSETS.fullmatch(charset):
        raise LookupError(charset)
    return raw.decode(charset)
