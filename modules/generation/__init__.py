"""From one request to finished pictures: options, session and the storyline of a generation."""
