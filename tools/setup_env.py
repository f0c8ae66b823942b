"""Creates .venv and installs requirements once, even if two set-ups run at once; uses only the standard library."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMPS = VENV / ".installed"
CACHE = ROOT / ".cache"
LOG = CACHE / "setup.log"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
SUPPORTED = ((3, 10), (3, 13))
CUDA_INDEX = "https://download.pytorch.org/whl/{}"
CUDA_13_DRIVER = 580  # the first driver that runs CUDA 13 (CUDA release notes, table of drivers)
SHOWN = ("Collecting ", "Downloading ", "Installing collected packages")


class SetupError(Exception):
    """Prints one sentence for the user."""


def main(names: list[str]) -> int:
    # Killing this process must also end pip, so that the lock and the folder are free for the next try.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        CACHE.mkdir(exist_ok=True)
        with lock(CACHE / "setup.lock") as held:
            if not all(installed(name) for name in names):
                make_venv()
                install(names, held)
    except SetupError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"Set-up failed in {ROOT} ({error}); check the free space and your write permission.")
        return 1
    except KeyboardInterrupt:
        say("Set-up interrupted; the next start resumes it.")
        return 130
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def installed(name: str) -> bool:
    stamp = STAMPS / name
    return PYTHON.exists() and stamp.exists() and stamp.read_bytes() == (ROOT / name).read_bytes()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[IO[str]]:
    """Locks out other set-ups; the system releases the lock however the process ends."""
    with open(path, "a+") as file:
        if not try_lock(file):
            say("Another set-up of this folder is running; waiting for it...")
            while not try_lock(file):
                time.sleep(0.5)
        yield file


def try_lock(file: IO[str]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def make_venv() -> None:
    """Keeps a usable .venv, and recreates one that an interrupted run left incomplete."""
    if (VENV / "pyvenv.cfg").exists() and runs([str(PYTHON), "-m", "pip", "--version"]):
        check_version()
        return
    say("Setting up: creating .venv (first start only)")
    shutil.rmtree(STAMPS, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True)
    if made.returncode:
        LOG.write_text(made.stdout + made.stderr, encoding="utf-8")
        hint = " (Debian, Ubuntu: the package python3-venv)" if sys.platform == "linux" else ""
        raise SetupError(f"{sys.executable} could not create .venv; install its venv module{hint}. Details: {LOG}")


def check_version() -> None:
    code = "import sys; print(*sys.version_info[:2])"
    found = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True).stdout.split()
    version = (int(found[0]), int(found[1]))
    if not SUPPORTED[0] <= version <= SUPPORTED[1]:
        raise SetupError(
            f".venv has Python {found[0]}.{found[1]}, but 3.10 to 3.13 is needed; delete {VENV} and retry."
        )


def runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def install(names: list[str], held: IO[str]) -> None:
    for name in names:
        (STAMPS / name).unlink(missing_ok=True)
    say(f"Setting up: installing {' and '.join(names)} (once; a few minutes and up to 6 GB with CUDA)")
    start = time.monotonic()
    with open(LOG, "w", encoding="utf-8") as log:
        index, kernels = torch_source()
        if index:
            pip([requirement("requirements.txt", "torch"), "--index-url", index], log, held)
        files = [part for name in names for part in ("-r", str(ROOT / name))]
        pip([*files, *([requirement("requirements-extra.txt", "triton-windows")] if kernels else [])], log, held)
    STAMPS.mkdir(exist_ok=True)
    for name in names:
        write_stamp(name)
    say(f"Setting up: done in {time.monotonic() - start:.0f} s")


def torch_source() -> tuple[str | None, bool]:
    """Returns the index that has the right torch (None: the usual one), and whether Triton must be installed besides.

    For Windows, the usual index has builds for CPUs only, and Triton is a package of its own.
    """
    chosen = os.environ.get("TORCH_INDEX_URL")
    driver = nvidia_driver() if sys.platform == "win32" else None
    if driver is None:
        return chosen, False
    return chosen or CUDA_INDEX.format("cu130" if driver >= CUDA_13_DRIVER else "cu126"), True


def nvidia_driver() -> int | None:
    """Returns the major version of the NVIDIA driver, or None without a GPU or a working driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    major = said.strip().partition(".")[0]
    return int(major) if major.isdecimal() else None


def requirement(file: str, package: str) -> str:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return next(line.partition("#")[0].partition(";")[0].strip() for line in lines if line.startswith(package))


def write_stamp(name: str) -> None:
    half = STAMPS / f"{name}.tmp"
    half.write_bytes((ROOT / name).read_bytes())
    half.replace(STAMPS / name)


def pip(arguments: list[str], log: IO[str], held: IO[str]) -> None:
    command = [str(PYTHON), "-m", "pip", "install", "--progress-bar", "off", "--no-input", *arguments]
    # pip inherits the lock: if this process is killed, no second set-up starts while pip still runs.
    inherited = {} if os.name == "nt" else {"pass_fds": (held.fileno(),)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **inherited
    )
    assert process.stdout is not None
    try:
        lines = list(follow(process.stdout, log))
        code = process.wait()
    except BaseException:  # interrupted or killed: end pip too (it may already be ending)
        process.terminate()
        process.wait()
        raise
    if code:
        say("\n".join(lines[-15:]))
        raise SetupError(f"pip could not install the requirements (last lines above, all of them in {LOG}); retry.")


def follow(output: IO[str], log: IO[str]) -> Iterator[str]:
    """Logs every line; on a terminal, also shows pip's current work on one line that is overwritten."""
    terminal = sys.stderr.isatty()
    for line in output:
        log.write(line)
        yield line.rstrip()
        if terminal and line.strip().startswith(SHOWN):
            print(f"\r\033[K  {line.strip()[:70]}", end="", file=sys.stderr, flush=True)
    if terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
