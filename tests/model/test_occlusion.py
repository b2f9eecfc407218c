"""Tests of regions by occlusion, with an encoder that sees colours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import csr_array

from sieve.model.explain import encode_occluded
from sieve.model.query_encoder import Capabilities


def colours(images: list[Image.Image]) -> Any:
    """Encode images by their amount of strong red and of strong blue."""
    pixels = np.stack([np.asarray(image, np.float32) / 255 for image in images])
    red, green, blue = (pixels[..., c] for c in range(3))
    rows = [np.clip(one - green - 0.6, 0, 1).mean((1, 2)) for one in (red, blue)]
    return SimpleNamespace(by_row=csr_array(np.stack(rows, 1)))


ENGINE: Any = SimpleNamespace(encode_images=colours, can=Capabilities())


def picture(**boxes: tuple[int, int, int, int]) -> Image.Image:
    image = Image.new("RGB", (140, 140), "white")
    for colour, box in boxes.items():
        image.paste(colour, box)
    return image


def test_a_region_is_where_covering_lowers_the_activation() -> None:
    occluded = encode_occluded(ENGINE, picture(red=(0, 0, 30, 30), blue=(100, 60, 130, 90)))
    red, blue = occluded.cells([0]), occluded.cells([1])
    assert np.unravel_index(red.argmax(), red.shape) == (0, 0)
    row, column = np.unravel_index(blue.argmax(), blue.shape)
    assert (row, column) in {(3, 5), (3, 6)}
    assert red.max() > 0.5
    assert abs(red[3:, 3:]).max() < 0.02  # the blur does not reach that far


def test_a_concept_of_two_dimensions_has_the_regions_of_both() -> None:
    occluded = encode_occluded(ENGINE, picture(red=(0, 0, 30, 30), blue=(110, 110, 140, 140)))
    both = occluded.cells([0, 1])
    assert both[0, 0] == pytest.approx(occluded.cells([0])[0, 0] / 2, abs=0.05)
    assert both[6, 6] == pytest.approx(occluded.cells([1])[6, 6] / 2, abs=0.05)


def test_other_requests_get_their_turn_between_batches() -> None:
    entered = []

    class Lock:
        def __enter__(self) -> None:
            entered.append(1)

        def __exit__(self, *_: object) -> None: ...

    encode_occluded(ENGINE, picture(red=(0, 0, 30, 30)), lock=Lock())
    assert len(entered) == 5
