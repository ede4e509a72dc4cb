"""One way to train: the loop, its record, its logs and times, and processes that share a step."""
