"""The checkpoints: loading, saving, preprocessing, labels."""
