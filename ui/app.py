"""Builds and serves the page: to this computer only, unless --listen and --auth are given."""

from __future__ import annotations

import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.packages import missing_package
from cli.streams import forgive_errors, log_to_errors, tell, warn
from modules.catalog.starter import StarterDownload
from modules.core.errors import LightDiffusionError, OptionsError
from modules.core.paths import ModelFolders
from modules.gallery.output import OutputFolder
from modules.tasks.queue import TaskQueue
from modules.version import VERSION
from ui.arguments import LOCAL, build_parser, check_port, port_in_use, read_arguments, read_auth
from ui.server.upload_folder import UploadFolder, make_upload_folder

if TYPE_CHECKING:
    from gradio import Blocks

    from modules.generation.session import Session
    from ui.events.handlers import Handlers


def make_handlers(arguments: Namespace) -> Handlers:
    """Creates the page's handlers; the session is created, and torch imported, on the first request."""
    from ui.quick_import import import_gradio
    from ui.server.quiet_errors import log_in_one_line

    import_gradio()
    from ui.server.connections import bound_connections

    log_in_one_line()
    bound_connections()
    from ui.events.handlers import Handlers
    from ui.settings import SettingsFile

    folders = ModelFolders(arguments.models_root, names_only=True)
    settings = arguments.settings or folders.root / "settings.json"

    def make_session() -> Session:
        from modules.generation.session import Session

        return Session(
            folders,
            device=arguments.device,
            dtype=arguments.dtype,
            tuning_seconds=arguments.stable_fast_tune,
            memory=arguments.memory,
        )

    output = OutputFolder(arguments.output_dir)
    return Handlers(TaskQueue(make_session, output), folders, output, SettingsFile(settings))


def build_app(handlers: Handlers, starter: StarterDownload | None = None) -> Blocks:
    """Builds the page and the endpoints. `starter` is the checkpoint to offer if there are no others."""
    import gradio as gr

    from ui.api import add_endpoints
    from ui.events.wiring import connect
    from ui.panels.layout import build_page
    from ui.panels.picture_fields import open_our_formats_only

    open_our_formats_only()
    with gr.Blocks(
        title="LightDiffusion-Next", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)
    ) as page:
        values = handlers.remembered()
        starter = starter or StarterDownload(handlers.folders)
        parts = build_page(handlers.folders, handlers.output.folder, starter, values)
        connect(parts, handlers, starter, page, values)
        add_endpoints(handlers)
    page.queue(max_size=200, api_open=False)
    return page


def launch(page: Blocks, handlers: Handlers, arguments: Namespace, **settings: Any) -> Any:
    from ui.panels.scripts import UPLOAD_MEGABYTES, head
    from ui.panels.style import CSS, theme

    auth = read_auth(arguments.auth, arguments.listen)
    output = handlers.output.folder.resolve()
    output.mkdir(parents=True, exist_ok=True)
    return page.launch(
        server_name=arguments.listen or LOCAL,
        server_port=arguments.port,
        auth=auth,
        app_kwargs={"middleware": [*([] if auth else known_hosts_only()), *guarded()]},
        inbrowser=arguments.open,
        share=False,
        allowed_paths=[str(output)],
        blocked_paths=[str(output / "last_seed.json")],
        max_file_size=f"{UPLOAD_MEGABYTES}mb",
        strict_cors=True,
        show_error=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        quiet=True,
        theme=theme(),
        css=CSS,
        head=head(),
        **settings,
    )


def known_hosts_only() -> list[Any]:
    """Restricts the host names at which the page is reachable.

    Without a login, only this computer's own names are allowed. This prevents DNS rebinding, in which a foreign name
    points here. With a login, a proxy may use any name.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    literal = "["  # Starlette parses [::1]:7860 as this; DNS rebinding is not possible for a numeric address
    return [Middleware(TrustedHostMiddleware, allowed_hosts=[LOCAL, "localhost", literal, "[::1]"])]


def guarded() -> list[Any]:
    """Checks bodies, origins and logins before gradio sees a request; logs gradio's own errors in one line."""
    from gradio.utils import get_upload_folder
    from starlette.middleware import Middleware

    from ui.server.guard import Guard
    from ui.server.quiet_errors import OneLine

    return [Middleware(OneLine), Middleware(Guard, uploads=UploadFolder(Path(get_upload_folder())))]


def stay_offline() -> UploadFolder:
    """Prepares the import of gradio: no analytics, no version check, and our own upload folder."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    return make_upload_folder()


def main(argv: Sequence[str] | None = None) -> int:
    forgive_errors()
    log_to_errors()
    try:
        arguments = read_arguments(build_parser(), sys.argv[1:] if argv is None else argv)
        if arguments.version:
            tell(f"LightDiffusion-Next {VERSION}")
            return 0
        read_auth(arguments.auth, arguments.listen)
        check_port(arguments.listen or LOCAL, arguments.port)
        uploads = stay_offline()
        try:
            handlers = make_handlers(arguments)
            handlers.output.check_writable()
            return serve(build_app(handlers), handlers, arguments)
        finally:
            uploads.remove()
    except LightDiffusionError as error:
        warn(f"error: {error}")
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = missing_package(error, "run")
        if missing is None:
            raise
        warn(f"error: {missing}")
        return missing.exit_code
    except KeyboardInterrupt:  # pressed before the page was ready, or twice
        warn("Stopped.")
        return 130


def serve(page: Blocks, handlers: Handlers, arguments: Namespace) -> int:
    """Serves until Ctrl-C, which stops the running request after its step. Raises OptionsError if the port is in use.

    Gradio's own way of waiting would print an extra line at the end.
    """
    try:
        _, url, _ = launch(page, handlers, arguments, prevent_thread_lock=True)
    except OSError as error:  # Gradio's message for a port that is in use mentions its own options
        raise OptionsError(port_in_use(arguments.port)) from error
    try:
        tell(f"LightDiffusion-Next is at {url} (Ctrl-C stops it).")
        wait_to_be_stopped()
        warn("Stopped.")
    finally:
        page.close(verbose=False)
        handlers.queue.close()
    return 0


def wait_to_be_stopped() -> None:
    """Waits for Ctrl-C or for SIGTERM (sent by service managers); a second signal ends the program at once."""
    asked: list[int] = []

    def handler(number: int, _frame: object) -> None:
        asked.append(number)
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
    while not asked:
        time.sleep(0.1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM, sent by service managers, acts like Ctrl-C
    sys.exit(main())
