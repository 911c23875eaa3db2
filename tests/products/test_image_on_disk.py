import numpy as np

from seechange_core.frames import ImageFrame
from seechange_core.products.place import Place
from seechange_core.storage.archive import Archive


def test_slices_are_what_the_arrays_hold(session, database, make):
    rng = np.random.default_rng(1)
    frame = ImageFrame(
        data=rng.normal(size=(40, 30)).astype(np.float32),
        weight=rng.uniform(size=(40, 30)).astype(np.float32),
        flags=rng.integers(0, 2**16, (40, 30)).astype(np.uint16),
        exposure_time_s=30.0,
        gain=1.5,
    )
    row, archive = make.image(), Archive(database)
    row.write(archive, frame, Place.of_reference("demo", "r1", "r"))
    there = row.open(archive)
    assert (there.gain, there.shape) == (1.5, (40, 30))
    spans = [(slice(3, 9), slice(4, 30)), (slice(0, 40), slice(0, 1)), (slice(None, None, 4),) * 2]
    for span in spans:
        for name in ("weight", "flags", "data"):
            found, wanted = getattr(there, name)[span], getattr(frame, name)[span]
            assert found.dtype == wanted.dtype and np.array_equal(found, wanted)
