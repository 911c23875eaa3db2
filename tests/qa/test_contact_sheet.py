"""Contact sheets: what is drawn where, read off the pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from seechange_core.flags import PixelFlag
from seechange_core.frames import Stamps
from seechange_core.qa import contact_sheet as module
from seechange_core.qa.contact_sheet import Card, draw_sheet, save_sheet, triplet

SIZE, NOISE = 41, 5.0
MIDDLE = SIZE // 2
STAMP, GAP, LINE = module._STAMP, module._GAP, module._LINE
TOP, LEFT = module._HEAD + 2 * LINE, module._MARGIN


def stamps(source=(MIDDLE, MIDDLE), companion=None, **changes):
    """Make a triplet: a new star at (x, y), an old one beside it, noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE, :SIZE]

    def star(place):
        return 500 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 8)

    old = np.zeros((SIZE, SIZE)) if companion is None else star(companion)
    new, ref, sub = (rng.normal(0, NOISE, (SIZE, SIZE)) + s for s in (old + star(source), old, star(source)))
    images = {"new": new, "ref": ref, "sub": sub, **changes}
    cube = {name: np.asarray(value, np.float32)[None] for name, value in images.items() if "_" not in name}
    weights = {f"{name}_weight": np.ones((1, SIZE, SIZE), np.float32) for name in ("new", "ref", "sub")}
    flags = {
        f"{name}_flags": changes.get(f"{name}_flags", np.zeros((SIZE, SIZE), np.uint16))[None]
        for name in ("new", "ref", "sub")
    }
    corner = np.zeros(1, np.int64)
    return Stamps(**cube, **weights, **flags, x0=corner, y0=corner)


def card(drawn, north=(0.0, 3.0), east=(-3.0, 0.0), **changes):
    values = {"name": "obj2026a", "kind": "new", "facts": "score 10", "brightness": "r 19.8", "place": "here"}
    return Card(**{**values, "note": "", **changes}, stamps=drawn, north=north, east=east)


def panels(page):
    """Return the three stamps of the first card as drawn, one value a pixel of the stamp."""
    side = np.linspace(0, STAMP, SIZE, endpoint=False) + STAMP / SIZE / 2
    rows = (TOP + side).astype(int)[:, None]
    image = np.asarray(page.convert("RGB"), float)
    return [image[rows, (LEFT + k * (STAMP + GAP) + side).astype(int)] for k in range(3)]


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_north_is_up_and_east_is_left_however_the_detector_lies(angle, mirrored):
    """A companion 12 pixels to the north is drawn above, at eight orientations of the detector."""
    turn = np.deg2rad(angle)
    north = np.array([-np.sin(turn), np.cos(turn)])
    east = np.array([-np.cos(turn), -np.sin(turn)]) * (-1 if mirrored else 1)
    place = MIDDLE + np.rint(12 * north + 6 * east)
    page = draw_sheet([card(stamps(companion=place), tuple(3 * north), tuple(3 * east))], "night")[0]
    grey = panels(page)[1].mean(axis=2)
    grey[:5], grey[-14:] = 0, 0  # the name above, compass and scale bar below
    rows, columns = np.nonzero(grey > 0.9 * grey.max())
    assert (rows.mean(), columns.mean()) == pytest.approx((MIDDLE - 12, MIDDLE - 6), abs=1)


def test_new_and_reference_share_a_scale_and_zero_is_grey_in_the_difference():
    same = stamps(companion=(30, 30))
    new, ref, sub = (p.mean(axis=2) for p in panels(draw_sheet([card(same)], "night")[0]))
    at = (SIZE - 1 - 30, 30)
    assert abs(new[at] - ref[at]) < 12  # the old star is as bright in both
    assert new[MIDDLE, MIDDLE] > 240 and ref[MIDDLE, MIDDLE] < 110  # the new one in one only
    assert np.median(sub) == pytest.approx(127.5, abs=6) and sub[MIDDLE, MIDDLE] > 240
    faded = stamps(sub=-same.sub[0])
    assert panels(draw_sheet([card(faded)], "night")[0])[2].mean(axis=2)[MIDDLE, MIDDLE] < 15
    sky = new[:8, 20:].ravel()
    assert np.median(sky) < 90 and np.std(sky) > 8  # dark, its noise still seen


def test_flagged_pixels_are_coloured_and_missing_ones_slate():
    flags = np.zeros((SIZE, SIZE), np.uint16)
    flags[30, :] = PixelFlag.BAD_PIXEL
    image = stamps().new[0].copy()
    image[:, 35:] = np.nan
    new = panels(draw_sheet([card(stamps(new=image, new_flags=flags))], "night")[0])[0]
    assert np.all(new[20:30, 38] == module._EMPTY)
    row = new[SIZE - 1 - 30, 22:34]
    assert np.all(row[:, 2] > row[:, 0] + 25)  # blue


def test_what_the_reference_does_not_cover_is_slate_and_leaves_the_stretch_alone():
    """Three quarters of a stamp lie beyond the reference's rim, where its planes and the difference are 0."""
    whole = stamps()
    beyond, rim = np.arange(SIZE) > 12, (np.arange(SIZE) > 9) & (np.arange(SIZE) <= 12)
    flags = np.where(beyond, PixelFlag.OUT_OF_BOUNDS, 0).astype(np.uint16) * np.ones((SIZE, 1), np.uint16)
    ref, sub = (
        np.where(out, 0, plane) for out, plane in ((beyond, whole.ref[0]), (beyond | rim, whole.sub[0]))
    )
    drawn = stamps(ref=ref, sub=sub, ref_flags=flags, sub_flags=flags)
    drawn.sub_weight[0][:, beyond | rim] = 0
    _, old, difference = panels(draw_sheet([card(drawn)], "night")[0])
    assert np.all(old[10:25, 13:] == module._EMPTY) and np.all(difference[10:25, 10:] == module._EMPTY)
    # Noise is as grey as in a stamp that is covered as a whole but for the star, which is not there.
    blank = panels(
        draw_sheet(
            [card(stamps(sub=np.where(np.hypot(*np.mgrid[-20:21, -20:21]) < 9, 0, whole.sub[0])))], "night"
        )[0]
    )[2]
    assert np.std(difference[8:, :9, 0]) == pytest.approx(np.std(blank[8:, :9, 0]), rel=0.3)


def test_constant_and_empty_stamps_are_drawn_too():
    for drawn in (stamps(new=np.zeros((SIZE, SIZE)), ref=np.full((SIZE, SIZE), np.nan)), None):
        assert len(draw_sheet([card(drawn)], "night")) == 1


def test_many_candidates_take_pages(tmp_path):
    pages = draw_sheet([card(stamps())] * 19, "night", "19 candidates")
    assert len(pages) == 2 and pages[0].size[0] == pages[1].size[0] and pages[1].size[1] < pages[0].size[1]
    files = save_sheet(pages, tmp_path / "sheet.png")
    assert [f.name for f in files] == ["sheet.png", "sheet_2.png"]
    for file, page in zip(files, pages, strict=True):
        with Image.open(file) as picture:
            assert picture.size == page.size
    assert save_sheet(pages, tmp_path / "sheet.pdf") == [tmp_path / "sheet.pdf"]
    assert (tmp_path / "sheet.pdf").read_bytes().count(b"/Type /Page\n") == 2


def test_long_words_do_not_leave_the_card():
    page = draw_sheet([card(stamps(), note="W" * 300, place="W" * 300)], "night")[0]
    assert np.all(np.asarray(page)[TOP:, LEFT + module._WIDTH + 1 : LEFT + module._WIDTH + 20] == 255)


def test_a_triplet_is_three_stamps_in_few_bytes():
    drawn = triplet(card(stamps()))
    picture = Image.open(io.BytesIO(drawn.png))
    assert picture.size == (3 * SIZE + 2 * module._TRIPLET_GAP, SIZE) and len(drawn.png) <= 6000
    assert drawn.side_arcsec == pytest.approx(SIZE / 3)
    assert drawn.north == (0, 1) and drawn.east == (-1, 0)
    new, reference, difference = (
        np.asarray(picture.convert("L"), float)[:, k * (SIZE + module._TRIPLET_GAP) :][:, :SIZE]
        for k in range(3)
    )
    core = (slice(MIDDLE - 1, MIDDLE + 2),) * 2
    assert new[core].mean() > 2 * np.median(new) and difference[core].mean() > 1.5 * np.median(difference)
    assert reference[core].mean() == pytest.approx(np.median(reference), rel=0.3)
    assert triplet(card(None)).png is None
