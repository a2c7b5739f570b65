"""Words in: captions to token ids, labels to prompts."""
