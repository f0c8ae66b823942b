"""Builds and serves the page: to this computer only, unless --listen and --auth are given."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.packages import missing_package
from cli.runs.cluster import check_cluster, opened_pool
from cli.streams import forgive_errors, log_to_errors, tell, warn
from modules.catalog.starter import StarterDownload
from modules.core.errors import LightDiffusionError, OptionsError
from modules.core.paths import ModelFolders
from modules.core.threads import let_threads_sleep
from modules.gallery.output import LAST_SEED, OutputFolder
from modules.gallery.stars import STARS
from modules.tasks.queue import TaskQueue
from modules.version import VERSION
from ui.arguments import LOCAL, build_parser, check_port, port_in_use, read_api_key, read_arguments, read_login
from ui.process import uncollected, wait_to_be_stopped
from ui.server.upload_folder import UploadFolder, make_upload_folder

if TYPE_CHECKING:
    from gradio import Blocks

    from api.desk import Desk
    from api.guard.gate import Gate
    from modules.generation.session import Session
    from modules.stable_fast.store.exchange import Table
    from ui.events.handlers import Handlers


def make_handlers(arguments: Namespace) -> Handlers:
    """Imports gradio and creates the page's handlers."""
    from ui.quick_import import import_gradio
    from ui.server.quiet_errors import log_in_one_line

    import_gradio()
    from gradio import __version__
    from gradio.route_utils import BUILD_PATH_LIB
    from gradio.routes import templates

    from ui.server.connections import bound_connections
    from ui.server.page_template import quicken_page

    log_in_one_line()
    bound_connections(make_gate(arguments))
    quicken_page(templates.env, Path(BUILD_PATH_LIB), __version__)
    from ui.events.handlers import Handlers
    from ui.settings import SettingsFile

    desk = make_desk(arguments)
    settings = arguments.settings or desk.folders.root / "settings.json"
    return Handlers(
        desk.queue,
        desk.folders,
        desk.output,
        SettingsFile(settings, desk.output.folder),
        gpu=may_have_gpu(arguments.device),
    )


def make_desk(arguments: Namespace) -> Desk:
    """Creates the queue and the API's desk; the session is created, and torch imported, on the first request."""
    from api.desk import Desk

    folders = ModelFolders(arguments.models_root, names_only=True)
    table = read_given_table(arguments.stable_fast_table)

    def make_session() -> Session:
        from modules.generation.session import Session

        return Session(
            folders,
            device=arguments.device,
            dtype=arguments.dtype,
            tuning_seconds=arguments.stable_fast_tune,
            table=table,
            memory=arguments.memory,
        )

    output = OutputFolder(arguments.output_dir)
    queue = make_queue(arguments, make_session, folders, output)
    return Desk(queue, folders, output)


def read_given_table(path: Path | None) -> Table | None:
    """Reads the table of kernels, so that a bad file is refused at once; this imports torch. Raises OptionsError."""
    if path is None:
        return None
    from modules.stable_fast.store.exchange import read_table

    return read_table(path)


def make_queue(
    arguments: Namespace, make_session: Callable[[], Session], folders: ModelFolders, output: OutputFolder
) -> TaskQueue:
    """Creates the queue in front of one session, or of the workers of a cluster. Raises OptionsError."""
    given = vars(arguments)
    if "cluster" in given:
        from modules.cluster.queue import PoolQueue

        return PoolQueue(opened_pool(given, folders), output)
    return TaskQueue(make_session, output, most_together=arguments.most_together, gather_ms=arguments.gather_ms)


def may_have_gpu(device: str | None) -> bool:
    """Tells, without importing torch, whether there is an NVIDIA driver and no other device is wanted."""
    drivers = ("/proc/driver/nvidia", "/usr/lib/wsl/lib/nvidia-smi")
    found = shutil.which("nvidia-smi") or any(Path(place).exists() for place in drivers)
    return bool(found) and (device is None or device.startswith("cuda"))


def build_app(handlers: Handlers, starter: StarterDownload | None = None) -> Blocks:
    """Builds the page and the endpoints. `starter` is the checkpoint to offer if there are no others."""
    from ui.api import add_endpoints
    from ui.events.connect import connect
    from ui.panels.layout import build_page
    from ui.panels.picture_fields import open_our_formats_only
    from ui.quick_import import one_server
    from ui.server.page import Page

    open_our_formats_only()
    with one_server():
        page = Page(title="LightDiffusion-Next", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400))
        with page:
            values = handlers.remembered()
            starter = starter or StarterDownload(handlers.folders)
            parts = build_page(handlers.folders, handlers.output.folder, starter, values, gpu=handlers.gpu)
            connect(parts, handlers, starter, page, values)
            add_endpoints(handlers)
        page.queue(max_size=200, api_open=False)
    return page


def launch(page: Blocks, handlers: Handlers, arguments: Namespace, **settings: Any) -> Any:
    from api.desk import Desk
    from api.guard.hosts import known_hosts_only
    from api.mount import routes
    from ui.browser.head import UPLOAD_MEGABYTES, css, head
    from ui.browser.theme import theme

    gate = make_gate(arguments)
    auth = gate.access.login
    output = handlers.output.folder.resolve()
    output.mkdir(parents=True, exist_ok=True)
    desk = Desk(handlers.queue, handlers.folders, handlers.output)
    hosts = [] if auth else [known_hosts_only(arguments.allow_host)]
    return page.launch(
        server_name=arguments.listen or LOCAL,
        server_port=arguments.port,
        auth=auth,
        app_kwargs={
            "middleware": [*hosts, *guarded(gate)],
            "routes": [] if arguments.no_api else routes(desk, gate.access),
        },
        inbrowser=arguments.open,
        share=False,
        allowed_paths=[str(output)],
        blocked_paths=[str(output / name) for name in (LAST_SEED, STARS)],
        max_file_size=f"{UPLOAD_MEGABYTES}mb",
        strict_cors=True,
        show_error=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        quiet=True,
        _frontend=False,  # Gradio would fetch the page to see whether the server runs, right after another such test
        theme=theme(),
        css=css(),
        head=head(),
        **settings,
    )


def make_gate(arguments: Namespace) -> Gate:
    """Returns what the guard must know of the API. Raises OptionsError for a login that is missing or unreadable."""
    from api.guard.access import Access
    from api.guard.gate import Gate
    from api.mount import PREFIXES

    return Gate(
        prefixes=() if arguments.no_api else PREFIXES,
        access=Access(key=read_api_key(arguments), login=read_login(arguments)),
        origins=tuple(arguments.allow_origin),
    )


def guarded(gate: Gate) -> list[Any]:
    """Checks bodies, origins and logins before gradio sees a request; logs gradio's own errors in one line."""
    from gradio.utils import get_upload_folder
    from starlette.middleware import Middleware

    from api.guard.guard import Guard
    from ui.server.quiet_errors import OneLine

    return [Middleware(OneLine), Middleware(Guard, uploads=UploadFolder(Path(get_upload_folder())), gate=gate)]


def stay_offline() -> UploadFolder:
    """Prepares the import of gradio: no analytics, no version check, and our own upload folder."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # statistics after every request, which nobody reads
    os.environ["HF_HUB_OFFLINE"] = "1"
    return make_upload_folder()


def main(argv: Sequence[str] | None = None) -> int:
    let_threads_sleep()
    forgive_errors()
    log_to_errors()
    try:
        arguments = read_arguments(build_parser(), sys.argv[1:] if argv is None else argv)
        if arguments.version:
            tell(f"LightDiffusion-Next {VERSION}")
            return 0
        check_cluster(vars(arguments))
        read_login(arguments)
        check_port(arguments.listen or LOCAL, arguments.port)
        if arguments.no_page:
            return serve_api(arguments)
        uploads = stay_offline()
        try:
            with uncollected():
                handlers = make_handlers(arguments)
                handlers.output.check_writable()
                page = build_app(handlers)
                url = open_page(page, handlers, arguments)
            return serve(page, handlers, url)
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


def open_page(page: Blocks, handlers: Handlers, arguments: Namespace) -> str:
    """Starts the server and returns its address. Raises OptionsError if the port is in use."""
    try:
        _, url, _ = launch(page, handlers, arguments, prevent_thread_lock=True)
    except OSError as error:  # Gradio's message for a port that is in use mentions its own options
        raise OptionsError(port_in_use(arguments.port)) from error
    return url


def serve(page: Blocks, handlers: Handlers, url: str) -> int:
    """Serves until Ctrl-C, which stops the running request after its step.

    Gradio's own way of waiting would print an extra line at the end.
    """
    try:
        tell(f"LightDiffusion-Next is at {url} (Ctrl-C stops it).")
        wait_to_be_stopped()
        warn("Stopped.")
    finally:
        page.close(verbose=False)
        handlers.queue.close()
    return 0


def serve_api(arguments: Namespace) -> int:
    """Serves the API alone until Ctrl-C. Gradio is not imported."""
    from api.server import build_server, running

    desk = make_desk(arguments)
    desk.output.check_writable()
    app = build_server(desk, make_gate(arguments), arguments.allow_host)
    with running(app, arguments.listen or LOCAL, arguments.port) as url:
        tell(f"LightDiffusion-Next's API is at {url} (Ctrl-C stops it).")
        wait_to_be_stopped()
        warn("Stopped.")
        desk.queue.close()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM, sent by service managers, acts like Ctrl-C
    sys.exit(main())
