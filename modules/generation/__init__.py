"""From one request to finished pictures: the options, the session and the passes between them."""
