"""Whether a circuit is true: scores, nulls, faithfulness, what it leaves unexplained, tests."""
