"""What the name of a series says of its modality, in the languages of hospitals: weak evidence, for people type it."""

import re
from typing import Final

_SEPARATOR = r"(?<![a-z0-9])(?:{})(?![a-z0-9])"

KINDS: Final = {
    "flair": r"flair|dark.?fluid|tirm.?dark|水抑制|液体衰减",
    "t2": r"(?<![a-z0-9])t2(?!\s*\*|star|[ _-]*flair|fl)|(?<![a-z])t2w",
    "t1": r"(?<![a-z0-9])t1(?![0-9])|mp.?rage|bravo|(?<![a-z])f?spgr|(?<![a-z])tfl3d|(?<![a-z])vibe|(?<![a-z])3d.?tfe",
}
"""A modality to the pattern of its names."""

INVERSIONS: Final = r"(?<![a-z])tirm(?![a-z])|(?<![a-z])stir(?![a-z])|flair|dark.?fluid|水抑制|液体衰减"
"""Names of inversion recoveries, which null water or fat (TIRM: Siemens' turbo inversion recovery magnitude, either)."""
INVERSION_SEQUENCES: Final = r"(?<![a-z])tir(?![a-z])|spcir"
"""The same as Siemens calls its sequences (`*tir2d1_16`, `*spcir_242ns`)."""

WITH_CONTRAST: Final = (
    # Latin letters: English; German (Kontrastmittel); French (injecté); Spanish and Portuguese; Italian; Dutch; Polish; Turkish
    _SEPARATOR.format(
        r"gd|gad|gado|gadolinium|dotarem|gadovist|magnevist|prohance|post|postcontrast|postgd|ce|t1c|t1ce|t1gd|t1km|km|mkm|contrast|"
        r"kontrast|kontrastmittel|mit km|inj|injecte|injecté|apres|après|con civ|con contraste|contraste|com contraste|mdc|"
        r"met contrast|z kontrastem|po kontrascie|kontrastli|ivkm|iv"
    )
    + r"|(?<![a-z0-9])\+\s*c(?![a-z])|(?<![a-z])c\s*\+|\+\s*(?:gd|km|mdc|iv|contrast)|контраст|增强|造影(?!前)|조영"
)
WITHOUT_CONTRAST: Final = (
    _SEPARATOR.format(
        r"pre|precontrast|pregd|nativ|native|non.?contrast|no.?contrast|without.?contrast|w.?o.?contrast|unenhanced|ohne km|ohne|"
        r"sans|sans inj|sin|sin contraste|sem contraste|senza|senza mdc|zonder|bez kontrastu|kontrastsiz|avant"
    )
    + r"|(?<![a-z])c\s*-(?![a-z0-9])|(?<![a-z0-9])-\s*c(?![a-z])|без контраста|平扫|単純|造影前|조영 ?전"
)

OTHERS: Final = {
    "localiser": r"locali[sz]er|scout|survey|(?<![a-z])loc(?![a-z])|3.?plane|topogram|定位",
    "diffusion": r"dwi|(?<![a-z])dti|(?<![a-z])adc|diff(?:usion)?(?![a-z]*er)|trace.?w|(?<![a-z])b ?1000|弥散|扩散",
    "perfusion": r"perf|(?<![a-z])dsc(?![a-z])|(?<![a-z])dce(?![a-z])|(?<![a-z])asl(?![a-z])|(?<![a-z])r?cb[fv](?![a-z])|灌注",
    "susceptibility": r"(?<![a-z])swi|swan|venobold|t2 ?\*|t2.?star|hemo|haemo|(?<![a-z])me?dic(?![a-z])",
    "angiography": r"(?<![a-z])tof|(?<![a-z])mr[av](?![a-z])|angio|(?<![a-z])pca?(?![a-z])|phase.?contrast",
    "spectroscopy or function": r"spectro|(?<![a-z])csi(?![a-z])|bold|fmri|(?<![a-z])svs",
    "fat suppression by inversion": r"(?<![a-z])stir(?![a-z])",
    "projection or reformat": r"(?<![a-z])mip(?![a-z])|(?<![a-z])mpr(?![a-z])|reformat|recon",
    "subtraction": r"subtr|(?<![a-z])sub(?![a-z])",
    "map": r"(?<![a-z])map(?![a-z])|relax|quantitative",
    "proton density": r"(?<![a-z])pd(?![a-z])|proton|dens",
}
"""What is none of the four modalities, and what gives it away."""


def says(pattern: str, text: str) -> str:
    """The part of a name that a pattern found; "" where there is none."""
    found = re.search(pattern, text.lower().replace("_", " "))
    return found[0].strip() if found else ""
