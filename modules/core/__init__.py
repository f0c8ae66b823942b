"""Code shared by every layer: user-facing errors, progress, device selection and model folders."""
