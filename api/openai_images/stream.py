"""Sends a request's previews and pictures as server-sent events, while it is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any

from starlette.responses import StreamingResponse

from api.desk import POLL_SECONDS, Desk
from api.errors import Refusal, in_words, refusal_of
from api.openai_images.answers import WORDS, error_body, event
from api.openai_images.asked import Sending
from modules.generation.options import GenerationOptions
from modules.tasks.queued_task import QueuedTask

USAGE = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}  # nobody pays by token here
NO_TOKENS = {**USAGE, "input_tokens_details": {"image_tokens": 0, "text_tokens": 0}}


def streamed(
    kind: str, desk: Desk, queued: QueuedTask, options: GenerationOptions, sending: Sending, things: ExitStack
) -> StreamingResponse:
    """Answers with events named after `kind`. `things` are given back when the last picture has been sent."""
    said = {
        "background": "opaque",
        "output_format": sending.form.format,
        "quality": "auto",
        "size": f"{options.width}x{options.height}" if options.width and options.height else "auto",
    }
    stream = events(kind, desk, queued, sending, said, things)
    return StreamingResponse(stream, media_type="text/event-stream")


async def events(
    kind: str, desk: Desk, queued: QueuedTask, sending: Sending, said: dict[str, Any], things: ExitStack
) -> AsyncGenerator[bytes, None]:
    """Yields up to `sending.previews` previews, then each picture; an error ends the stream in OpenAI's form."""
    work = asyncio.ensure_future(desk.finish(queued))  # beside us: it ends in order if the client hangs up
    try:
        async for number, preview in previews(work, queued, sending.previews):
            text = await asyncio.to_thread(sending.form.write_preview, preview)
            yield event(f"{kind}.partial_image", said | now() | {"b64_json": text, "partial_image_index": number})
        for path in (await work).pictures:
            text = await asyncio.to_thread(sending.form.write, path)
            yield event(f"{kind}.completed", said | now() | {"b64_json": text, "usage": NO_TOKENS})
        yield b"data: [DONE]\n\n"
    except Exception as error:  # noqa: BLE001  # the status was sent long ago, so every error becomes an event
        refusal = refusal_of(error)
        told = Refusal(status=refusal.status, sentence=in_words(desk.without_paths(refusal.sentence), WORDS))
        yield event("error", error_body(told))
    finally:
        work.add_done_callback(lambda done: end(done, things))
        work.cancel()


def end(work: asyncio.Future[QueuedTask], things: ExitStack) -> None:
    """Gives the tray back when nothing is written into it any more. The error, if there was one, has been sent."""
    if not work.cancelled():
        work.exception()
    things.close()


async def previews(
    work: asyncio.Future[QueuedTask], queued: QueuedTask, most: int
) -> AsyncGenerator[tuple[int, bytes], None]:
    """Yields new previews with their numbers, until there are enough of them or the task is finished."""
    shown, last = 0, b""
    while shown < most and not work.done():
        await asyncio.sleep(POLL_SECONDS)
        if (preview := queued.preview) and preview is not last:
            yield shown, preview
            shown, last = shown + 1, preview


def now() -> dict[str, int]:
    return {"created_at": int(time.time())}
