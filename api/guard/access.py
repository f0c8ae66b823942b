"""Who may use the API: the key or the login, as Basic or Bearer, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Access:
    """The API's key, or else the page's login (name, password). Without both, everyone who reaches it may use it."""

    key: str | None = None
    login: tuple[str, str] | None = None

    @property
    def is_open(self) -> bool:
        return not self.key and self.login is None

    def allows(self, headers: Mapping[str, str]) -> bool:
        """Tells whether these headers (by lower-case names) bring the key or the login."""
        if self.is_open:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_secret(given.strip())
        if scheme.lower() == "basic":
            return self._is_login(given.strip())
        return False

    def _is_secret(self, given: str) -> bool:
        return same(given, self.key or (self.login[1] if self.login else ""))

    def _is_login(self, encoded: str) -> bool:
        """Reads name:password. With a key, the key is the password and the name does not matter."""
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return False
        if self.key or self.login is None:
            return self._is_secret(password)
        return same(name, self.login[0]) & same(password, self.login[1])  # & compares both, whatever the first gives


def same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))
