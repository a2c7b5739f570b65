"""From records to batches: clean samples, shards, the order of training."""
