"""Numbers that several modules need."""

import math

#: Ratio of FWHM and sigma of a Gaussian, sqrt(8 ln 2).
FWHM_PER_SIGMA = math.sqrt(8 * math.log(2))
#: Error of a magnitude over the relative error of its flux, to first order: 2.5 / ln 10.
MAG_PER_RELATIVE = 2.5 / math.log(10)
