"""Networks alone: no files, no audio decoding, no tokenizers."""
