import numpy as np
import pytest

from seechange_core.frames import ImageFrame
from seechange_core.products.cards import image_arrays, image_cards, to_image
from seechange_core.qa.metrics import metrics


def frame(**more):
    plane = np.ones((40, 40), np.float32)
    return ImageFrame(
        plane, plane.copy(), np.zeros(plane.shape, np.uint16), 30.0, header={"OBJECT": "a"}, **more
    )


@pytest.mark.parametrize("scale", [np.nan, 0.83])
def test_fringe_strength_travels_with_an_image(scale):
    image = frame(fringe_scale=scale, fringe_scale_error=scale / 40)
    cards = image_cards(image)
    back = to_image(image_arrays(image), cards)
    assert back.fringe_scale == pytest.approx(scale, nan_ok=True)
    assert back.fringe_scale_error == pytest.approx(scale / 40, nan_ok=True)
    assert back.header == {"OBJECT": "a"}
    assert (metrics(image).get("fringe_scale") == scale) == np.isfinite(scale)
    older = {key: value for key, value in cards.items() if not key.startswith(("SCFRINGE", "SCFRGERR"))}
    assert np.isnan(to_image(image_arrays(image), older).fringe_scale)
