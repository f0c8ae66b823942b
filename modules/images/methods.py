"""Names the ways to resize latents and pictures, separate from the code so that options need no torch."""

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
