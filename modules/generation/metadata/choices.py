"""Reads LoRAs, ControlNets, HiresFix, tiles and the start picture from a recipe's fields, and finds their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modules.core.errors import quoted
from modules.core.paths import ModelFolders
from modules.core.typed import Unreadable
from modules.generation.metadata import inpaint
from modules.generation.metadata.fields import Fields
from modules.generation.metadata.hires import MARKS, second_pass, tiled_upscale
from modules.generation.metadata.named_files import Fingerprints, find_picture
from modules.generation.metadata.packed import Choice, unpack
from modules.generation.metadata.problems import Problem
from modules.generation.metadata.settings import read_each
from modules.generation.option_table import TILED_OPTIONS
from modules.generation.options import ControlChoice, HiresOptions, InitImage, LoraChoice, TiledOptions
from modules.images.methods import OWN_METHODS

UNKNOWN_PICTURE = Path("the picture it was made from")  # other programs do not record its name
FROM_PICTURE = ("Init image", "Init image hash", "Init image size")
MOST_ENTRIES = 64


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A model file named in the picture's metadata; `option` is the option that replaces it."""

    kind: str
    name: str
    option: str
    hash: str | None = None


@dataclass(kw_only=True)
class Choices:
    """Reads the choices one by one; options in `given` replace the picture's own.

    It records the models in use, the pictures missing from `places` (each with its option), the unusable values, and
    the omitted settings.
    """

    fields: Fields
    given: Mapping[str, Any]
    folders: ModelFolders
    places: Sequence[Path]
    known: Fingerprints = field(default_factory=Fingerprints)
    models: list[NamedModel] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def loras(self) -> tuple[LoraChoice, ...]:
        if "lora" in self.given:
            return ()
        found = list(self._numbered(LoraChoice, "LoRA"))
        self.models += [NamedModel(kind="loras", name=c.name, option="lora", hash=h.get("name")) for c, h in found]
        return tuple(choice for choice, _ in found)

    def controls(self) -> tuple[ControlChoice, ...]:
        if "control_net" in self.given:
            return ()
        controls: list[ControlChoice] = []
        for choice, hashes in self._numbered(ControlChoice, "ControlNet"):
            name = NamedModel(kind="controlnet", name=choice.name, option="control_net", hash=hashes.get("name"))
            self.models.append(name)
            image = self._picture(choice.image, hashes.get("image"), "control_image")
            controls.append(replace(choice, image=image))
        return tuple(controls)

    def hires(self) -> HiresOptions | None:
        if self.given.get("hires_fix") is False:
            return None
        packed = self.fields.text("Hires fix")
        if packed is not None and packed.startswith("{"):
            choice, hashes = unpack(HiresOptions, packed)
            self._upscaler(choice.method, hashes.get("method"), "hires_method")
            return choice
        second = second_pass(self.fields, self.given, self.folders, self.problems)
        if second is None:
            return None
        self.left_out += second.left_out
        return second.options

    def tiled(self) -> TiledOptions | None:
        packed = self.fields.text("SD upscale")
        if packed is not None and packed.startswith("{"):
            choice, hashes = unpack(TiledOptions, packed)
            self._upscaler(choice.method, hashes.get("method"), TILED_OPTIONS["method"])
            return choice
        script = tiled_upscale(self.fields, self.given, self.folders, self.problems)
        if script is None:
            return None
        self.left_out += script.left_out
        return script.options

    def init(self) -> InitImage | None:
        packed = self.fields.text("Init image")
        if packed is None or not packed.startswith("{"):
            return self._foreign_init() if self._is_from_picture() else None
        choice, hashes = unpack(InitImage, packed)
        image = self._picture(choice.image, hashes.get("image"), "img2img")
        mask = choice.mask and self._picture(choice.mask, hashes.get("mask"), "mask")
        return replace(choice, image=image, mask=mask)

    def _upscaler(self, method: str, hash: str | None, option: str) -> None:
        """Records the upscaler's file, if it is one and no other is given."""
        if method not in OWN_METHODS and option not in self.given:
            self.models.append(NamedModel(kind="upscalers", name=method, option=option, hash=hash))

    def _is_from_picture(self) -> bool:
        """Distinguishes image to image from a second pass: A1111 writes `Denoising strength` for both.

        For a second pass, very old versions also wrote `First pass size`.
        """
        if any(name in self.fields for name in (*FROM_PICTURE, *inpaint.MARKS)):
            return True
        return "Denoising strength" in self.fields and not any(
            name in self.fields for name in (*MARKS, "Hires fix", "First pass size")
        )

    def _foreign_init(self) -> InitImage:
        readers = {"denoise": lambda fields: fields.number("Denoising strength"), **inpaint.READERS}
        masked = "mask" in self.given or "mask_colour" in self.given
        without_mask = "img2img" in self.given and not masked
        if "img2img" not in self.given:
            self.lacks.append("the picture that it was made from (give it with --img2img FILE)")
        if not masked and any(name in self.fields for name in inpaint.MARKS):
            self.left_out.append("the mask (give it with --mask FILE)")
        start = InitImage(image=self.given.get("img2img", UNKNOWN_PICTURE))

        def check(name: str, value: Any) -> None:
            replace(start, **{name: value})

        unread = {"mask_invert", "only_masked"} if without_mask else set[str]()
        values = read_each(readers, self.fields, {*self.given, *unread}, check, self.problems)
        return replace(start, **values)

    def _picture(self, named: Path, wanted: str | None, option: str) -> Path:
        """Returns the file, or just its name if it was not found or another file is given."""
        found = None if option in self.given else find_picture(named, wanted, self.places, self.known)
        if found is None and option not in self.given:
            self.lacks.append(f"{quoted(named.name)} (give it with --{option.replace('_', '-')} FILE)")
        return found or Path(named.name)

    def _numbered(self, kind: type[Choice], key: str) -> Iterator[tuple[Choice, dict[str, str]]]:
        """Yields our own entries `key 0`, `key 1`, ... (A1111's ControlNet entries are not JSON and omit the file)."""
        number = 0
        while (text := self.fields.text(f"{key} {number}") or "").startswith("{"):
            if number == MOST_ENTRIES:
                raise Unreadable(f"it names more than {MOST_ENTRIES} entries of the kind {key}")
            yield unpack(kind, text)
            number += 1
