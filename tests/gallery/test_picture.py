"""A finished picture becomes a PNG with all its texts, and an encoded one stays as it is."""

from __future__ import annotations

import io

from PIL import Image

from modules.gallery.picture import Picture
from modules.images.metadata import texts_of


def test_all_texts_are_in_the_file() -> None:
    texts = {"Title": "été 夏", "workflow": "{}"}
    picture = Picture(
        image=Image.new("RGB", (8, 8), "navy"), seed=3, request_seed=None, parameters="a cat\nSteps: 1", texts=texts
    )
    encoded = picture.encoded()
    with Image.open(io.BytesIO(encoded.png)) as image:
        assert texts_of(image) == {**texts, "parameters": "a cat\nSteps: 1"}
        assert image.convert("RGB").getpixel((0, 0)) == (0, 0, 128)
    assert encoded.encoded() is encoded and (encoded.seed, encoded.request_seed) == (3, None)
