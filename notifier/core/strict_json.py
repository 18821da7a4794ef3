"""What every reader of JSON can read: one definition for all that is stored as JSON, however it came.

UTF-8 without a byte order mark, no NaN or Infinity, no escaped surrogate without its partner, numbers that are finite
as a double and have at most MAX_DIGITS digits, at most MAX_DEPTH levels. One message beyond that would make whole
answers unreadable: jq, orjson, Python and JavaScript each give up on another of these.

A check takes some milliseconds for each MiB (a hundred at worst), little memory, and no stack to speak of.
"""

import re
from math import isinf
from typing import NoReturn

import msgspec

from notifier.core.errors import InvalidJSON

MAX_DEPTH = 60
MAX_DIGITS = 400

_TOO_DEEP = f"This JSON is nested too deeply: at most {MAX_DEPTH} levels."

# msgspec checks the syntax, escapes included, and builds nothing. UTF-8, depth, and how large numbers are, are ours.
_SYNTAX = msgspec.json.Decoder(msgspec.Raw)
_AT = re.compile(r"\(byte (\d+)\)")
_CONSTANT = re.compile(rb"-?(NaN|Infinity)")
_LONE_SURROGATE = re.compile(rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|[c-fC-F])")

# Only a number with one of these in it can be too large or too long: a long run of digits, or an exponent of three.
_SHAPE = bytes(0x30 if c in b"0123456789" else 0x65 if c in b"eE" else c if c in b"+-" else 0x20 for c in range(256))
_SUSPECT = (b"0" * (MAX_DIGITS // 4), b"e000", b"e+000")
_NUMBER = re.compile(rb"[0-9][0-9.eE+-]*")
_NOT_A_DIGIT = bytes(set(range(256)) - set(b"0123456789"))

_BRACKETS = bytes(0x5B if c in b"[{" else 0x5D if c in b"]}" else c for c in range(256))
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))

# How much is split at once: a body of many short strings becomes as many objects, which take 40 times its size. And in
# a thread, other threads have their turn between two pieces.
_CHUNK = 256 * 1024
_BACKSLASHES = re.compile(rb"\\*")


def check_json(body: bytes) -> None:
    """InvalidJSON, with a sentence that says what and where, unless every reader can read `body`."""
    check_utf8(body)
    check_depth(body)
    try:
        _SYNTAX.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        refuse(body, error)
    check_numbers(body)


def is_json(body: bytes) -> bool:
    try:
        check_json(body)
    except InvalidJSON:
        return False
    return True


def check_utf8(body: bytes) -> None:
    """InvalidJSON unless `body` is UTF-8 without a byte order mark."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"JSON must be UTF-8; byte {error.start} is not.") from None
    if body.startswith(b"\xef\xbb\xbf"):
        raise InvalidJSON("JSON must not begin with a byte order mark.")


def check_depth(body: bytes, depth: int = MAX_DEPTH) -> None:
    """InvalidJSON if `body` is nested more deeply than `depth`, whether it is JSON or not.

    To be called before any parser, since each needs a stack, and a thread's may be small.
    """
    # Of a large one, the beginning mostly has enough of them to tell.
    if all(body.count(b"[", 0, end) + body.count(b"{", 0, end) <= depth for end in (_CHUNK, len(body))):
        return
    brackets = outside_strings(body, brackets=True)
    if b"[" * (depth + 1) in brackets:
        raise InvalidJSON(_TOO_DEEP)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")  # takes the innermost level away
        if not brackets:
            return
    # The rest is nested deeper, or has no partner: the parser reports that, if it is not too much.
    if b"[]" in brackets or brackets.count(b"[") > depth:
        raise InvalidJSON(_TOO_DEEP)


def check_numbers(json: bytes) -> None:
    """InvalidJSON if a number of `json`, which must be JSON, has too many digits or is too large for a double."""
    if not any(map(_is_suspect, (json[at : at + _CHUNK + len(_SUSPECT[0])] for at in range(0, len(json), _CHUNK)))):
        return
    for match in _NUMBER.finditer(outside_strings(json)):
        number = match[0]
        if len(number) > MAX_DIGITS and (digits := len(number.translate(None, _NOT_A_DIGIT))) > MAX_DIGITS:
            raise InvalidJSON(f"A number of this JSON has {digits} digits; at most {MAX_DIGITS} are taken.")
        if isinf(float(number)):
            raise InvalidJSON(f"The number {number[:20].decode()} of this JSON is too large for a double.")


def _is_suspect(json: bytes) -> bool:
    shape = json.translate(_SHAPE)
    return any(suspect in shape for suspect in _SUSPECT)


def refuse(body: bytes, error: msgspec.DecodeError | RecursionError) -> NoReturn:
    """InvalidJSON for what msgspec says of `body`."""
    if isinstance(error, RecursionError):
        raise InvalidJSON(_TOO_DEEP) from None
    if _LONE_SURROGATE.search(body.replace(b"\\\\", b"")):
        raise InvalidJSON("Not valid JSON: a \\u escape of a surrogate has no partner.") from None
    detail = str(error).removeprefix("JSON is malformed: ").replace("trailing characters", "more text after the value")
    if (at := _AT.search(detail)) and (constant := _CONSTANT.search(body, max(int(at[1]) - 1, 0), int(at[1]) + 9)):
        detail = f"{constant[0].decode()} is not JSON (byte {constant.start()})"
    elif detail == "Input data was truncated":
        detail = "it ends too early" if body.strip() else "it is empty"
    raise InvalidJSON(f"Not valid JSON: {detail}.") from None


def outside_strings(json: bytes, *, brackets: bool = False) -> bytes:
    """`json` without its strings, up to where it is valid; behind that, anything. Of that only the `brackets`, each as
    one of [ and ], where these are asked for."""
    escapes = b"\\" in json
    outside = bytearray()
    inside = False
    at = 0
    while at < len(json):
        end = at + _CHUNK
        if escapes and json[end - 1 : end] == b"\\":
            end = _BACKSLASHES.match(json, end).end() + 1  # type: ignore[union-attr]  # with what they escape
        piece = json[at:end]
        if escapes:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        if brackets:
            # Most strings hold none, and splitting at each of them is what takes time.
            piece = piece.translate(_BRACKETS, _NOT_STRUCTURE).replace(b'""', b"")
        parts = piece.split(b'"')
        outside += b"".join(parts[inside::2])
        inside ^= len(parts) % 2 == 0
        at = end
    return bytes(outside)
