"""Where other libraries and benchmarks measure and use CLAP models; one file each."""
