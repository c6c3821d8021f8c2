"""The bases of the callbacks, and what they need of Lightning."""
