"""Patience after a wrong login: how long a client waits, and who counts as one client."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Network, ip_address

LONGEST_DELAY = 8.0  # seconds between two logins of one client
LONGEST_WAIT = 30.0  # seconds that a login waits behind others of its client
MOST_CLIENTS = 1000  # whose wrong logins are remembered


@dataclass
class Logins:
    """Wrong logins by client, how many and when the last one had its turn; the oldest client is forgotten first. Each
    one doubles the wait before the next is looked at, and many at once wait one behind the other."""

    wrong: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict)

    def begin(self, client: str) -> float | None:
        """Counts as wrong until it is known to be right; the seconds to wait, None where they would be too many."""
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
    """Whose an address is: with IPv6, whoever has one has the whole /64 around it."""
    try:
        known = ip_address(address)
    except ValueError:  # a socket without one
        return address
    if isinstance(known, IPv4Address):
        return str(known)
    return str(known.ipv4_mapped or IPv6Network((int(known), 64), strict=False))
