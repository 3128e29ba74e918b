"""The native format: a folder of config.json, model.safetensors and a card, as timm reads and writes it."""
