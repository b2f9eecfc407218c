"""Convert images of any mode and size to the input of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps

_WIDEST_ASPECT = 8.0


class ImageTransform:
    """Image preprocessing of a model; picklable, as it does not hold the weights."""

    def __init__(self, preprocess: dict[str, Any]) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self._crops = preprocess.get("resize_mode") == "shortest"
        transform = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
        self._transform = cast(Callable[[Image.Image], torch.Tensor], transform)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return (3, H, W) float32 pixels, normalised for the model."""
        upright = _to_rgb(ImageOps.exif_transpose(image))
        return self._transform(_trim(upright) if self._crops else upright)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB; transparency becomes white, 16 bits become 8."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float32)
        top = 65535.0 if image.mode.startswith("I") and values.max(initial=0) > 255 else 255.0
        grey = (np.clip(values / top, 0, 1) * 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, layer).convert("RGB")
    return image.convert("RGB")


def _trim(image: Image.Image) -> Image.Image:
    """Crop very long images around the centre before their short side is scaled up.

    A centre crop follows, so the model sees the same pixels. Otherwise a 1 x 10,000 image would be
    scaled up to gigabytes.
    """
    width, height = image.size
    limit = int(_WIDEST_ASPECT * min(width, height))
    if max(width, height) <= limit:
        return image
    return ImageOps.fit(image, (min(width, limit), min(height, limit)))
