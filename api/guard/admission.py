"""Lets clients of the API in; after a wrong key or login, the next attempts of that client wait."""

from __future__ import annotations

from collections.abc import Mapping

from api.errors import Refused
from api.guard.access import Access
from api.guard.logins import Logins, network_of

WHO = "This API needs a key or a login: send it as Bearer or Basic authorization."
IMPATIENT = "There were too many wrong keys or logins at once; wait a minute."


class Admission:
    """Clients that never failed do not wait, however many calls they make at once."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._logins = Logins()

    async def check(self, headers: Mapping[str, str], address: str) -> None:
        """Raises Refused for a client without the key or the login."""
        if self._access.is_open:
            return
        if "authorization" not in headers:
            raise Refused(401, WHO)
        client = network_of(address)
        allowed = self._access.allows(headers)
        if allowed and client not in self._logins.wrong:
            return
        if not await self._logins.take_turn(client):
            raise Refused(429, IMPATIENT)
        if not allowed:
            raise Refused(401, WHO)
        self._logins.right(client)
