"""Converters between native checkpoints and foreign formats; no network."""
