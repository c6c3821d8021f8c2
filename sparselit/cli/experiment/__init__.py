"""The commands that train or use a model: what LightningCLI needs."""
