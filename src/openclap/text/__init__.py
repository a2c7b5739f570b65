"""Text: tokenize captions, and make prompts of labels."""
