"""Errors for people: one sentence that names the cause and the remedy, and the exit code the command line ends with."""


class LightDiffusionError(Exception):
    """Base of every error a user can cause; the message is shown as it is, without a traceback."""

    exit_code = 1


class OptionsError(LightDiffusionError):
    """A request that cannot be carried out as written (size, steps, an unknown name)."""

    exit_code = 2


class ModelFileError(LightDiffusionError):
    """A model file that is missing, damaged, unsafe or of a kind we do not support."""

    exit_code = 3


class OutputError(LightDiffusionError):
    """A picture that could not be written."""

    exit_code = 4


class OutOfMemoryError(LightDiffusionError):
    """The device has not enough memory for the request."""

    exit_code = 5


class DeviceError(LightDiffusionError):
    """The GPU faulted; nothing runs on it any more in this process."""

    exit_code = 6


class Cancelled(LightDiffusionError):
    """The user asked to stop; pictures already finished are kept."""

    exit_code = 130


def bug_text(error: BaseException) -> str:
    """What people read of an error that is none of the above, and so a bug; the rest belongs into a log."""
    first_line = next(iter(str(error).splitlines()), "")
    kind = type(error).__name__
    return f"An error inside the program stopped this ({f'{kind}: {first_line}' if first_line else kind})."
