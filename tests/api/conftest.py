"""A started server with a tiny project, and the clients of other programs in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import webuiapi
from PIL import Image
from safetensors.torch import save_file

from api.desk import Desk
from api.guard.access import Access
from api.guard.gate import Gate
from api.mount import PREFIXES
from api.server import build_server, running
from tests.tiny_project import project
from tests.ui.conftest import arguments_for, free_port
from tests.upscalers import esrgan_tensors
from ui.app import make_desk

KEY = "open sesame"
STYLES = "name,prompt,negative_prompt\nink,an ink drawing of {prompt},colour\nfine,very fine,\n"
SMALL: dict[str, Any] = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "seed": 5}


@dataclass(frozen=True, kw_only=True)
class Served:
    """One desk behind two servers: `port` is open, `locked_port` asks for KEY."""

    desk: Desk
    root: Path
    port: int
    locked_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def locked_url(self) -> str:
        return f"http://127.0.0.1:{self.locked_port}"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = project(tmp_path_factory.mktemp("served"))
    save_file(esrgan_tensors(), root / "models" / "upscalers" / "sharp.safetensors")
    (root / "styles.csv").write_text(STYLES, encoding="utf-8-sig")
    desk = make_desk(arguments_for(root))
    port, locked = free_port(), free_port()
    gate = Gate(prefixes=PREFIXES, origins=("http://localhost:3000",))
    with (
        running(build_server(desk, gate, ["host.docker.internal"]), "127.0.0.1", port),
        running(build_server(desk, Gate(prefixes=PREFIXES, access=Access(key=KEY))), "127.0.0.1", locked),
    ):
        yield Served(desk=desk, root=root, port=port, locked_port=locked)
        desk.queue.close()


@pytest.fixture
def webui(served: Served) -> Any:
    """The unmodified client of A1111's API."""
    return webuiapi.WebUIApi(port=served.port)


@pytest.fixture
def photo(served: Served) -> Image.Image:
    return Image.open(served.root / "photo.png")
