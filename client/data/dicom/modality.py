"""Which modality a series is: by its header first, by its name second, with a confidence and the reasons.

The confidence orders what a person should look at first. It is no probability: nobody has calibrated it.
"""

from collections import defaultdict
from dataclasses import dataclass

from pydicom.dataset import Dataset

from client.data.dicom.contrast import contrast
from client.data.dicom.descriptions import INVERSION_SEQUENCES, INVERSIONS, KINDS, OTHERS, says
from client.data.dicom.header import number, value, words

OTHER = "other"
NOT_ORIGINAL = {
    "ADC": "a map (ADC)",
    "FA": "a map (FA)",
    "TRACEW": "diffusion",
    "DIFFUSION": "diffusion",
    "LOCALIZER": "a localiser",
    "SUBTRACTION": "a subtraction",
    "SUB": "a subtraction",
    "MIN_IP": "a projection",
    "MIP": "a projection",
    "PROJECTION IMAGE": "a projection",
    "MAX_IP": "a projection",
    "SCREEN SAVE": "a capture of the screen",
    "PHASE MAP": "phase, no magnitude",
    "P": "phase, no magnitude",
    "PERFUSION": "perfusion",
    "RCBV": "a perfusion map",
    "RCBF": "a perfusion map",
    "MTT": "a perfusion map",
    "T1 MAP": "a map",
    "T2 MAP": "a map",
    "FIELD_MAP": "a map",
    "MOSAIC": "a mosaic, many slices in one picture",
}
"""Values of Image Type to what such an image is."""
REFORMATTED = frozenset({"MPR", "REFORMATTED", "RESAMPLED", "AVERAGE", "CSA MPR"})
SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class Decision:
    """What a series is taken for."""

    modality: str  # t1, t1c, t2, flair, or `other`
    confidence: float  # 0 to 1: the weight of the evidence for it, over all evidence and one more
    reasons: tuple[str, ...]
    reformatted: bool = False  # computed from another series: used only where that one is not there


def decide(dataset: Dataset) -> Decision:
    """The modality of a series from the header of one of its files."""
    excluded = _excluded(dataset)
    if excluded:
        return Decision(OTHER, 0.9, (excluded,))
    name = " ".join(str(value(dataset, tag) or "") for tag in ("SeriesDescription", "ProtocolName"))
    points: dict[str, float] = defaultdict(float)
    reasons: dict[str, list[str]] = defaultdict(list)
    for modality, weight, reason in (*_physics(dataset), *_name(name)):
        points[modality] += weight
        reasons[modality].append(reason)
    if not points:
        return Decision(OTHER, 0.0, ("neither timing nor name tells a modality",))
    best = max(points, key=lambda modality: points[modality])
    against = [f"against: {text}" for modality, texts in reasons.items() if modality != best for text in texts]
    confidence = points[best] / (sum(points.values()) + 1)
    told = (*reasons[best], *against)
    if best == "t1":
        given = contrast(dataset, name)
        best = "t1c" if given.given else "t1"
        confidence, told = min(confidence, given.confidence), (*told, *given.reasons)
    return Decision(best, round(confidence, 2), told, _reformatted(dataset))


def _excluded(dataset: Dataset) -> str:
    """Why the series is no modality, whatever its timing."""
    kind = str(dataset.get("Modality", ""))
    if kind != "MR":
        return f"no MR image ({kind or 'no Modality in its header'})"
    if str(dataset.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURES):
        return "a secondary capture"
    found = next((word for word in words(dataset, "ImageType") if word in NOT_ORIGINAL), None)
    if found:
        return f"{NOT_ORIGINAL[found]} (Image Type {found})"
    if int(dataset.get("SamplesPerPixel") or 1) > 1:
        return "a colour image"
    return ""


def _reformatted(dataset: Dataset) -> bool:
    return bool(REFORMATTED & set(words(dataset, "ImageType")))


def _name(name: str) -> list[tuple[str, float, str]]:
    """What the series' name says: less than its timing, but enough to leave out what is said to be something else."""
    others = [(kind, says(pattern, name)) for kind, pattern in OTHERS.items()]
    found = [(OTHER, 3.0, f"name says {kind} ({word})") for kind, word in others if word][:1]
    kinds = [(modality, says(pattern, name)) for modality, pattern in KINDS.items()]
    if says(INVERSIONS, name):  # "t2_tirm" is FLAIR or STIR
        kinds = [(modality, word) for modality, word in kinds if modality != "t2"]
    return found + [(modality, 1.0, f"name says {modality} ({word})") for modality, word in kinds if word][:1]


def _physics(dataset: Dataset) -> list[tuple[str, float, str]]:
    """What the timing says (milliseconds; degrees)."""
    echo, repetition, inversion = (number(dataset, tag) for tag in ("EchoTime", "RepetitionTime", "InversionTime"))
    sequence = " ".join((*words(dataset, "ScanningSequence"), str(value(dataset, "EchoPlanarPulseSequence") or "")))
    if "EP" in sequence.split() or "YES" in sequence.split():
        return [(OTHER, 4.0, "echo-planar: diffusion, perfusion or function")]
    if echo is None or repetition is None:
        return []
    if inversion:
        return _inverted(echo, inversion)
    if "GR" in sequence.split() or "GRADIENT" in sequence:
        return _gradient(echo, repetition)
    inverts = _inverts(dataset, sequence)
    return _inverted_unknown(echo, repetition, inverts) if inverts else _spin_echo(echo, repetition)


def _inverts(dataset: Dataset, sequence: str) -> str:
    """What says that an inversion recovery was run, "" where nothing does; the timing of a spin echo then tells nothing.

    The protocol's name is not asked where the series has a description: some makers write one for the whole study.
    """
    if "IR" in sequence.split() or str(value(dataset, "InversionRecovery") or "").upper() == "YES":
        return "inversion recovery"
    called = says(INVERSION_SEQUENCES, str(value(dataset, "SequenceName") or value(dataset, "PulseSequenceName") or ""))
    if called:
        return f"inversion recovery by its sequence ({called})"
    named = says(INVERSIONS, str(value(dataset, "SeriesDescription") or value(dataset, "ProtocolName") or ""))
    return f"inversion recovery by its name ({named})" if named else ""


def _inverted(echo: float, inversion: float) -> list[tuple[str, float, str]]:
    timing = f"TI {inversion:g}, TE {echo:g} ms"
    if inversion >= 1400 and echo >= 60:
        return [("flair", 3.0, f"{timing}: water nulled")]
    if inversion < 350:
        return [(OTHER, 3.0, f"{timing}: fat nulled (STIR)")]
    if inversion < 1400 and echo <= 40:
        return [("t1", 3.0, f"{timing}: inversion-prepared T1")]
    return [(OTHER, 1.0, f"{timing}: no usual inversion recovery")]


def _inverted_unknown(echo: float, repetition: float, inverts: str) -> list[tuple[str, float, str]]:
    """Without its inversion time: FLAIR is likely where a STIR would rarely be so long; too little to use it by that alone."""
    timing = f"{inverts} without TI, TE {echo:g}, TR {repetition:g} ms"
    if echo >= 75 and repetition >= 7000:
        return [("flair", 0.9, f"{timing}: probably water nulled; look at it")]
    return [(OTHER, 0.4, f"{timing}: FLAIR, STIR or T1; look at it")]


def _gradient(echo: float, repetition: float) -> list[tuple[str, float, str]]:
    timing = f"gradient echo, TE {echo:g}, TR {repetition:g} ms"
    if echo >= 12:
        return [(OTHER, 3.0, f"{timing}: T2* or susceptibility")]
    return [("t1", 2.0 if repetition < 700 else 1.0, f"{timing}: short echo")]


def _spin_echo(echo: float, repetition: float) -> list[tuple[str, float, str]]:
    timing = f"TE {echo:g}, TR {repetition:g} ms"
    if echo >= 60 and repetition >= 1500:
        return [("t2", 3.0, f"{timing}: long echo and repetition")]
    if echo <= 35 and repetition <= 1200:
        return [("t1", 3.0, f"{timing}: short echo and repetition")]
    if echo <= 45 and repetition > 1500:
        return [(OTHER, 2.0, f"{timing}: proton density")]
    return []
