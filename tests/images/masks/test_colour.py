"""A mask by colour: white is what lies within the tolerance, in every channel."""

from __future__ import annotations

import numpy as np
from PIL import Image

from modules.images.masks.colour import mask_of_colour


def test_white_is_what_is_near_the_colour() -> None:
    ramp = Image.new("RGB", (256, 2))
    ramp.putdata([(value, 40, 250) for value in range(256)] * 2)
    row = np.asarray(mask_of_colour(ramp, (100, 40, 250), 10))[0]
    assert (np.flatnonzero(row) == np.arange(90, 111)).all() and set(row) == {0, 255}
    assert np.asarray(mask_of_colour(ramp, (100, 60, 250), 10)).max() == 0, "one channel is too far off"
    assert np.asarray(mask_of_colour(ramp, (0, 0, 0), 255)).min() == 255
