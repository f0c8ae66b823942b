"""What the guard must know of the API: its paths, who may use it, and which other sites may call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.guard.access import Access


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Without prefixes, there is no API."""

    prefixes: tuple[str, ...] = ()
    access: Access = Access()
    origins: tuple[str, ...] = ()

    def is_api(self, path: str) -> bool:
        return bool(self.prefixes) and path.startswith(self.prefixes)

    def welcomes(self, path: str, headers: Mapping[str, str]) -> bool:
        """Tells whether this call of the API comes from another site that may."""
        return self.is_api(path) and headers.get("origin", "") in self.origins
