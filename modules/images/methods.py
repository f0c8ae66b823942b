"""Names of the ways to resize latents and pictures, apart from the code so that options need no torch."""

LATENT_METHODS = (
    "nearest-exact",
    "bilinear",
    "bicubic",
    "area",
    "bislerp",
    "bilinear-antialiased",
    "bicubic-antialiased",
)
PIXEL_METHODS = ("lanczos",)
IMAGE_MODES = ("stretch", "crop", "fill")
