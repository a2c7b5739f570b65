"""LAION-CLAP imports it to freeze batch norms in training."""

from torch import nn


class FrozenBatchNorm2d(nn.Module):
    """Never built where sounds are embedded."""
