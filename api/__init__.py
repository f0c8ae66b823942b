"""The API: requests of other programs' clients become tasks of the same queue that the page uses."""
