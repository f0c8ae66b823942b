"""Delays logins after a wrong one, and decides which addresses count as one client."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Network, ip_address

LONGEST_DELAY = 8.0  # seconds between two logins of one client
LONGEST_WAIT = 30.0  # seconds that a login may wait behind others of its client
MOST_CLIENTS = 1000  # clients with remembered wrong logins


@dataclass
class Logins:
    """Wrong logins by client: their number and the time of the last one; the oldest client is forgotten first.

    Each one doubles the wait before the next attempt is checked, and simultaneous attempts wait in line.
    """

    wrong: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict)

    def begin(self, client: str) -> float | None:
        """Counts an attempt as wrong until it proves right; returns the seconds to wait, None for too many."""
        now = time.monotonic()
        count, last = self.wrong.pop(client, (0, now))
        turn = max(now, last) + (min(LONGEST_DELAY, 0.25 * 2 ** min(count, 9)) if count else 0.0)
        is_taken = turn - now <= LONGEST_WAIT
        self.wrong[client] = (count + 1, turn) if is_taken else (count, last)
        while len(self.wrong) > MOST_CLIENTS:
            self.wrong.popitem(last=False)
        return turn - now if is_taken else None

    def right(self, client: str) -> None:
        self.wrong.pop(client, None)


def network_of(address: str) -> str:
    """Returns the client of an address; an IPv6 client owns the whole /64 network."""
    try:
        known = ip_address(address)
    except ValueError:  # a socket without an address
        return address
    if isinstance(known, IPv4Address):
        return str(known)
    return str(known.ipv4_mapped or IPv6Network((int(known), 64), strict=False))
