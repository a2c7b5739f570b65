"""Only `Resize` is ever called where sounds are embedded."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


class Resize:
    """(…, H, W) to `size`, bilinear, without antialiasing, as torchvision resized tensors before 0.17."""

    def __init__(self, size: list[int], **options: Any) -> None:
        self.size = size

    def __call__(self, image: Tensor) -> Tensor:
        return F.interpolate(image[None], self.size, mode="bilinear", align_corners=False)[0]


CenterCrop = Compose = InterpolationMode = Normalize = RandomResizedCrop = ToTensor = None
