"""The captioned world: scenes as numbers, their captions, and how they are drawn."""
