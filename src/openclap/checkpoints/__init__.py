"""Read, write and convert checkpoints: openclap's folder, LAION-CLAP, transformers, and AudioSet audio towers."""
