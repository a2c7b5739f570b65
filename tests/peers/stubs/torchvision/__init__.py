"""The names of torchvision that LAION-CLAP imports: there is no torchvision for every torch that the tests run with."""

from torchvision import datasets, ops, transforms

__all__ = ["datasets", "ops", "transforms"]
