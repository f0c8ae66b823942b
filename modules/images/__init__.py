"""Handles pictures: tensors to and from PIL, resizing, previews, PNG files and the text inside them."""
