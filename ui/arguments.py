"""Parses the arguments of run.sh, and checks the login, the address and the port."""

from __future__ import annotations

import errno
import os
import re
import socket
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence

from cli.arguments import add_cluster_options
from cli.parser import Parser
from cli.values import number, one_of, path, port, read_tuning_seconds, whole
from modules.core.errors import OptionsError, quoted
from modules.generation.options import MEMORY_MODES

PORT = 7860
LOCAL = "127.0.0.1"
EVERYWHERE = "0.0.0.0"
AUTH_VARIABLE = "LIGHTDIFFUSION_AUTH"
KEY_VARIABLE = "LIGHTDIFFUSION_API_KEY"
LARGEST_BATCH = 64
LONGEST_WAIT_MS = 10_000


def build_parser() -> Parser:
    parser = Parser(prog="run.sh", description="LightDiffusion-Next in the browser.")
    parser.add_argument("--port", type=port, default=PORT, help=f"default {PORT}")
    parser.add_argument(
        "--listen", nargs="?", const=EVERYWHERE, metavar="ADDRESS", help="let other computers in; needs --auth"
    )
    parser.add_argument("--auth", metavar="NAME:PASSWORD", help=f"ask for a login (or set {AUTH_VARIABLE})")
    add_api_arguments(parser)
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
    parser.add_argument(
        "--stable-fast-table",
        type=path,
        metavar="FILE",
        help="let Stable-Fast use the fastest kernels in this table, measured on another GPU of this kind",
    )
    parser.add_argument(
        "--most-together",
        type=pictures,
        metavar="N",
        help="make up to N pictures of waiting requests in one batch, if the requests agree in everything but prompt, "
        "seed and number (default: 8 on an NVIDIA GPU, else 1)",
    )
    parser.add_argument(
        "--gather-ms",
        type=milliseconds,
        default=0.0,
        metavar="MS",
        help="let a request wait this long for others to share its batch (default: 0, only those that wait anyway)",
    )
    add_cluster_options(parser)
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser


def add_api_arguments(parser: Parser) -> None:
    parser.add_argument("--no-api", action="store_true", help="the page without the API for other programs")
    parser.add_argument("--no-page", action="store_true", help="the API for other programs without the page")
    parser.add_argument(
        "--api-key", metavar="KEY", help=f"what the API asks for; default: the login (or set {KEY_VARIABLE})"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        type=host,
        metavar="NAME",
        help="another name at which a client reaches this computer, for example host.docker.internal",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        type=origin,
        metavar="URL",
        help="another site whose pages may call the API, for example http://localhost:3000",
    )


def pictures(text: str) -> int:
    value = whole(text)
    if not 1 <= value <= LARGEST_BATCH:
        raise ArgumentTypeError(f"{value} is not a number of pictures from 1 to {LARGEST_BATCH}")
    return value


def milliseconds(text: str) -> float:
    value = number(text)
    if not 0 <= value <= LONGEST_WAIT_MS:
        raise ArgumentTypeError(f"{quoted(text)} is not a wait from 0 to {LONGEST_WAIT_MS} milliseconds")
    return value


def read_arguments(parser: Parser, argv: Sequence[str]) -> Namespace:
    """Parses the arguments and adds defaults. Raises OptionsError."""
    given, words = parser.given(argv)
    if words:
        parser.error(f"{quoted(words[0])} is one word too many: run.sh takes only options")
    if given["no_page"] and (given["no_api"] or given["open"]):
        parser.error(f"--no-page leaves nothing to {'serve beside --no-api' if given['no_api'] else '--open'}")
    return Namespace(**given)


def read_login(arguments: Namespace) -> tuple[str, str] | None:
    """Returns the login. Raises OptionsError like `read_auth`; the API alone may have a key instead."""
    has_key = arguments.no_page and read_api_key(arguments) is not None
    return read_auth(arguments.auth, None if has_key else arguments.listen)


def read_auth(text: str | None, listen: str | None) -> tuple[str, str] | None:
    """Returns the login. Raises OptionsError if other computers could connect without one."""
    text = text or os.environ.get(AUTH_VARIABLE)
    if not text:
        if listen and listen not in (LOCAL, "localhost", "::1"):
            raise OptionsError(
                f"--listen lets other computers use this one: add --auth NAME:PASSWORD (or set {AUTH_VARIABLE}). "
                "With --no-page, --api-key KEY is enough."
            )
        return None
    name, _, password = text.partition(":")
    if not name or not password:
        raise OptionsError("--auth: write it as NAME:PASSWORD, with neither part empty.")
    return name, password


def read_api_key(arguments: Namespace) -> str | None:
    return arguments.api_key or os.environ.get(KEY_VARIABLE) or None


def host(text: str) -> str:
    """Reads the name of a host, without a port. Raises OptionsError."""
    if re.fullmatch(r"[\w.-]+", text) is None:
        raise OptionsError(
            f"--allow-host {quoted(text)}: write it like host.docker.internal, without http:// and port."
        )
    return text


def origin(text: str) -> str:
    """Reads the address of a site, without a path, as browsers send it. Raises OptionsError."""
    found = re.fullmatch(r"https?://[^/\s@?#]+", text.rstrip("/").lower())
    if found is None:
        raise OptionsError(f"--allow-origin {quoted(text)}: write it like http://localhost:3000, without a path.")
    return found[0]


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
