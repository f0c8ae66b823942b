"""Takes pictures of scenes as SDXL's training data was taken: of any original size, resized, and cropped to the target.

Six sizes tell how, in the order in which SDXL's UNet reads them: the original's height and width before it was
resized, the crop's top and left, and the target's height and width (Podell et al. 2023, arXiv 2307.01952, section 2.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.demo_model.world.render import render
from tools.demo_model.world.scenes import Scenes

Size = tuple[int, int]  # height, width in pixels
PLAIN_SHARE = 0.5  # of the random views
# height and width of the resized picture, in sizes of the target; a square one is cropped most often
CANVASES = ((1.0, 1.0),) * 3 + ((1.25, 1.25),) * 4 + ((1.0, 1.5), (1.5, 1.0))
# size of the original, in sizes of the resized picture; below 1 it is enlarged, and so it is blurred
ORIGINALS = (0.125, 0.125, 0.25, 0.5, 0.8, 0.8, 1.0, 2.0, 3.0)
_SMALLEST = 8


def plain_view(scenes: Scenes, size: Size) -> tuple[Tensor, Tensor]:
    """Returns pictures [N, 3, h, w] in -1..1 drawn at their `size`, and their six sizes [N, 6]."""
    sizes = torch.tensor([*size, 0, 0, *size], dtype=torch.float32, device=scenes.facts.device)
    return render(scenes, size), sizes.expand(len(scenes), -1)


def random_view(scenes: Scenes, size: Size) -> tuple[Tensor, Tensor]:
    """Draws one canvas and one original size for all scenes, and a crop for each; half of the views are plain."""
    if float(torch.rand(())) < PLAIN_SHARE:
        return plain_view(scenes, size)
    canvas = CANVASES[int(torch.randint(len(CANVASES), ()))]
    original = ORIGINALS[int(torch.randint(len(ORIGINALS), ()))]
    return cropped_view(scenes, size, canvas, original)


def cropped_view(scenes: Scenes, size: Size, canvas: tuple[float, float], original: float) -> tuple[Tensor, Tensor]:
    """Returns random windows [N, 3, h, w] of enlarged or reduced pictures, and their six sizes [N, 6].

    `canvas`: how much larger the resized picture is than its window; `original`: how much larger the first picture was
    than the resized one. One that is only reduced is drawn in its final size at once.
    """
    device, count = scenes.facts.device, len(scenes)
    resized = (round(size[0] * canvas[0]), round(size[1] * canvas[1]))
    first = (max(round(resized[0] * original), _SMALLEST), max(round(resized[1] * original), _SMALLEST))
    pictures = render(scenes, resized if original >= 1 else first)
    if original < 1:
        pictures = F.interpolate(pictures, resized, mode="bicubic", align_corners=False).clamp(-1, 1)
    room = torch.tensor([resized[0] - size[0] + 1, resized[1] - size[1] + 1], device=device)
    corner = (torch.rand(count, 2, device=device) * room).long()
    told = [torch.tensor(side, dtype=torch.float32, device=device).expand(count, 2) for side in (first, size)]
    return _windows(pictures, corner, size), torch.cat([told[0], corner.float(), told[1]], 1)


def _windows(pictures: Tensor, corner: Tensor, size: Size) -> Tensor:
    """Cuts a window of `size` out of each picture, with its top left at corner [N, 2]."""
    device = pictures.device
    rows = corner[:, 0, None] + torch.arange(size[0], device=device)
    columns = corner[:, 1, None] + torch.arange(size[1], device=device)
    picture, channel = torch.arange(len(pictures), device=device), torch.arange(pictures.shape[1], device=device)
    return pictures[
        picture[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
