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
OWN_METHODS = PIXEL_METHODS + LATENT_METHODS  # any other name is that of an upscaler file
IMAGE_MODES = ("stretch", "crop", "fill")
