"""Of torchvision's operators, LAION-CLAP imports one class."""
