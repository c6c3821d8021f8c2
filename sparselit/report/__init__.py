"""What a person looks at: the summary of a run, the circuit as a table and as a picture."""
