"""Many runs of one experiment: which points there are, what has become of each, and the processes that run them."""
