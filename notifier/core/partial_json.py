"""Parts of JSON, each as it came. What is not asked for is checked and not kept: as objects of Python, even undecoded,
all members or elements of a body may take 28 times its size."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import astuple


class UnknownMember(Exception):
    """An object has a member of another name, which is the argument."""


_UNKNOWN = "Object contains unknown field `"


def members(json: bytes, names: tuple[str, ...], *, only: bool = False) -> dict[str, bytes]:
    """Those members of an object that have these names; of several of one name the last.

    msgspec.DecodeError where it is not JSON, msgspec.ValidationError where it is no object, UnknownMember where it has
    others and `only` these may be there: after the first of them nothing is read.
    """
    try:
        found = _members(names, only=only).decode(json)
    except msgspec.ValidationError as error:
        if str(error).startswith(_UNKNOWN):
            raise UnknownMember(str(error).removeprefix(_UNKNOWN).removesuffix("`")) from None
        raise
    return {name: bytes(value) for name, value in zip(names, astuple(found), strict=True) if value is not None}


def elements(json: bytes, most: int) -> list[bytes]:
    """The first `most` elements of an array. msgspec.DecodeError, msgspec.ValidationError."""
    return [bytes(value) for value in astuple(_elements(most).decode(json)) if value is not None]


@lru_cache
def _members(names: Sequence[str], *, only: bool) -> msgspec.json.Decoder[Any]:
    fields = {f"field_{n}": name for n, name in enumerate(names)}
    return _decoder(list(fields), rename=fields, forbid_unknown_fields=only)


@lru_cache
def _elements(most: int) -> msgspec.json.Decoder[Any]:
    return _decoder([f"field_{n}" for n in range(most)], array_like=True)


def _decoder(fields: list[str], **options: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401
    kept = msgspec.defstruct("Kept", [(field, msgspec.Raw, None) for field in fields], **options)
    return msgspec.json.Decoder(kept)
