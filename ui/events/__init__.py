"""What the page answers: form values in, new values of its components out."""
