"""Downloads the starter checkpoint, which is offered while there are only the demos."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from modules.core.download import Offer, ask, fetch
from modules.core.errors import Cancelled, LightDiffusionError
from modules.core.paths import ModelFolders
from modules.core.progress import CancelToken


@dataclass(frozen=True, kw_only=True)
class StarterModel:
    """A model file published by others, with its licence."""

    title: str
    name: str
    url: str
    licence: str
    licence_url: str


STARTER = StarterModel(
    title="Stable Diffusion 1.5, half precision",
    name="v1-5-pruned-emaonly-fp16.safetensors",
    url="https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    "v1-5-pruned-emaonly-fp16.safetensors",
    licence="CreativeML Open RAIL-M",
    licence_url="https://huggingface.co/spaces/CompVis/stable-diffusion-license",
)


@dataclass(kw_only=True)
class Download:
    """A download attempt. Its own thread writes to it; any thread may read it."""

    offer: Offer
    received: int = 0
    state: str = "running"  # then "done", "cancelled" or "failed"
    error: str = ""
    cancel: CancelToken = field(default_factory=CancelToken)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def note(self, received: int) -> None:
        self.received = received

    def end(self, state: str, error: str = "") -> None:
        self.state, self.error = state, error
        self._ended.set()

    def wait(self, seconds: float | None = None) -> bool:
        return self._ended.wait(seconds)


class StarterDownload:
    """Runs at most one download at a time, in a separate thread. It uses the network only after `ask` or `begin`."""

    def __init__(self, folders: ModelFolders, model: StarterModel = STARTER) -> None:
        self.model = model
        self.target: Path = folders.folders("checkpoints")[0] / model.name
        self.latest: Download | None = None
        self._lock = threading.Lock()

    def ask(self) -> Offer:
        return ask(self.model.url)

    def begin(self, offer: Offer) -> Download:
        """Starts downloading the offer, unless a download is already running."""
        with self._lock:
            if self.latest is None or self.latest.state != "running":
                self.latest = Download(offer=offer)
                threading.Thread(target=self._run, args=(self.latest,), name="download", daemon=True).start()
            return self.latest

    def _run(self, download: Download) -> None:
        state, error = "failed", "An error inside the program stopped the download; the log says more."
        try:
            fetch(download.offer, self.target, on_bytes=download.note, cancel=download.cancel)
            state, error = "done", ""
        except Cancelled:
            state, error = "cancelled", ""
        except LightDiffusionError as problem:
            error = str(problem)
        finally:
            download.end(state, error)
