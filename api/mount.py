"""The API's routes, for the page's own server and for a server without the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import a1111, openai_images
from api.desk import Desk
from api.dialect import Answer, Dialect
from api.errors import Refused, refusal_of
from api.guard.access import Access
from api.guard.admission import Admission

DIALECTS: tuple[Dialect, ...] = (a1111.DIALECT, openai_images.DIALECT)
PREFIXES = tuple(prefix for dialect in DIALECTS for prefix in dialect.prefixes)
Reply = Callable[[Request], Awaitable[Response]]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def routes(desk: Desk, access: Access) -> list[Route]:
    admission = Admission(access)
    return [route for dialect in DIALECTS for route in routes_of(dialect, desk, admission)]


def routes_of(dialect: Dialect, desk: Desk, admission: Admission) -> Iterator[Route]:
    """Yields the dialect's endpoints, and a last route that answers any other path or method in its form."""
    for endpoint in dialect.endpoints:
        yield Route(endpoint.path, guarded(endpoint.answer, dialect, desk, admission), methods=[endpoint.method])
    for prefix in dialect.prefixes:
        yield Route(f"{prefix}{{rest:path}}", guarded(unknown, dialect, desk, admission), methods=list(METHODS))


def guarded(
    answer: Answer, dialect: Dialect, desk: Desk, admission: Admission
) -> Callable[[Request], Awaitable[Response]]:
    """Returns an endpoint that checks who asks, and that answers every error in the dialect's form."""

    async def endpoint(request: Request) -> Response:
        try:
            await admission.check(request.headers, request.client.host if request.client else "")
            return await answer(desk, request)
        except Exception as error:  # noqa: BLE001  # any bug must be answered in the client's form, too
            refusal = refusal_of(error)
        told = dialect.refuse(dialect.told(desk, refusal))
        if refusal.status == 401:
            told.headers["WWW-Authenticate"] = 'Basic realm="LightDiffusion-Next"'
        return told

    return endpoint


async def unknown(desk: Desk, request: Request) -> Response:
    raise Refused(404, f"There is no {request.method} {request.url.path} here; docs/api.md lists what there is.")
