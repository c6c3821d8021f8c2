"""A set of edges run by itself: the masked forward pass, ablations, and the ways to make it fast."""
