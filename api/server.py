"""Serves the API alone, without the page: ./run.sh --no-page."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

from api.desk import Desk
from api.guard.asgi import Asgi
from api.guard.connections import ACCEPTED_AT_ONCE, Patient
from api.guard.gate import Gate
from api.guard.guard import Guard
from api.guard.hosts import known_hosts_only
from api.guard.other_sites import OtherSites
from api.mount import routes
from api.own_form import OwnForm
from modules.core.errors import OptionsError

LAST_SECONDS = 2  # for answers under way when the server stops


def build_server(desk: Desk, gate: Gate, hosts: Sequence[str] = ()) -> Asgi:
    """Returns the API behind the same guard as the page. `hosts` are names beside this computer's own ones."""
    middleware = [Middleware(Guard, gate=gate)]
    if gate.access.is_open:
        middleware.insert(0, known_hosts_only(hosts))
    api = Starlette(routes=routes(desk, gate.access), middleware=middleware)
    return OwnForm(OtherSites(api, gate), gate)


@contextmanager
def running(app: Asgi, address: str, port: int) -> Generator[str, None, None]:
    """Serves in a thread, and yields the address in the browser's form. Raises OptionsError if it cannot start."""
    try:
        place = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OptionsError(f"The server cannot start at {address}, port {port} ({reason}); see --port.") from error
    config = uvicorn.Config(
        app, http=Patient, backlog=ACCEPTED_AT_ONCE, log_level="warning", timeout_graceful_shutdown=LAST_SECONDS
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([place],), name="server")
    thread.start()
    try:
        yield f"http://{f'[{address}]' if ':' in address else address}:{port}/"
    finally:
        server.should_exit = True
        thread.join()
