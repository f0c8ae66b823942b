"""Files of finished and given pictures: the output folder, its history, inputs and uploads."""
