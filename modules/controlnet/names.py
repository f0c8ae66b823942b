"""Names of the preprocessors and of a union ControlNet's kinds (no torch, no numpy)."""

# The first words of A1111's names. Each has a function in preprocessors.py.
PREPROCESSORS = ("none", "canny", "lineart", "scribble", "softedge", "tile", "blur", "grey", "invert")

# The kinds of control picture that a union ControlNet knows, with the numbers of its published table.
CONTROL_KINDS = {
    "openpose": 0,
    "depth": 1,
    "scribble": 2,
    "hed": 2,
    "canny": 3,
    "lineart": 3,
    "normal": 4,
    "segment": 5,
    "tile": 6,
    "repaint": 7,
}
