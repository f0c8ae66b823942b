"""Returns the error message for a file that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.core.errors import ModelFileError
from modules.loader.files.state_dict import read_state_dict


def message(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_state_dict(path)
    text = str(caught.value)
    assert path.name in text and "\n" not in text
    return text
