"""What file names say: T1 with contrast agent or without, under every spelling that is known; masks; sidecars."""

import json
from pathlib import Path

import pytest

from common.data.gate.mask_names import Says, reads_as
from common.data.gate.names import Contrast, Name, agent_of, contrast_of, contrast_with, has_unknown_words, suffix_of

GIVEN = (  # in the words of converters, hospitals and data sets
    *("ce-gadolinium_T1w", "ce-GD_T1w", "ce-gadobutrol_T1w", "acq-postgd_T1w", "acq-PostGd_T1w", "acq-post_T1w", "acq-gd_T1w"),
    *("desc-postcontrast_T1w", "desc-post_T1w", "desc-withcontrast_T1w", "acq-contrast_T1w", "acq-KM_T1w", "acq-Gadovist_T1w"),
    *("acq-mprageGd_T1w", "acq-mpragepostgd_T1w", "acq-MPRAGEpost_T1w", "acq-T1CE_T1w", "acq-ce_T1w", "rec-post_T1w", "post_T1w"),
    *(
        "acq-enhanced_T1w",
        "acq-3DT1GD_T1w",
        "T1c",
        "T1C",
        "T1Gd",
        "t1ce",
        "T1wC",
        "T1wCE",
        "T1post",
        "T1_post",
        "T1w_post",
        "T1-Gd",
    ),
    *(
        "T1+C",
        "T1KM",
        "T1w_Gd",
        "T1_ce",
        "T1_contrast",
        "acq-mdc_T1w",
        "acq-inj_T1w",
        "acq-apresinjection_T1w",
        "acq-spacece_T1w",
    ),
    *("acq-3Dce_T1w", "acq-Cplus_T1w", "acq-vueway_T1w", "acq-elucirem_T1w"),
)
WITHOUT = (
    *(
        "acq-pregd_T1w",
        "acq-PreGd_T1w",
        "acq-pre_T1w",
        "acq-precontrast_T1w",
        "acq-noncontrast_T1w",
        "acq-nogd_T1w",
        "ce-none_T1w",
    ),
    *(
        "acq-native_T1w",
        "acq-unenhanced_T1w",
        "acq-ohneKM_T1w",
        "acq-withoutGd_T1w",
        "T1pre",
        "T1_pre",
        "T1w_native",
        "acq-woce_T1w",
    ),
    *("acq-sanscontraste_T1w", "acq-sincontraste_T1w", "acq-senzamdc_T1w", "acq-sansgado_T1w", "acq-noninjected_T1w"),
)
SILENT = (
    *("T1w", "T1", "t1n", "acq-mprage_T1w", "acq-space_T1w", "acq-highres_T1w", "desc-preproc_T1w", "desc-defaced_T1w"),
    *("rec-prenorm_T1w", "acq-postop_T1w", "acq-preop_T1w", "ses-post_T1w", "ses-postgd_T1w", "run-1_T1w", "acq-posterior_T1w"),
    *("acq-reduced_T1w", "acq-posttreatment_T1w", "acq-sag3D_T1w", "acq-surface_T1w", "acq-distance_T1w"),
)
UNCLEAR = ("ce-gd_acq-pre_T1w", "acq-pregd_ce-gadolinium_T1w", "acq-native_T1c", "acq-c_T1w", "ce-none_acq-postgd_T1w")


@pytest.mark.parametrize(
    ("names", "said"),
    [(GIVEN, Contrast.GIVEN), (WITHOUT, Contrast.WITHOUT), (SILENT, Contrast.SILENT), (UNCLEAR, Contrast.UNCLEAR)],
)
def test_contrast_agent_by_name(names: tuple[str, ...], said: Contrast) -> None:
    read = {text: Name(f"sub-1_{text}.nii.gz") for text in names}
    assert {text: suffix_of(name) for text, name in read.items()} == dict.fromkeys(names, "t1")
    assert {text: contrast_of(name) for text, name in read.items()} == dict.fromkeys(names, said)


@pytest.mark.parametrize(
    ("text", "modality"),
    [
        *(("T2w", "t2"), ("t2", "t2"), ("FLAIR", "flair"), ("flair", "flair"), ("T2FLAIR", "flair"), ("acq-FLAIR_T2w", "flair")),
        *(("acq-darkfluid_T2w", "flair"), ("acq-T2_FLAIR", "flair"), ("ADC", "adc"), ("T1map", None), ("T2star", None)),
        *(("T2starw", None), ("T1rho", None), ("PDw", None), ("dwi", None), ("MP2RAGE", None), ("T2map", None), ("mask", None)),
    ],
)
def test_suffixes(text: str, modality: str | None) -> None:
    assert suffix_of(Name(f"sub-1_{text}.nii.gz")) == modality


@pytest.mark.parametrize("text", ["acq-scout_T1w", "desc-subtraction_T1w", "acq-sub_T1w", "rec-MIP_T1w", "desc-survey_T2w"])
def test_what_is_no_image_to_train_on(text: str) -> None:
    assert Name(f"sub-1_{text}.nii.gz").is_scout
    assert not any(Name(f"sub-sub_{name}.nii.gz").is_scout for name in (*GIVEN, *WITHOUT, *SILENT))


@pytest.mark.parametrize(("text", "unknown"), [("acq-XY_T1w", True), ("acq-mprage1mm_T1w", False), ("T1w", False)])
def test_a_word_that_nobody_knows(text: str, unknown: bool) -> None:
    assert has_unknown_words(Name(f"sub-1_{text}.nii.gz")) is unknown


@pytest.mark.parametrize(
    ("fields", "agent"),
    [
        ({"ContrastBolusAgent": "Gadobutrol"}, True),
        ({"ContrastBolusIngredient": "GADOLINIUM", "ContrastBolusAgent": ""}, True),
        ({"ContrastBolusAgent": "None"}, False),
        ({"ContrastBolusAgent": ""}, None),
        ({"EchoTime": 0.01}, None),
        (["no", "table"], None),
    ],
)
def test_a_sidecar_tells_of_contrast_agent(tmp_path: Path, fields: object, agent: bool | None) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(fields))
    assert agent_of(file) is agent
    assert agent_of(tmp_path / "absent.json") is None


def test_name_and_sidecar_together() -> None:
    assert contrast_with(Contrast.SILENT, True) is Contrast.GIVEN
    assert contrast_with(Contrast.SILENT, False) is Contrast.WITHOUT
    assert contrast_with(Contrast.WITHOUT, True) is Contrast.UNCLEAR
    assert contrast_with(Contrast.GIVEN, None) is Contrast.GIVEN


@pytest.mark.parametrize(
    ("says", "names"),
    [
        (
            Says.TUMOUR,
            ("desc-tumour_mask", "desc-tumor_dseg", "label-lesion_roi", "label-L_desc-T1lesion_mask", "desc-braintumor_mask"),
        ),
        (Says.TUMOUR, ("tumor", "lesion", "desc-glioma_seg", "tumor_segmentation", "tumourmask", "label-GTV_mask")),
        (Says.SEGMENTATION, ("dseg", "seg", "roi", "desc-seg_mask", "desc-manual_dseg", "segmask")),
        (Says.NOTHING, ("mask", "desc-manual_mask", "space-T1w_mask")),
        (
            Says.OTHER,
            ("desc-brain_mask", "label-brain_mask", "desc-aseg_dseg", "desc-aparcaseg_dseg", "label-GM_mask", "desc-hdbet_mask"),
        ),
        (Says.OTHER, ("label-WM_dseg", "desc-ribbon_mask", "brainmask", "desc-skullstrip_mask", "desc-brain_seg_mask")),
        (None, ("T1w", "FLAIR", "label-GM_probseg", "bold")),
    ],
)
def test_masks_by_name(says: Says | None, names: tuple[str, ...]) -> None:
    assert {text: reads_as(Name(f"sub-1_{text}.nii.gz")) for text in names} == dict.fromkeys(names, says)


def test_the_data_set_speaks_for_a_mask_that_says_nothing() -> None:
    name = Name("sub-1_mask.nii.gz")
    assert reads_as(name, "lesion-masks") is Says.TUMOUR
    assert reads_as(name, "seg") is Says.SEGMENTATION
    assert reads_as(name, "fmriprep") is Says.OTHER
    assert reads_as(name, "masks") is Says.NOTHING
    assert reads_as(Name("sub-1_dseg.nii.gz"), "synthseg") is Says.OTHER
