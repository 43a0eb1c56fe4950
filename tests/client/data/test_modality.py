"""Which modality a header speaks of: as makers write it, in several languages, with and without contrast agent."""

import pytest
from pydicom.dataset import Dataset

from client.data.candidates import SURE
from client.data.dicom.modality import decide

SE_T1 = {"EchoTime": 10.0, "RepetitionTime": 600.0, "ScanningSequence": "SE"}
MPRAGE = {"EchoTime": 2.98, "RepetitionTime": 2300.0, "InversionTime": 900.0, "ScanningSequence": ["GR", "IR"]}
BRAVO = {"EchoTime": 3.2, "RepetitionTime": 8.2, "InversionTime": 450.0, "ScanningSequence": "GR"}
TFE = {"EchoTime": 4.6, "RepetitionTime": 9.9, "ScanningSequence": "GR"}
T2 = {"EchoTime": 96.0, "RepetitionTime": 5000.0, "ScanningSequence": "SE"}
FLAIR = {"EchoTime": 125.0, "RepetitionTime": 9000.0, "InversionTime": 2500.0, "ScanningSequence": ["SE", "IR"]}
SPACE_FLAIR = {"EchoTime": 388.0, "RepetitionTime": 5000.0, "InversionTime": 1800.0, "ScanningSequence": ["SE", "IR"]}
AGENT = {"ContrastBolusAgent": "DOTAREM"}


def header(**tags) -> Dataset:
    dataset = Dataset()
    for keyword, value in {"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "M"], **tags}.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("tags", "modality"),
    [
        (SE_T1, "t1"),
        (MPRAGE, "t1"),
        (BRAVO, "t1"),
        (TFE, "t1"),
        (T2, "t2"),
        (FLAIR, "flair"),
        (SPACE_FLAIR, "flair"),
        ({**MPRAGE, **AGENT}, "t1c"),
        ({**SE_T1, "ContrastBolusVolume": 7.0}, "t1c"),
        ({**SE_T1, "ContrastBolusAgent": "NONE", "ContrastBolusVolume": 0}, "t1"),
        ({**T2, **AGENT}, "t2"),  # contrast matters to T1 alone
        ({**FLAIR, "ContrastBolusAgent": "GADOVIST"}, "flair"),
        ({**MPRAGE, "SeriesDescription": "t1_mprage_sag_KM"}, "t1c"),
        ({**SE_T1, "SeriesDescription": "T1 SE ax nach KM"}, "t1c"),
        ({**SE_T1, "SeriesDescription": "T1 AX INJECTE"}, "t1c"),
        ({**SE_T1, "SeriesDescription": "T1 ax sans inj"}, "t1"),
        ({**SE_T1, "SeriesDescription": "AX T1 SE C+"}, "t1c"),
        ({**SE_T1, "SeriesDescription": "AX T1 +C"}, "t1c"),
        ({**SE_T1, "SeriesDescription": "AX T1 PRE"}, "t1"),
        ({**SE_T1, "SeriesDescription": "T1 tse tra mdc"}, "t1c"),
        ({**SE_T1, "SeriesDescription": "T1 ohne KM"}, "t1"),
        ({**SE_T1, "SeriesDescription": "T1W 增强"}, "t1c"),
        ({**SE_T1, "SeriesDescription": "T1W 平扫"}, "t1"),
        ({**SE_T1, "SeriesDescription": "T1 造影後"}, "t1c"),
        ({**SE_T1, "SeriesDescription": "T1 контраст"}, "t1c"),
        ({"SeriesDescription": "t2_tirm_tra_dark-fluid"}, "flair"),
        ({"SeriesDescription": "T2W_TSE"}, "t2"),
        ({"EchoTime": 60.0, "RepetitionTime": 5000.0, "InversionTime": 160.0}, "other"),  # STIR
        ({"EchoTime": 20.0, "RepetitionTime": 28.0, "ScanningSequence": "GR"}, "other"),  # SWI
        ({"EchoTime": 90.0, "RepetitionTime": 6000.0, "ScanningSequence": "EP"}, "other"),  # DWI
        ({**T2, "SeriesDescription": "T2* gre hemo", "EchoTime": 25.0, "ScanningSequence": "GR"}, "other"),
        ({"EchoTime": 12.0, "RepetitionTime": 2500.0}, "other"),  # proton density
        ({**TFE, "SeriesDescription": "3D TOF MRA"}, "other"),
        ({**MPRAGE, **AGENT, "ImageType": ["DERIVED", "SECONDARY", "SUBTRACTION"]}, "other"),
        ({**T2, "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "other"),
        ({**TFE, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "other"),
        ({**MPRAGE, "ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "other"),
        ({**T2, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "other"),
        ({**SE_T1, "ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "other"),
        ({**SE_T1, "Modality": "CT"}, "other"),
        ({}, "other"),
    ],
)
def test_headers(tags, modality) -> None:
    decision = decide(header(**tags))
    assert decision.modality == modality, decision
    assert decision.reasons
    assert 0 <= decision.confidence <= 1


TIRM = {"SeriesDescription": "tirm", "EchoTime": 93.0, "RepetitionTime": 9000.0}


@pytest.mark.parametrize(
    ("tags", "modality", "sure"),
    [
        ({**TIRM, "InversionTime": 2500.0}, "flair", True),  # 1.5 and 3 T, long repetition
        ({**TIRM, "InversionTime": 2050.0, "RepetitionTime": 7000.0}, "flair", True),
        ({**TIRM, "InversionTime": 150.0, "EchoTime": 60.0, "RepetitionTime": 4000.0}, "other", True),  # STIR, 1.5 T
        ({**TIRM, "InversionTime": 220.0, "EchoTime": 34.0, "RepetitionTime": 4000.0}, "other", True),  # STIR, 3 T
        (TIRM, "flair", False),
        ({**TIRM, "EchoTime": 60.0, "RepetitionTime": 4000.0}, "other", False),  # was T2, used
        ({**TIRM, "SeriesDescription": "x", "ScanningSequence": ["SE", "IR"]}, "flair", False),
        ({**TIRM, "SeriesDescription": "x", "SequenceName": "*tir2d1_16"}, "flair", False),
        ({**TIRM, "SeriesDescription": "t2_tirm_cor"}, "flair", False),
        ({"SeriesDescription": "t2_tirm_cor"}, "other", False),
        ({**TIRM, "SeriesDescription": "FLAIR"}, "flair", True),  # the name and the timing agree; was T2, used
        ({**TIRM, "SeriesDescription": "STIR", "EchoTime": 60.0}, "other", True),
        ({**TIRM, "SeriesDescription": "t1_tirm", "EchoTime": 9.0, "RepetitionTime": 2000.0}, "t1", False),
        ({**T2, "SeriesDescription": "AX T2", "ProtocolName": "BRAIN T1 T2 FLAIR"}, "t2", True),  # a name for the whole study
        ({**T2, "SeriesDescription": "T2 MOTIRM"}, "t2", True),  # no word of it
        ({"ScanningSequence": ["GR", "IR"], "EchoTime": 3.0, "RepetitionTime": 2300.0}, "t1", True),  # MPRAGE
    ],
)
def test_an_inversion_recovery_is_no_spin_echo(tags, modality, sure) -> None:
    """Without an inversion time long echoes and repetitions are no T2."""
    decision = decide(header(**tags))
    assert (decision.modality, decision.confidence >= SURE) == (modality, sure), decision


def test_enhanced_files_say_it_in_functional_groups() -> None:
    timing, echo, inversion, shared = Dataset(), Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, echo.EffectiveEchoTime, inversion.InversionTimes = 9000.0, 120.0, 2500.0
    shared.MRTimingAndRelatedParametersSequence = [timing]
    shared.MREchoSequence, shared.MRModifierSequence = [echo], [inversion]
    assert decide(header(SharedFunctionalGroupsSequence=[shared])).modality == "flair"


def test_the_time_of_the_injection_outweighs_an_agent_typed_in_for_the_whole_study() -> None:
    before = decide(header(**SE_T1, **AGENT, ContrastBolusStartTime="101500", AcquisitionTime="100200.25"))
    after = decide(header(**SE_T1, ContrastBolusStartTime="101500", AcquisitionTime="102200"))
    assert (before.modality, after.modality) == ("t1", "t1c")
    assert "acquired before the injection" in before.reasons


def test_evidence_makes_sure_and_contradiction_unsure() -> None:
    name_alone = decide(header(SeriesDescription="t1"))
    both = decide(header(**SE_T1, **AGENT, SeriesDescription="T1 post"))
    against = decide(header(**SE_T1, **AGENT, SeriesDescription="T1 pre"))
    assert name_alone.confidence < both.confidence
    assert against.confidence < both.confidence
    assert decide(header(**SE_T1)).confidence < 0.7  # no word of contrast is no proof that there was none


def test_a_reformatted_series_is_known_as_one() -> None:
    assert decide(header(**MPRAGE, ImageType=["DERIVED", "SECONDARY", "MPR"])).reformatted
