"""The registry: every rule, and every kind of finding.

A new rule is a function in the file of its subject, a `Kind` in that file's `KINDS`, and a line in `RULES`.
"""

from collections.abc import Callable, Iterable

from common.data.gate import background, files, geometry, intensities, masks, picture_kinds, presence
from common.data.gate.finding import Finding, Kind
from common.data.gate.images import Images

Rule = Callable[[Images], Iterable[Finding]]

RULES: tuple[Rule, ...] = (
    geometry.forms,
    geometry.no_codes,
    geometry.pixdims,
    geometry.sheared,
    geometry.one_slice,
    geometry.extent,
    geometry.elsewhere,
    geometry.transposed,
    geometry.coarse,
    intensities.constant,
    intensities.few_values,
    intensities.not_finite,
    intensities.clipped,
    intensities.wrapped,
    intensities.tomography,
)

PICTURE_RULES: tuple[Rule, ...] = (intensities.constant, intensities.few_values)  # the others know heads, or numbers of MRI

KINDS: tuple[Kind, ...] = (
    *files.KINDS,
    *geometry.KINDS,
    *background.KINDS,
    *intensities.KINDS,
    *masks.KINDS,
    *presence.KINDS,
    *picture_kinds.KINDS,
)
