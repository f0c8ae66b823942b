"""Parses the arguments of run.sh, and checks the login, the address and the port."""

from __future__ import annotations

import errno
import os
import socket
from argparse import Namespace
from collections.abc import Sequence

from cli.parser import Parser
from cli.values import one_of, path, port
from modules.core.errors import OptionsError, quoted
from modules.generation.options import MEMORY_MODES, read_tuning_seconds

PORT = 7860
LOCAL = "127.0.0.1"
EVERYWHERE = "0.0.0.0"
AUTH_VARIABLE = "LIGHTDIFFUSION_AUTH"


def build_parser() -> Parser:
    parser = Parser(prog="run.sh", description="LightDiffusion-Next in the browser.")
    parser.add_argument("--port", type=port, default=PORT, help=f"default {PORT}")
    parser.add_argument(
        "--listen", nargs="?", const=EVERYWHERE, metavar="ADDRESS", help="let other computers in; needs --auth"
    )
    parser.add_argument("--auth", metavar="NAME:PASSWORD", help=f"ask for a login (or set {AUTH_VARIABLE})")
    parser.add_argument("--open", action="store_true", help="open the browser")
    parser.add_argument("--output-dir", type=path, metavar="DIR", help="default: output/")
    parser.add_argument("--models-root", type=path, metavar="DIR", help="the folder that holds models/")
    parser.add_argument("--settings", type=path, metavar="FILE", help="default: settings.json")
    parser.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    parser.add_argument("--dtype", **one_of(("float16", "bfloat16", "float32")))
    parser.add_argument(
        "--memory",
        **one_of(MEMORY_MODES),
        help="on an NVIDIA GPU: whether text encoder and VAE leave it after their work; auto (default): if it is short "
        "of memory; high: never; low: always",
    )
    parser.add_argument(
        "--stable-fast-tune",
        type=read_tuning_seconds,
        default=0.0,
        metavar="SECONDS",
        help="time Stable-Fast's kernels for this long, for each network at each new size (NVIDIA GPU; kept on disk)",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser


def read_arguments(parser: Parser, argv: Sequence[str]) -> Namespace:
    """Parses the arguments and adds defaults. Raises OptionsError."""
    given, words = parser.given(argv)
    if words:
        parser.error(f"{quoted(words[0])} is one word too many: run.sh takes only options")
    return Namespace(**given)


def read_auth(text: str | None, listen: str | None) -> tuple[str, str] | None:
    """Returns the login. Raises OptionsError if other computers could connect without one."""
    text = text or os.environ.get(AUTH_VARIABLE)
    if not text:
        if listen and listen not in (LOCAL, "localhost", "::1"):
            raise OptionsError(
                f"--listen lets other computers use this one: add --auth NAME:PASSWORD (or set {AUTH_VARIABLE})."
            )
        return None
    name, _, password = text.partition(":")
    if not name or not password:
        raise OptionsError("--auth: write it as NAME:PASSWORD, with neither part empty.")
    return name, password


def check_port(address: str, number: int) -> None:
    """Raises OptionsError if it is not possible to serve the page at this address and port."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, number, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name != "nt":  # on Windows this would share the port with another program
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except (socket.gaierror, UnicodeError) as error:
        raise OptionsError(f"--listen {quoted(address)} is not an address of this computer: leave it empty.") from error
    except OSError as error:
        raise OptionsError(_port_text(error, address, number)) from error


def _port_text(error: OSError, address: str, number: int) -> str:
    if isinstance(error, PermissionError):
        return f"Port {number} needs administrator rights; choose 1024 or higher with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--listen {quoted(address)} is not an address of this computer: leave it empty."
    return port_in_use(number)


def port_in_use(number: int) -> str:
    return f"Port {number} is in use by another program; choose another with --port."
