"""The YAML's own keys, once."""

#: Keys whose value is one class with its arguments.
CLASS_KEYS = ("data", "model", "sparsity", "circuits", "optimizer", "lr_scheduler")
#: The class of a key that is given without one, by the name that it has in YAML.
DEFAULT_CLASSES = {"circuits": "CircuitDiscovery"}
#: Keys of the trainer that hold one class or a list of them, which a later file or option replaces as a whole.
TRAINER_LISTS = ("callbacks", "logger")
