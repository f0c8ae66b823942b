"""Builds the page and serves it: on this computer only, unless --listen and --auth say otherwise."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from modules.core.errors import LightDiffusionError, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.options import read_tuning_seconds
from modules.generation.output import OutputFolder
from modules.generation.queue import GenerationQueue
from modules.generation.starter import StarterDownload

if TYPE_CHECKING:
    from gradio import Blocks

    from modules.generation.session import Session
    from ui.handlers import Handlers

PORT = 7860
LOCAL = "127.0.0.1"
EVERYWHERE = "0.0.0.0"
AUTH_VARIABLE = "LIGHTDIFFUSION_AUTH"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise OptionsError(f"{message}; see --help.")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="run.sh", description="LightDiffusion-Next in the browser.", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}")
    parser.add_argument(
        "--listen", nargs="?", const=EVERYWHERE, metavar="ADDRESS", help="let other computers in; needs --auth"
    )
    parser.add_argument("--auth", metavar="NAME:PASSWORD", help=f"ask for a login (or set {AUTH_VARIABLE})")
    parser.add_argument("--open", action="store_true", help="open the browser")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="default: output/")
    parser.add_argument("--models-root", type=Path, metavar="DIR", help="the folder that holds models/")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="default: settings.json")
    parser.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"))
    parser.add_argument(
        "--stable-fast-tune",
        type=read_tuning_seconds,
        default=0.0,
        metavar="SECONDS",
        help="time Stable-Fast's kernels for so long, for each network at each new size (NVIDIA GPU; kept on disk)",
    )
    return parser


def read_auth(text: str | None, listen: str | None) -> tuple[str, str] | None:
    """The login. Raises OptionsError where others could get in without one."""
    text = text or os.environ.get(AUTH_VARIABLE)
    if not text:
        if listen and listen not in (LOCAL, "localhost", "::1"):
            raise OptionsError(
                f"--listen lets other computers use this one: add --auth NAME:PASSWORD (or set {AUTH_VARIABLE})."
            )
        return None
    name, _, password = text.partition(":")
    if not name or not password:
        raise OptionsError("--auth: write it as NAME:PASSWORD, neither of them empty.")
    return name, password


def make_handlers(arguments: argparse.Namespace) -> Handlers:
    """What the page works with; the session, and torch with it, is made when the first request runs."""
    from ui.quick_import import import_gradio

    import_gradio()
    from ui.handlers import Handlers
    from ui.settings import SettingsFile

    folders = ModelFolders(arguments.models_root, names_only=True)
    settings = arguments.settings or folders.root / "settings.json"

    def make_session() -> Session:
        from modules.generation.session import Session

        return Session(
            folders, device=arguments.device, dtype=arguments.dtype, tuning_seconds=arguments.stable_fast_tune
        )

    return Handlers(GenerationQueue(make_session), folders, OutputFolder(arguments.output_dir), SettingsFile(settings))


def build_app(handlers: Handlers, starter: StarterDownload | None = None) -> Blocks:
    """The page and the endpoints, not yet served. `starter` is the checkpoint to offer when there is none yet."""
    import gradio as gr

    from ui.api import add_endpoints
    from ui.layout import build_page
    from ui.pictures import open_our_formats_only
    from ui.wiring import connect

    open_our_formats_only()
    with gr.Blocks(
        title="LightDiffusion-Next", analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)
    ) as page:
        values = handlers.remembered()
        starter = starter or StarterDownload(handlers.folders)
        parts = build_page(handlers, starter, values)
        connect(parts, handlers, starter, page, values)
        add_endpoints(handlers)
    page.queue(max_size=200, api_open=False)
    return page


def launch(page: Blocks, handlers: Handlers, arguments: argparse.Namespace, **settings: Any) -> Any:
    from ui.scripts import UPLOAD_MEGABYTES, head
    from ui.style import CSS, theme

    auth = read_auth(arguments.auth, arguments.listen)
    output = handlers.output.folder.resolve()
    output.mkdir(parents=True, exist_ok=True)
    return page.launch(
        server_name=arguments.listen or LOCAL,
        server_port=arguments.port,
        auth=auth,
        app_kwargs={} if auth else {"middleware": known_hosts_only()},
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
    """Without a login the page answers under this computer's own names only: another site whose name is made to point
    here (DNS rebinding) gets nothing. With one, a proxy may use any name."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    literal = "["  # what Starlette reads of [::1]:7860; a number is no name that could be made to point here
    return [Middleware(TrustedHostMiddleware, allowed_hosts=[LOCAL, "localhost", literal, "[::1]"])]


def stay_offline() -> None:
    """Before gradio is imported: no analytics, no version check; uploads go to a folder of our own."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("GRADIO_TEMP_DIR", tempfile.mkdtemp(prefix="lightdiffusion-"))


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        arguments = build_parser().parse_args(argv)
        read_auth(arguments.auth, arguments.listen)
        stay_offline()
        handlers = make_handlers(arguments)
        handlers.output.check_writable()
        page = build_app(handlers)
    except LightDiffusionError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return serve(page, handlers, arguments)


def serve(page: Blocks, handlers: Handlers, arguments: argparse.Namespace) -> int:
    """Until Ctrl-C; then what runs stops after its step."""
    try:
        _, url, _ = launch(page, handlers, arguments, prevent_thread_lock=True)
    except OSError:  # Gradio's words for a port that is taken name its own options
        print(f"error: port {arguments.port} cannot be used; choose another with --port.", file=sys.stderr)
        return 1
    print(f"LightDiffusion-Next is at {url} (Ctrl-C stops it).", flush=True)
    try:
        page.block_thread()
    finally:
        handlers.queue.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
