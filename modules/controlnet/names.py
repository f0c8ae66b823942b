"""Names of the preprocessors, in a separate module so that options need neither torch nor numpy."""

# The first words of A1111's names. Each has a function in preprocessors.py.
PREPROCESSORS = ("none", "canny", "lineart", "scribble", "softedge", "tile", "blur", "grey", "invert")
