"""The forms of OpenAI's answers: errors, pictures, models, and the events of a stream."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.responses import Response

from api.dialect import as_json
from api.errors import Refusal
from api.pictures import in_base64
from modules.core.paths import ModelFolders
from modules.core.sizes import SIZE_STEP
from modules.images.modes import to_rgb
from modules.images.open import open_image

WORDS = {
    "--mask FILE": "mask",
    "--list samplers": "GET /sdapi/v1/samplers",
    "--list schedulers": "GET /sdapi/v1/schedulers",
    "--checkpoint": "model",
    "--cfg": "cfg_scale",
    "--sampler": "sampler",
}
KINDS_OF_ERRORS = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}


@dataclass(frozen=True, kw_only=True)
class Form:
    """In which form a client wants its pictures. `compression` is the quality of JPEG and WebP, 0..100."""

    format: str = "png"
    compression: int = 100
    as_url: bool = False

    def write(self, path: Path) -> str:
        """Returns a finished picture as base64. A PNG is the file itself, with its settings inside."""
        return in_base64(path.read_bytes() if self.format == "png" else self._converted(open_image(path)))

    def write_preview(self, preview: bytes) -> str:
        """Returns a preview, which has one pixel per latent cell, in the size of the picture."""
        small = to_rgb(open_image(io.BytesIO(preview)))
        width, height = (side * SIZE_STEP for side in small.size)
        return in_base64(self._converted(small.resize((width, height), Image.Resampling.BICUBIC)))

    def _converted(self, image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        quality = {} if self.format == "png" else {"quality": self.compression}
        to_rgb(image).save(buffer, self.format, **quality)
        return buffer.getvalue()


def error_body(refusal: Refusal) -> dict[str, Any]:
    kind = KINDS_OF_ERRORS.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "server_error")
    return {"error": {"message": refusal.sentence, "type": kind, "param": None, "code": None}}


def refuse(refusal: Refusal) -> Response:
    return as_json(error_body(refusal), refusal.status)


def pictures(paths: list[Path], form: Form) -> dict[str, Any]:
    """Answers generations and edits. A URL is a data URL: no picture stays on the server for others to fetch."""
    written = [form.write(path) for path in paths]
    if form.as_url:
        data = [{"url": f"data:image/{form.format};base64,{text}"} for text in written]
    else:
        data = [{"b64_json": text} for text in written]
    return {"created": int(time.time()), "data": data, "output_format": form.format}


def models(folders: ModelFolders) -> dict[str, Any]:
    """Lists the checkpoints, by the names that a request's `model` takes."""
    rows = [
        {"id": name, "object": "model", "created": 0, "owned_by": "lightdiffusion"}
        for name in folders.list("checkpoints")
    ]
    return {"object": "list", "data": rows}


def event(kind: str, values: dict[str, Any]) -> bytes:
    """Returns one server-sent event; the SDK reads `type` inside the data, browsers read the name."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **values})}\n\n".encode()
