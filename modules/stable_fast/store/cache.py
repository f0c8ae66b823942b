"""The cache folder, which outlives the process: atomic file replacement, and fused graphs saved as JSON.

Later runs read the graph instead of tracing. That saves the trace and, since torch.export imports half of PyTorch,
seconds of imports. A graph is reused only for the same module (classes, plain attributes, parameters), form of call,
passes, sources and PyTorch. A module that cannot be described in this way is traced each time.

The program works without the cache: a damaged file counts as missing, and a folder that is not writable causes one
line in the log.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import nn

from modules.core.files import sweep_hidden, write_whole
from modules.core.paths import PROJECT_ROOT
from modules.stable_fast.changes.fingerprint import ForwardFront
from modules.stable_fast.graph.flatten import flatten_constants, flatten_dims, flatten_inputs
from modules.stable_fast.graph.serialize import Fused, NotKept, decode_graph, encode_graph

log = logging.getLogger(__name__)

CACHE_VARIABLE = "LIGHTDIFFUSION_CACHE"
# Errors from a damaged, hostile or foreign saved graph when it is read, staged or first run.
BROKEN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    AssertionError,
    ArithmeticError,
    SyntaxError,
    MemoryError,
)
MAX_GRAPHS = 64  # on disk, half a megabyte each
MAX_BYTES = 64 << 20  # per file; none of our files is larger


def cache_folder() -> Path:
    """LIGHTDIFFUSION_CACHE, else lightdiffusion under XDG_CACHE_HOME, else under ~/.cache.

    For a user without a home, it is in the program's folder, where nobody else can put files either.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen))
    try:
        caches = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"))
    except RuntimeError:  # neither HOME nor an entry in the user database, as in some containers
        caches = PROJECT_ROOT / ".cache"
    return caches / "lightdiffusion"


def make_folder(folder: Path) -> None:
    """Raises OSError for a ~ without a home, which would create a folder named ~ in the current directory."""
    if str(folder).startswith("~"):
        raise OSError(f"no home folder is known for {folder.parts[0]}")
    folder.mkdir(parents=True, exist_ok=True)


def why_unwritable(folder: Path) -> str:
    """Tries to write to a folder. Returns why this is not possible, or an empty string."""
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


@contextmanager
def told_once() -> Iterator[None]:
    """For writing the cache. If that fails, the program continues without the cache and logs this."""
    try:
        yield
    except OSError as error:
        _tell(cache_folder(), error.strerror or str(error))


@functools.cache  # one line, no matter how many files fail
def _tell(folder: Path, reason: str) -> None:
    log.warning(
        "The cache folder %s cannot be written (%s), so each start compiles anew: name another one in %s.",
        folder, reason, CACHE_VARIABLE,
    )  # fmt: skip


def replace_file(path: Path, text: str) -> None:
    """Replaces the file in one step, so that readers never see half a file."""
    make_folder(path.parent)
    sweep_hidden(path.parent)
    write_whole(path, text.encode())


def graph_path(
    module: nn.Module,
    example: Mapping[str, Any],
    dims: Mapping[str, Any],
    bindings: Mapping[str, str],
    passes: Sequence[str],
) -> Path | None:
    """Where the fused graph of this call is saved; None if the module cannot be distinguished from others."""
    try:
        facts = [torch.__version__, _module_facts(module), _call_facts(example, dims), dict(bindings), passes]
    except NotKept as reason:
        log.debug("%s is traced at each start: %s", type(module).__name__, reason)
        return None
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    return cache_folder() / "graphs" / f"{type(module).__name__}-{digest[:32]}.json"


def _module_facts(module: nn.Module) -> list[Any]:
    parts = [
        (name, _name_of(type(part)), _describe(type(part).forward), _attributes(part))
        for name, part in module.named_modules()
    ]
    tensors = [
        (name, tuple(tensor.shape), tensor.stride(), str(tensor.dtype), str(tensor.device))
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    ]
    classes = {cls for part in module.modules() for cls in type(part).__mro__}
    packages = {cls.__module__.partition(".")[0] for cls in classes} - {"torch", "builtins", "typing", "abc"}
    own = __name__.partition(".")[0]
    return [parts, tensors, *(source_version(package) for package in sorted(packages | {own}))]


def _attributes(part: nn.Module) -> list[tuple[str, str]]:
    """The part's own attributes, including private ones, since all of them may affect its results."""
    if vars(part)["_forward_hooks"] or vars(part)["_forward_pre_hooks"]:
        raise NotKept("it has hooks")
    plain = {name: value for name, value in vars(part).items() if name not in vars(nn.Module()) or name == "training"}
    return sorted((name, _describe(item)) for name, item in plain.items() if not isinstance(item, ForwardFront))


def _describe(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_describe(item) for item in value)}]"
    if isinstance(value, Mapping):
        return _describe([(str(name), item) for name, item in value.items()])
    if is_dataclass(value) and not isinstance(value, type):
        return f"{_name_of(type(value))}{_describe({item.name: getattr(value, item.name) for item in fields(value)})}"
    if isinstance(value, (type, FunctionType)) and value.__module__ and "<" not in value.__qualname__:
        return f"{_name_of(value)} {source_version(value.__module__.partition('.')[0])}"
    if isinstance(value, (set, frozenset)):
        return _describe(sorted(_describe(item) for item in value))
    if isinstance(vars(type(value)).get("__call__"), FunctionType) and hasattr(value, "__dict__"):
        return f"{_describe(type(value))}{_describe(vars(value))}"  # such as an attention processor of diffusers
    raise NotKept(f"it holds a {type(value).__name__}")


def _name_of(item: Any) -> str:
    return f"{item.__module__}.{item.__qualname__}"


@functools.cache
def source_version(package: str) -> str:
    """A hash of our own sources, or the version of any other package."""
    if package != __name__.partition(".")[0]:
        try:
            distribution = importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise NotKept(f"{package} has no version") from error
        if '"editable": true' in (distribution.read_text("direct_url.json") or ""):
            raise NotKept(f"{package} is installed to be edited")
        return f"{package} {distribution.version}"
    root = PROJECT_ROOT / "modules"
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _call_facts(example: Mapping[str, Any], dims: Mapping[str, Any]) -> list[Any]:
    named = flatten_dims(dims)
    tensors: list[Any] = []
    for name, tensor in flatten_inputs(example).items():
        symbols = (*named.get(name, ()), *[None] * tensor.dim())
        shape = [symbol or size for symbol, size in zip(symbols, tensor.shape, strict=False)]
        tensors.append((name, shape, str(tensor.dtype), str(tensor.device)))
    others = [(name, _describe(value)) for name, value in flatten_constants(example).items()]
    return [tensors, others]


def read_graph(path: Path) -> Fused | None:
    """The saved graph, or None if there is none. An unusable file is deleted, so that the graph is made again."""
    try:
        if not path.exists() and not path.is_symlink():
            return None
        return decode_graph(json.loads(unsealed(read_file(path), path.stem)))
    except BROKEN as error:
        discard(path, error)
        return None


def read_file(path: Path) -> str:
    """The text of a regular file. Raises OSError, or ValueError for a pipe, a device, or a file that is too large."""
    if not path.is_file():
        if path.exists() or path.is_symlink():
            raise ValueError("it is not a regular file")
        raise FileNotFoundError(path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError("it is too large")
    return path.read_text(encoding="utf-8")


def discard(path: Path, error: Exception) -> None:
    """Deletes a saved graph that failed, or whatever is in its place, and logs this."""
    log.info("The graph in %s cannot be used (%s: %s) and is made again", path, type(error).__name__, error)
    with suppress(OSError):
        path.with_suffix(".sizes").unlink(missing_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_graph(path: Path, fused: Fused) -> None:
    try:
        text = json.dumps(encode_graph(fused))
    except NotKept as reason:
        log.debug("A graph is not kept on disk: %s", reason)
        return
    with told_once():
        path.with_suffix(".sizes").unlink(missing_ok=True)
        replace_file(path, sealed(text, path.stem))
        _drop_oldest(path.parent)


def sealed(text: str, name: str) -> str:
    """A line of text, then a line with a checksum of the text and the file's name, which identifies the network.

    A graph with one wrong digit, or from another network, would run and give wrong results.
    """
    return f"{text}\n{hashlib.sha256(f'{name} {text}'.encode()).hexdigest()}"


def unsealed(content: str, name: str) -> str:
    """The text that was sealed under this name. Raises ValueError for anything else."""
    text = content.partition("\n")[0]
    if sealed(text, name) != content:
        raise ValueError("the checksum is wrong")
    return text


def _drop_oldest(folder: Path) -> None:
    """Keeps only the latest graphs, since graphs from older versions of the program are never used again."""
    with suppress(FileNotFoundError):  # another process may drop them too
        graphs = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in graphs[MAX_GRAPHS:]:
            old.unlink(missing_ok=True)
            old.with_suffix(".sizes").unlink(missing_ok=True)


class VerifiedSizes:
    """The sizes at which the stages of a saved graph were verified, so that later runs need not verify them again.

    Verification runs shape functions of PyTorch that are written in Python and import as much as tracing does.
    """

    def __init__(self, graph: Path | None) -> None:
        self._path = graph.with_suffix(".sizes") if graph else None
        self._keys: set[str] = set()
        if self._path is None:
            return
        with suppress(OSError, ValueError):  # missing, owned by another user, or damaged
            self._keys = set(read_file(self._path).splitlines())

    def __contains__(self, key: object) -> bool:
        return repr(key) in self._keys

    def add(self, key: object) -> None:
        self._keys.add(repr(key))
        if self._path is None:
            return
        with told_once():
            replace_file(self._path, "\n".join(sorted(self._keys)))
