"""Networks and objectives. Files, audio decoding and tokenizers are elsewhere."""
