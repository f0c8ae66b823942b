"""The output folder: saves finished pictures and remembers the last seed."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from modules.core.errors import OptionsError, OutputError
from modules.core.files import replace_soon, sweep_hidden
from modules.core.paths import PROJECT_ROOT
from modules.core.typed import Unreadable, parse_json_object, whole
from modules.gallery.picture import EncodedPicture

if TYPE_CHECKING:
    from modules.gallery.picture import Picture

log = logging.getLogger(__name__)

LAST_SEED = "last_seed.json"
DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"  # the pattern for the names of its subfolders


class OutputFolder:
    """A folder of pictures: by default, `output/` in the project."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else PROJECT_ROOT / "output"

    def check_writable(self) -> None:
        """Raises OutputError now rather than after minutes of work; deletes hidden files left by killed runs."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for folder in (self.folder, *self.folder.glob(DAY)):
                sweep_hidden(folder)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise OutputError(
                f"Pictures cannot be written to {self.folder} ({error.strerror or error}); "
                "choose another folder with --output-dir."
            ) from error

    def save(self, picture: Picture | EncodedPicture) -> Path:
        """Writes the picture with its metadata and remembers the request's seed, if it has one. Raises OutputError."""
        from modules.images.save import save_encoded, save_png  # not needed to start a front end

        if isinstance(picture, EncodedPicture):
            path = save_encoded(picture.png, self.folder, picture.seed)
        else:
            path = save_png(picture.image, self.folder, picture.seed, picture.parameters, picture.texts)
        if picture.request_seed is not None:
            self._note_seed(picture.request_seed)
        return path

    def _note_seed(self, seed: int) -> None:
        """Remembers the seed. A failure is only a warning, because the picture itself is already saved."""
        try:
            replace_soon(self.folder / LAST_SEED, json.dumps({"seed": seed}).encode())
        except OSError as error:
            reason = error.strerror or str(error)
            log.warning("The seed could not be noted in %s (%s): --reuse-seed will not know it.", self.folder, reason)

    def last_seed(self) -> int:
        """Returns the seed of the last request, for --reuse-seed. Raises OptionsError if it is unknown."""
        try:
            return whole(parse_json_object((self.folder / LAST_SEED).read_bytes()).get("seed"), "seed")
        except FileNotFoundError as error:
            raise OptionsError(
                f"There is no earlier picture in {self.folder}, so no seed to reuse; give one with --seed."
            ) from error
        except (OSError, Unreadable) as error:
            raise OptionsError(
                f"The last seed in {self.folder / LAST_SEED} is unreadable; give one with --seed."
            ) from error
