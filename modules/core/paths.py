"""Locates model files in one folder per kind under models/, plus the folders listed in model_folders.toml."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias

from modules.core.errors import LONGEST_QUOTE, ModelFileError, OptionsError, quoted
from modules.core.typed import Unreadable, is_utf8, readable_path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

log = logging.getLogger(__name__)

SUFFIXES: dict[str, tuple[str, ...]] = {
    "checkpoints": (".safetensors", ".ckpt", ".pt", ".pth", ".bin"),
    "vae": (".safetensors", ".ckpt", ".pt", ".pth", ".bin"),
    "text_encoders": (".safetensors", ".ckpt", ".pt", ".pth", ".bin"),
    "loras": (".safetensors", ".pt", ".ckpt", ".bin"),
    "embeddings": (".safetensors", ".pt", ".bin"),
    "controlnet": (".safetensors", ".pth", ".pt", ".ckpt", ".bin"),
    "upscalers": (".safetensors", ".pth", ".pt"),
    "wildcards": (".txt",),
}
KINDS = tuple(SUFFIXES)
ALL_SUFFIXES = tuple({suffix for suffixes in SUFFIXES.values() for suffix in suffixes})
SINGULAR = {
    "checkpoints": "checkpoint",
    "vae": "VAE",
    "text_encoders": "text encoder",
    "loras": "LoRA",
    "embeddings": "embedding",
    "controlnet": "ControlNet",
    "upscalers": "upscaler",
    "wildcards": "wildcard",
}
# A folder containing one of these files is a single model (diffusers layout), so its files are not listed separately.
FOLDER_MARKERS = {
    "checkpoints": ("model_index.json",),
    "vae": ("config.json",),
    "text_encoders": ("config.json",),
    "controlnet": ("config.json",),
}
CONFIG_NAME = "model_folders.toml"
LARGEST_CONFIG = 1 << 20  # bytes
MOST_FOLDERS = 20_000  # limit on the search below one folder; a whole disk has more
PROJECT_ROOT = Path(__file__).resolve().parents[2]
# The class has a method called `list`, so annotations inside the class use these names instead.
_Paths: TypeAlias = list[Path]
_Names: TypeAlias = list[str]


class ModelFolders:
    """Finds model files by kind and name; `root` is the project folder, `config` a TOML file with extra folders.

    With `names_only`, paths are rejected: for front ends whose users must not read arbitrary files on this computer.
    """

    def __init__(self, root: Path | None = None, config: Path | None = None, *, names_only: bool = False) -> None:
        self.root = Path(root) if root is not None else PROJECT_ROOT
        self.names_only = names_only
        self._left_out: set[str] = set()  # names already warned about
        self._extra = _read_config(
            config if config is not None else self.root / CONFIG_NAME, required=config is not None
        )

    def folders(self, kind: str) -> _Paths:
        """Lists the folders searched for this kind, starting with our own."""
        _check_kind(kind)
        return [self.root / "models" / kind, *self._extra.get(kind, [])]

    def list(self, kind: str) -> _Names:
        """Lists all models of this kind without duplicates, as paths relative to their folder."""
        return [*self.paths(kind)]

    def paths(self, kind: str) -> dict[str, Path]:
        """Returns the file of each listed name, in the order of the list; of two, that in the earlier folder."""
        found: dict[str, Path] = {}
        for folder in reversed(self.folders(kind)):
            found |= {name: folder / name for name in self._names(folder, kind)}
        return dict(sorted(found.items(), key=lambda item: (item[0].casefold(), item[0])))

    def find(self, kind: str, name_or_path: str | os.PathLike[str]) -> Path:
        """Finds the file (or diffusers folder) for a listed name, with or without its extension, or for a path."""
        wanted = os.fspath(name_or_path).strip()
        by_path = None if self.names_only else self._by_path(wanted)
        found = self._by_exact_name(kind, wanted) or by_path or self._by_short_name(kind, wanted)
        if found is None:
            raise ModelFileError(self._not_found(kind, wanted))
        return found

    def lasting_name(self, kind: str, name_or_path: str) -> str:
        """Returns a name that refers to the same file from any working directory.

        A name stays unchanged. A path becomes the file's name in our folders, or the bare file name outside of them.
        """
        path = self._given_as_path(kind, name_or_path)
        return name_or_path if path is None else self._own_name(kind, path) or path.name

    def outside(self, kind: str, name_or_path: str) -> Path | None:
        """Returns the file if it was given as a path outside our folders."""
        path = self._given_as_path(kind, name_or_path)
        return path if path is not None and self._own_name(kind, path) is None else None

    def _given_as_path(self, kind: str, name_or_path: str) -> Path | None:
        wanted = name_or_path.strip()
        return None if self._by_exact_name(kind, wanted) else self._by_path(wanted)

    def _own_name(self, kind: str, path: Path) -> str | None:
        for folder in self.folders(kind):
            if path.is_relative_to(folder.resolve()):
                name = path.relative_to(folder.resolve()).as_posix()
                if self._by_exact_name(kind, name) == folder / name:
                    return name
        return None

    def _by_exact_name(self, kind: str, wanted: str) -> Path | None:
        return next((folder / wanted for folder in self.folders(kind) if wanted in self._names(folder, kind)), None)

    def _names(self, folder: Path, kind: str) -> _Names:
        """Drops names that are not UTF-8, since they cannot be stored in a web page or a picture's text."""
        names = _scan(folder, kind)
        strange = {name for name in names if not is_utf8(name)}
        for name in strange - self._left_out:
            log.warning("%s in %s is left out: its name is not UTF-8 text; rename it.", quoted(name), folder)
        self._left_out |= strange
        return [name for name in names if name not in strange]

    @staticmethod
    def _by_path(wanted: str) -> Path | None:
        try:
            path = readable_path(wanted, "path")
            # A bare word is a name; only a word that looks like a path or model file may refer to the current folder.
            looks_like_path = path.parent != Path(".") or path.suffix != "" or path.is_absolute()
            return path.resolve() if wanted and looks_like_path and path.exists() else None
        except (Unreadable, OSError):  # an unknown user, or a path too long for the system
            return None

    def _by_short_name(self, kind: str, wanted: str) -> Path | None:
        """Matches names, ignoring case, extension and sub-folder; several matches raise an error that lists them."""
        for short in (_fold, _stem, _base):
            matches = [name for name in self.list(kind) if short(name) == short(wanted)]
            if len(matches) > 1:
                listed = ", ".join(f'"{name}"' for name in matches)
                raise ModelFileError(
                    f"{quoted(wanted)} fits several {SINGULAR[kind]} files ({listed}); give the full name."
                )
            if matches:
                return self._by_exact_name(kind, matches[0])
        return None

    def _not_found(self, kind: str, wanted: str) -> str:
        names, noun, home = self.list(kind), SINGULAR[kind], self.folders(kind)[0]
        if not names:
            return (
                f"{_article(noun)} named {quoted(wanted)} was not found: there is none in {home}; put the file there."
            )
        nearest = difflib.get_close_matches(_stem(wanted), [_stem(name) for name in names], n=3, cutoff=0.4)
        shown = [name for name in names if _stem(name) in nearest][:3] or names[:5]
        listed = ", ".join(f'"{name}"' for name in shown)
        label = "nearest" if nearest else "available"
        return f"No {noun} named {quoted(wanted)} in {home}; {label}: {listed}."


def _article(noun: str) -> str:
    return f"An {noun}" if noun[0] in "aeiou" else f"A {noun}"


def _check_kind(kind: str) -> None:
    if kind not in SUFFIXES:
        raise OptionsError(f"Unknown kind of model {quoted(kind)}; choose one of {', '.join(KINDS)}.")


def _fold(name: str) -> str:
    return name.replace("\\", "/").casefold()


def _stem(name: str) -> str:
    folded = _fold(name)
    return next((folded[: -len(end)] for end in ALL_SUFFIXES if folded.endswith(end)), folded)


def _base(name: str) -> str:
    return _stem(name).rsplit("/", 1)[-1]


_scans: ContextVar[dict[tuple[Path, str], list[str]] | None] = ContextVar("scans", default=None)


@contextmanager
def each_folder_once() -> Generator[None]:
    """Inside the block or the decorated function, this thread lists each folder once: there may be many files."""
    token = _scans.set({})
    try:
        yield
    finally:
        _scans.reset(token)


def _scan(folder: Path, kind: str) -> list[str]:
    known = _scans.get()
    if known is None:
        return _names_under(folder, kind)
    if (folder, kind) not in known:
        known[folder, kind] = _names_under(folder, kind)
    return known[folder, kind]


def _names_under(folder: Path, kind: str) -> list[str]:
    """Lists the names under one folder, including sub-folders; skips hidden folders."""
    names: list[str] = []
    markers = FOLDER_MARKERS.get(kind, ())
    visited: set[str] = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        here = Path(current)
        if (real := os.path.realpath(current)) in visited:  # a link back to a parent would cause endless recursion
            folders.clear()
            continue
        visited.add(real)
        if len(visited) > MOST_FOLDERS:
            raise OptionsError(f"{folder} holds more than {MOST_FOLDERS} folders: give the one with the models.")
        if here != folder and any(marker in files for marker in markers):
            names.append(here.relative_to(folder).as_posix())
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        kept = (name for name in files if name.lower().endswith(SUFFIXES[kind]) and not name.startswith("."))
        names.extend((here / name).relative_to(folder).as_posix() for name in kept)
    return names


def _read_config(path: Path, *, required: bool) -> dict[str, list[Path]]:
    """Reads the extra folders per kind from a TOML file (`loras = ["~/sd/loras"]`), relative to that file's folder."""
    try:
        if path.exists() and not path.is_file():
            raise OptionsError(f"The folder list {path} is not a regular file.")
        with path.open("rb") as file:
            data = file.read(LARGEST_CONFIG + 1)
        if len(data) > LARGEST_CONFIG:
            raise OptionsError(f"The folder list {path} is over {LARGEST_CONFIG >> 20} MB large; shorten it.")
        text = data.decode()
    except FileNotFoundError as error:
        if required:
            raise OptionsError(f"The folder list {path} does not exist; check its name.") from error
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"The folder list {path} cannot be read ({error}).") from error
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise OptionsError(f"The folder list {path} is nested too deeply.") from error
    except ValueError as error:  # TOMLDecodeError, or an integer with thousands of digits
        raise OptionsError(f"The folder list {path} is not valid TOML: {str(error)[:LONGEST_QUOTE]}.") from error
    return {kind: _config_folders(path, kind, value) for kind, value in table.items()}


def _config_folders(path: Path, kind: str, value: object) -> list[Path]:
    if kind not in SUFFIXES:
        raise OptionsError(f"{path} names the unknown kind {quoted(kind)}; the kinds are {', '.join(KINDS)}.")
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise OptionsError(f'{path}: "{kind}" must be a folder or a list of folders, each in quotes.')
    try:
        return [path.parent / readable_path(entry, kind) for entry in entries]
    except Unreadable as error:
        raise OptionsError(f"{path}: {error}.") from error
