"""Names of the ways to resize latents and pictures, in a separate module so that options do not need torch."""

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
OWN_METHODS = PIXEL_METHODS + LATENT_METHODS  # any other name refers to an upscaler file
IMAGE_MODES = ("stretch", "crop", "fill")
