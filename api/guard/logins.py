"""Delays logins after a failed one, and decides which addresses count as one client."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Network, ip_address

LONGEST_DELAY = 8.0  # seconds between two logins from one client
LONGEST_WAIT = 30.0  # seconds that a login may wait for others from the same client
MOST_CLIENTS = 1000  # clients whose failed logins are remembered


@dataclass
class Logins:
    """Failed logins by client: their number and the time of the last one; the oldest client is forgotten first.

    Each failure doubles the wait before the next attempt is checked; simultaneous attempts wait in line.
    """

    wrong: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict)

    async def take_turn(self, client: str) -> bool:
        """Waits until an attempt of the client may be checked; returns False at once after too many attempts."""
        wait = self.begin(client)
        if wait is None:
            return False
        await asyncio.sleep(wait)
        return True

    def begin(self, client: str) -> float | None:
        """Counts an attempt as failed until it succeeds; returns the seconds to wait, None after too many attempts."""
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
    """Returns the client that an address belongs to; an IPv6 client owns the whole /64 network."""
    try:
        known = ip_address(address)
    except ValueError:  # not an address, for example of a local socket
        return address
    if isinstance(known, IPv4Address):
        return str(known)
    return str(known.ipv4_mapped or IPv6Network((int(known), 64), strict=False))
