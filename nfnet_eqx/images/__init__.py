"""What an image is: opened with suspicion, resized, normalized, and the names of what it may show."""
