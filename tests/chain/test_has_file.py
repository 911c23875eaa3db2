"""Whether a product's file is somewhere is asked without fetching it."""

import pytest

from seechange_core import Image, Psf
from seechange_core.chain.section import has_file
from seechange_core.storage.archive import Archive


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_file_on_the_server_is_there_and_stays_there(settings, tmp_path, in_parts):
    server = tmp_path / "server"
    path = settings.path.model_copy(update={"server_data": str(server)})
    archive = Archive(settings.model_copy(update={"path": path}))
    parts = {"data": "0" * 64, "weight": "0" * 64} if in_parts else None
    image = Image(filepath="a/b" if in_parts else "a/b.fits", checksum="0" * 64, component_checksums=parts)
    names = ["a/b.data.fits", "a/b.weight.fits"] if in_parts else ["a/b.fits"]
    for name in names:
        assert not has_file(image, archive)
        (server / name).parent.mkdir(parents=True, exist_ok=True)
        (server / name).write_bytes(b"not even what the checksum says")
    assert has_file(image, archive)
    assert not has_file(Psf(filepath=None), archive)
    assert not settings.data_root.exists()
