"""Gives gradio's server our limits on connections, since gradio has no setting for its uvicorn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn

from api.guard.connections import ACCEPTED_AT_ONCE, Patient
from api.guard.gate import Gate
from api.guard.other_sites import OtherSites
from api.own_form import OwnForm
from ui.server.frontend_files import FrontendFiles


def bound_connections(gate: Gate) -> None:
    """Replaces uvicorn's protocol after gradio is imported, and serves gradio's scripts.

    The gate's other sites are answered around gradio, which has rules of its own for them.
    """
    from gradio import http_server
    from gradio.route_utils import BUILD_PATH_LIB

    def config(app: Any, **settings: Any) -> uvicorn.Config:
        guarded = FrontendFiles(OwnForm(OtherSites(app, gate), gate), Path(BUILD_PATH_LIB))
        return uvicorn.Config(guarded, http=Patient, backlog=ACCEPTED_AT_ONCE, **settings)

    http_server.uvicorn = SimpleNamespace(**vars(uvicorn) | {"Config": config})  # type: ignore[assignment]
