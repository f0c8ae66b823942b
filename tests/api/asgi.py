"""Calls of the API's routes without a server and without an engine."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from api.desk import Desk
from api.guard.access import Access
from api.mount import routes
from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.tasks.queued_task import QueuedTask
from modules.tasks.task import Task


@dataclass
class NoEngine:
    """Stands in for the queue: every task ends at once without a picture."""

    tasks: list[Task] = field(default_factory=list)
    session: None = None

    def submit(self, task: Task, output: OutputFolder | None = None) -> QueuedTask:
        self.tasks.append(task)
        queued = QueuedTask(task=task, output=output)
        queued.end("done")
        return queued


def desk_without_engine(root: Path) -> Desk:
    return Desk(NoEngine(), ModelFolders(root, names_only=True), OutputFolder(root / "output"))  # type: ignore[arg-type]


class Caller:
    """Calls the routes one after the other, in a thread with its own event loop."""

    def __init__(self, desk: Desk, access: Access | None = None) -> None:
        self._app = Starlette(routes=routes(desk, access or Access()))

    def call(self, calls: list[tuple[str, str, bytes]], content_type: str = "") -> list[tuple[int, Any]]:
        """Sends (method, path, body) each; returns status and JSON of each answer, or the bytes of a stream."""

        async def all_calls() -> list[tuple[int, Any]]:
            return [await self._one(*call, content_type) for call in calls]

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, all_calls()).result()

    async def _one(self, method: str, path: str, body: bytes, content_type: str) -> tuple[int, Any]:
        sent: list[Any] = []
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return waiting.pop() if waiting else await asyncio.sleep(3600)  # the client stays

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", content_type.encode())]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": headers,
            "client": None,
        }
        await self._app(scope, receive, send)
        told = b"".join(message.get("body", b"") for message in sent[1:])
        is_json = (b"content-type", b"application/json") in sent[0]["headers"]
        return sent[0]["status"], json.loads(told) if is_json else told
