import numpy as np
import pytest

from seechange_core.simulate import make_catalog, make_world
from seechange_core.simulate.catalog import CATALOG_EPOCH_MJD
from seechange_core.simulate.geometry import project


def matched(options):
    """Catalog stars, the true star nearest to each, and the offsets (mas) at the catalog's epoch."""
    world = make_world(options)
    catalog = make_catalog(world.camera, world.sky)
    ra, dec = world.sky.positions(CATALOG_EPOCH_MJD)
    real = np.flatnonzero(np.isin(world.sky.objects["kind"], ("star", "variable")))
    east, north = project(catalog["ra"], catalog["dec"], options.ra_deg, options.dec_deg)
    te, tn = project(ra[real], dec[real], options.ra_deg, options.dec_deg)
    apart = np.hypot(east[:, None] - te, north[:, None] - tn)
    nearest = apart.argmin(axis=1)
    east, north = (east - te[nearest]) * 1e3, (north - tn[nearest]) * 1e3
    return catalog, world.sky.objects[real][nearest], east, north, apart.min(axis=1)


@pytest.fixture(scope="module")
def big(options):
    return options(section_size_pix=2048, transients=0, bad_pixels=False, flat_structure=False)


def test_errors_have_the_distribution_they_claim(big):
    catalog, true, east, north, apart = matched(big)
    good = np.asarray(catalog["is_star"]) & (apart < 0.1) & (np.asarray(true["kind"]) == "star")
    assert good.sum() > 150
    pulls = np.concatenate([east[good], north[good]]) / np.tile(catalog["position_err_mas"][good], 2)
    robust = 1.4826 * np.median(np.abs(pulls))
    assert robust == pytest.approx(1, abs=0.12)
    assert np.median(pulls) == pytest.approx(0, abs=0.15)
    pulls = (catalog["mag_r"] - true["mag_r"])[good] / catalog["mag_r_err"][good]
    assert 1.4826 * np.median(np.abs(pulls)) == pytest.approx(1, abs=0.15)
    moved = (catalog["pmra"] - true["pmra"])[good] / catalog["position_err_mas"][good]
    assert 1.4826 * np.median(np.abs(moved)) == pytest.approx(1, abs=0.15)


def test_contaminants_missing_stars_and_outliers(big):
    chosen = big.model_copy(
        update={
            "catalog_missing": 0.1,
            "catalog_spurious": 0.05,
            "catalog_outliers": 0.05,
            "catalog_galaxies_as_stars": 0.3,
        }
    )
    world = make_world(chosen)
    catalog = make_catalog(world.camera, world.sky)
    objects = world.sky.objects
    bright = objects["mag_r"] < chosen.catalog_faint_mag
    stars = int((np.isin(objects["kind"], ("star", "variable")) & bright).sum())
    galaxies = int(
        ((objects["kind"] == "galaxy") & (objects["mag_r"] < chosen.catalog_faint_mag - 0.5)).sum()
    )
    assert (~catalog["is_star"]).sum() == pytest.approx(0.7 * galaxies, abs=0.5)
    assert len(catalog) == pytest.approx((0.9 * stars + galaxies) * 1.05, abs=4 * np.sqrt(0.1 * stars))
    *_, apart = matched(chosen)
    assert ((apart > 0.15) & (apart < 1.1) & catalog["is_star"]).sum() > 5


def test_without_errors_it_is_the_truth(big):
    chosen = big.model_copy(update={"catalog_errors": False, "catalog_spurious": 0.0,
                                    "catalog_missing": 0.0})  # fmt: skip
    catalog, true, east, north, _ = matched(chosen)
    stars = (
        np.asarray(catalog["is_star"]) & (np.asarray(true["kind"]) == "star") & (np.hypot(east, north) < 50)
    )
    assert stars.sum() > 200
    assert np.hypot(east, north)[stars].max() < 0.01
    assert catalog["mag_r"][stars] == pytest.approx(true["mag_r"][stars])
    assert catalog["pmdec"][stars] == pytest.approx(true["pmdec"][stars])
