"""What ComfyUI loads from its custom_nodes folder: the node, and this project on Python's path."""

import sys
from pathlib import Path

_PROJECT = str(Path(__file__).resolve().parents[2])  # behind the link in custom_nodes
if _PROJECT not in sys.path:
    sys.path.append(_PROJECT)  # last, so that nothing of ComfyUI is hidden

from integrations.comfyui.node import StableFast  # noqa: E402

NODE_CLASS_MAPPINGS = {"StableFast": StableFast}
NODE_DISPLAY_NAME_MAPPINGS = {"StableFast": "Stable-Fast"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
