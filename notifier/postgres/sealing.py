"""Secrets of sources, sealed with a key that the database does not have: a dump or a replica gives none away."""

import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec

from notifier.core.errors import InvalidSource, Unavailable
from notifier.settings import SettingsError

# What follows is base64: a nonce and the text, by AES-256-GCM with the name of the source.
SEALED = "sealed:1:"
_NONCE = 12


class Seal:
    """Seals with the first of `keys`, and opens with any. Without keys, secrets are stored as they are."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """SettingsError where the package for it is missing."""
        if keys and find_spec("cryptography") is None:
            raise SettingsError("NOTIFIER_SEAL_KEY needs the package cryptography: pip install 'pg-notifier[crypto]'.")
        self._keys = [sha256(key.encode()).digest() for key in keys]

    def close(self, source: str, secret: str) -> str:
        """What is stored for a secret of `source`. InvalidSource for one that would be taken for a sealed one."""
        if secret.startswith(SEALED):
            raise InvalidSource(f"A secret does not begin with {SEALED}, as sealed ones do. Give the secret itself.")
        if not self._keys:
            return secret
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE)
        sealed = AESGCM(self._keys[0]).encrypt(nonce, secret.encode(), source.encode())
        return SEALED + b64encode(nonce + sealed).decode()

    def open(self, source: str, stored: str) -> str:
        """The secret. Unavailable where it was sealed with a key that is not here."""
        if not stored.startswith(SEALED):
            return stored
        if self._keys:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            for key in self._keys:
                try:
                    raw = b64decode(stored.removeprefix(SEALED))
                    return AESGCM(key).decrypt(raw[:_NONCE], raw[_NONCE:], source.encode()).decode()
                except (InvalidTag, ValueError):
                    continue
        raise Unavailable("The secrets of this source are sealed with a NOTIFIER_SEAL_KEY that is not set here.")
