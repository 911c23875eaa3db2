"""One instrument, one file: dropping a file in here is all it takes."""
