"""User-facing errors: each has a one-sentence message with cause and remedy, and an exit code for the command line."""

LONGEST_QUOTE = 200  # characters of the user's input repeated in a message
LARGEST_SHOWN = 10**40  # Python refuses to print numbers of more than 4300 digits


class LightDiffusionError(Exception):
    """Base class of every error a user can cause; the message is shown as is, without a traceback.

    The message is always one printable line, even if it quotes odd characters from a file or an argument.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class OptionsError(LightDiffusionError):
    """An invalid request (size, steps, an unknown name)."""

    exit_code = 2


class ModelFileError(LightDiffusionError):
    """A model file that is missing, damaged, unsafe or unsupported."""

    exit_code = 3


class OutputError(LightDiffusionError):
    """A picture that could not be written."""

    exit_code = 4


class OutOfMemoryError(LightDiffusionError):
    """The device does not have enough memory for the request."""

    exit_code = 5


class DeviceError(LightDiffusionError):
    """The GPU faulted; this process can no longer use it."""

    exit_code = 6


class Cancelled(LightDiffusionError):
    """The user asked to stop; the caller that reports this error knows which finished pictures are kept."""

    exit_code = 130


class MakeAgain(LightDiffusionError):
    """A picture made together with others proved to be unusable. Made alone, its request succeeds or tells why not."""


def bug_text(error: BaseException) -> str:
    """Describes an unexpected error (a bug) in one readable line; the details belong in a log."""
    first_line = next(iter(str(error).splitlines()), "")[:LONGEST_QUOTE]
    kind = type(error).__name__
    return f"An error inside the program stopped this ({f'{kind}: {first_line}' if first_line else kind})."


def printable(text: str) -> str:
    """Puts text on one line: line breaks become spaces; other control characters and lone surrogates are escaped."""
    if text.isprintable():
        return text
    line = " ".join(text.splitlines())
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)


def quoted(value: object) -> str:
    """Quotes the user's input for a message: in double quotes, printable, at most 200 characters."""
    return f'"{shortened(value)}"'


def shortened(value: object) -> str:
    """Shortens a number for a message, like `quoted` but without quotes."""
    if isinstance(value, int) and abs(value) > LARGEST_SHOWN:
        return "of very many digits"
    text = str(value)
    return printable(text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 1]}…")
