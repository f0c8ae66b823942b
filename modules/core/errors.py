"""Errors for people: one sentence that names the cause and the remedy, and the exit code the command line ends with."""

LONGEST_QUOTE = 200  # characters of what was given that a message repeats
LARGEST_SHOWN = 10**40  # Python itself refuses to write out numbers of more than 4300 digits


class LightDiffusionError(Exception):
    """Base of every error a user can cause; the message is shown as it is, without a traceback.

    The message is always one printable line, whatever a file or an argument put into it.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


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
    """The user asked to stop; whoever tells it knows which finished pictures are kept."""

    exit_code = 130


def bug_text(error: BaseException) -> str:
    """What people read of an error that is none of the above, and so a bug; the rest belongs into a log."""
    first_line = next(iter(str(error).splitlines()), "")[:LONGEST_QUOTE]
    kind = type(error).__name__
    return f"An error inside the program stopped this ({f'{kind}: {first_line}' if first_line else kind})."


def printable(text: str) -> str:
    """The text in one line: line ends become spaces, other control characters and lone surrogates become escapes."""
    if text.isprintable():
        return text
    line = " ".join(text.splitlines())
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)


def quoted(value: object) -> str:
    """What was given, as a message repeats it: in double quotes, printable, at most 200 characters of it."""
    return f'"{shortened(value)}"'


def shortened(value: object) -> str:
    """The same without the quotes, for numbers."""
    if isinstance(value, int) and abs(value) > LARGEST_SHOWN:
        return "of very many digits"
    text = str(value)
    return printable(text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 1]}…")
