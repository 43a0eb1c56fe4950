"""Which modality a file is, by its name: suffix, entities, and the words that people write for contrast agent.

Plain T1 and contrast T1 differ by what was injected, which stands in many places: `ce-gadolinium_T1w` (BIDS), `acq-postgd_T1w`,
`desc-postcontrast_T1w`, `_T1c`, `_T1Gd`, `_T1w_post`, or in the sidecar alone. One table reads them all; a name that says both
yes and no is never guessed.
"""

import json
import re
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

ENDS = (".nii.gz", ".nii", ".img.gz", ".hdr.gz", ".img", ".hdr")  # of one volume; others are copies, sidecars, checksums
WHICH = {"sub", "ses", "run", "echo", "space", "res", "inv", "part", "hemi", "chunk", "dir"}  # entities that say who or which one
_AGENT = (
    r"(?:gado|gad|gd|contrast|kontrast|km|mdc|gbca|inject|inj(?![a-z])|dotarem|magnevist|prohance|multihance|omniscan|clariscan|"
    r"primovist|eovist|elucirem|vueway|artirem|optimark|ablavar|ferumoxytol)"
)
_GIVEN = rf"(?:{_AGENT}|enhanced|enhancement|(?:enh|ce|c)(?![a-z]))"
# What holds a word of the next two and means something else: `postop` is a time, `space` a sequence, `prenorm` a filter.
_OTHER = r"(?:pre|post)(?=[-+ ]?(?:op|surg|rt|radi|treat|tx|chemo|erior|proc|norm|scan|sat))[a-z]*"
_WITHOUT = (
    rf"(?:pre|non?|not|without|wo|ohne|sans|senza|sin|sem|zonder|un|minus)[-+ ]?{_GIVEN}[a-z]*"
    r"|nativ|plain|(?<![a-z])pre(?![a-z])|(?<=[a-z])pre(?![a-z])"
)
_WITH = (
    rf"{_AGENT}|enhanced|enhancement|(?:post|with|plus)[-+ ]?{_GIVEN}|(?<![a-z])(?:ce|enh|post)(?![a-z])|(?<=[a-z])post(?![a-z])"
    r"|(?:mprage|mpr|t1w|t1|spgr|flash|vibe|tfe|tfl|bravo|tse|ffe|space|cube|[23]d)(?:ce|c)(?![a-z])"
    r"|(?<![a-z])(?:cplus|plusc)(?![a-z])"
)
_WORDS = re.compile(rf"(?P<other>{_OTHER})|(?P<without>{_WITHOUT})|(?P<with>{_WITH})")
_NO_AGENT = {"none", "no", "n/a", "na", "false", "0", "without"}
_CONTRAST_T1 = re.compile(r"t1w?(?:c|ce|gd|gad|gado\w*|post\w*|km|contrast\w*|enh\w*|plusc)w?|(?:ce|gd|gad|post|contrast)t1w?")
_PLAIN_T1 = re.compile(r"t1w?|t1w?n|t1w?pre\w*|t1w?nativ\w*|t1w?non?\w*|pret1w?")
WIDER = {  # suffixes beyond those of BIDS, in lower case, letters and digits alone
    "t1": re.compile(rf"{_PLAIN_T1.pattern}|{_CONTRAST_T1.pattern}"),
    "t2": re.compile(r"t2w?"),
    "flair": re.compile(r"(?:t2w?)?flairw?|t2f"),
    "adc": re.compile(r"adc"),
}
_FLAIR = re.compile(r"flair|darkfluid")
_SCOUT = re.compile(r"localiz|localis|scout|survey|subtra[ck]|(?<![a-z])(?:sub|mip|minip)(?![a-z])")
_SEQUENCES = re.compile(  # words of an image's name that hide no contrast agent
    r"(?:[23]?d?|ax|sag|cor|tra|iso|hi|lo|high|low)*(?:mprage|mpr|memprage|mp2?rage|tfl|tfe|bravo|i?r?f?spgr|ffe|flash|vibe|t?se|fse|"
    r"gre|space|cube|vista|res|iso|ax|axial|sag|sagittal|cor|coronal|tra|brain|t1|t1w|preproc|norm|dis|nd|defaced|\d+m?m?)*(?:[23]d)?"
)


class Contrast(Enum):
    """What is said of contrast agent."""

    GIVEN = "given"
    WITHOUT = "without"
    SILENT = "silent"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Name:
    """A file's name, taken apart at its underscores: `sub-1_acq-postgd_T1w.nii.gz`."""

    text: str

    @cached_property
    def end(self) -> str:
        """One of `ENDS`, as it is written there; "": it is no volume."""
        return next((end for end in ENDS if self.text.lower().endswith(end)), "")

    @cached_property
    def stem(self) -> str:
        """Without the end."""
        return self.text[: len(self.text) - len(self.end)]

    @cached_property
    def suffix(self) -> str:
        """The last part in lower case, letters and digits alone; with the part before it where that is a T1 and this says of what
        kind (`_T1_post`)."""
        parts = [re.sub(r"[^a-z0-9]", "", part.lower().replace("+", "plus")) for part in self.stem.split("_")]
        both = "".join(parts[-2:])
        return both if len(parts) > 1 and re.fullmatch("t1w?", parts[-2]) and WIDER["t1"].fullmatch(both) else parts[-1]

    @cached_property
    def entities(self) -> dict[str, str]:
        """The parts before the suffix by key; a part without a hyphen, such as `post`, by its place."""
        parts = [part.partition("-") for part in self.stem.split("_")[:-1]]
        return {key if mark else str(place): value if mark else key for place, (key, mark, value) in enumerate(parts)}

    @cached_property
    def words(self) -> tuple[str, ...]:
        """What the entities say but who it is and which of several, in lower case."""
        return tuple(value.lower() for key, value in self.entities.items() if key not in WHICH and key != "0")

    @property
    def is_scout(self) -> bool:
        """Whether it calls itself a localiser, a subtraction or a projection, which is no image to train on."""
        return any(_SCOUT.search(word) for word in self.words)


def suffix_of(name: Name) -> str | None:
    """The modality that the suffix names, `t1` for every T1; None: none that has a table of suffixes."""
    found = next((kind for kind, pattern in WIDER.items() if pattern.fullmatch(name.suffix)), None)
    return "flair" if found == "t2" and any(_FLAIR.search(word) for word in name.words) else found


def contrast_of(name: Name) -> Contrast:
    """What a T1's name says of contrast agent."""
    said = {answer for word in (*name.words, re.sub("^t1w?", "", name.suffix)) for answer in _answers(word)}
    if "ce" in name.entities:
        agent = name.entities["ce"].lower()
        said.add(agent not in _NO_AGENT and False not in _answers(agent))
    if _CONTRAST_T1.fullmatch(name.suffix):
        said.add(True)
    if len(said) > 1 or "c" in name.words:  # c: contrast, or coronal, or the third of three
        return Contrast.UNCLEAR
    return Contrast.GIVEN if True in said else Contrast.WITHOUT if said else Contrast.SILENT


def contrast_with(said: Contrast, agent: bool | None) -> Contrast:
    """What name and sidecar say together.

    Args:
        said: by the name.
        agent: of `agent_of`.
    """
    if agent is None or said is Contrast.UNCLEAR:
        return said
    told = Contrast.GIVEN if agent else Contrast.WITHOUT
    return told if said in (told, Contrast.SILENT) else Contrast.UNCLEAR


def has_unknown_words(name: Name) -> bool:
    """Whether an image's name has a word that could hide anything, contrast agent too."""
    return not all(_SEQUENCES.fullmatch(_WORDS.sub("", word)) for word in name.words)


def _answers(word: str) -> list[bool]:
    """What each of the words for contrast agent in a text says, in their order."""
    return [found.lastgroup == "with" for found in _WORDS.finditer(word) if found.lastgroup != "other"]


def agent_of(sidecar: Path) -> bool | None:
    """Whether a file's JSON sidecar names a contrast agent; None: it does not say."""
    try:
        fields = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    keys = ("ContrastBolusIngredient", "ContrastBolusAgent")
    named = [str(fields.get(key) or "").strip().lower() for key in keys] if isinstance(fields, dict) else []
    return any(agent not in _NO_AGENT for agent in named if agent) if any(named) else None


def as_glob(name: Name) -> str:
    """A glob of this name at every patient: who it is and which session left open."""
    text = re.sub(r"^sub-[^_]+_", "*_", name.stem)
    return re.sub(r"_ses-[^_]+_", "_*", text).replace("*_*", "*_") + ".nii*"
