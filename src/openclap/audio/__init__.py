"""Sound in: files and arrays to waveforms, waveforms to log-mels, log-mels to batches."""
