"""The experiments that come with sparselit: one YAML file each, found by name (`sparselit fit --config quotes`)."""
