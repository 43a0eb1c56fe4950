"""Published collections, laid out as they are published, become site folders."""

from pathlib import Path

import numpy as np
import pytest

from client.data.collection import copy_collection
from client.data.preset import PRESETS, read_preset
from client.data.volume import Volume, load_nifti, save_nifti
from common.config.run import RunConfig
from common.data.cases import Site, read_site
from common.errors import ConfigError, DataError
from common.tasks.classification import Classification

CLASSES = Classification().classes
ALL = {"t1", "t1c", "t2", "flair"}


def image(path: Path, value: float = 1.0) -> None:
    voxels = np.zeros((6, 5, 4), np.float32)
    voxels[2:4, 2:4, 1:3] = value
    save_nifti(Volume(voxels, np.eye(4)), path, np.int16)


def make(folder: Path, pattern: str, names: tuple[str, ...], mask: str = "", value: float = 1) -> None:
    for number, name in enumerate(names):
        image(folder / pattern.format(name), 10 + number)
    if mask:
        image(folder / mask, value)


def imported(preset: str, source: Path, out: Path, **how) -> tuple[Site, tuple[str, ...]]:
    result = copy_collection(read_preset(preset), source, out, progress=lambda done, total: None, **how)
    return read_site(out, RunConfig()), result.notes


def labels(site: Site) -> dict[str, str]:
    return {case.id: CLASSES[case.label] if case.label >= 0 else "n/a" for case in site.cases}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole(name: str) -> None:
    preset = read_preset(name)
    assert set(preset.files) - {"mask"} == ALL
    assert preset.questions
    assert preset.evidence
    assert {rule.name for rule in preset.classes} <= set(CLASSES)


def test_brats_2021(tmp_path: Path) -> None:
    names, mask = ("t1", "t1ce", "t2", "flair"), "BraTS2021_00006_seg.nii.gz"
    make(tmp_path / "in" / "BraTS2021_00006", "BraTS2021_00006_{}.nii.gz", names, mask, 4)
    site, _ = imported("brats2021", tmp_path / "in", tmp_path / "site")
    (case,) = site.cases
    assert set(case.files) == ALL
    assert case.files["t1c"].read_bytes() == (tmp_path / "in" / "BraTS2021_00006" / "BraTS2021_00006_t1ce.nii.gz").read_bytes()


@pytest.mark.parametrize(("preset", "value", "tumour"), [("brats2023", 3, True), ("brats2024", 3, True), ("brats2024", 4, False)])
def test_brats_2023_and_2024(tmp_path: Path, preset: str, value: int, tumour: bool) -> None:
    for visit in ("100", "101"):
        name = f"BraTS-GLI-00005-{visit}"
        make(tmp_path / "in" / name, f"{name}-{{}}.nii.gz", ("t1n", "t1c", "t2w", "t2f"), f"{name}-seg.nii.gz", value)
    site, notes = imported(preset, tmp_path / "in", tmp_path / "site")
    assert [case.id for case in site.cases] == ["sub-BraTSGLI00005100"]
    assert any("is of the same patient" in note for note in notes)
    (mask,) = (tmp_path / "site").rglob("*mask.nii.gz")
    assert bool(load_nifti(mask).voxels.any()) == tumour  # a resection cavity is no tumour


def test_a_label_that_the_collection_does_not_have_is_refused(tmp_path: Path) -> None:
    name = "BraTS-GLI-00005-100"
    make(tmp_path / "in" / name, f"{name}-{{}}.nii.gz", ("t1n",), f"{name}-seg.nii.gz", 4)
    with pytest.raises(DataError, match="expected the labels 1, 2, 3, got 4 too"):
        imported("brats2023", tmp_path / "in", tmp_path / "site")


def test_ucsf_pdgm_joins_three_digits_to_four(tmp_path: Path) -> None:
    for number in ("0004", "0005", "0391", "0391_FU016d"):
        name = f"UCSF-PDGM-{number}"
        names = ("T1", "T1_bias", "T1c", "T2", "FLAIR", "FLAIR_bias")
        make(tmp_path / "in" / f"{name}_nifti", f"{name}_{{}}.nii.gz", names, f"{name}_tumor_segmentation.nii.gz", 2)
    (tmp_path / "in" / "UCSF-PDGM-metadata_v5.csv").write_text(
        "ID,Sex,Age at MRI,Final pathologic diagnosis (WHO 2021),IDH\n"
        'UCSF-PDGM-004,M,66,"Glioblastoma, IDH-wildtype",wildtype\n'
        'UCSF-PDGM-005,F,94,"Oligodendroglioma, IDH-mutant, 1p/19q-codeleted",IDH1 p.R132H\n'
        'UCSF-PDGM-391,F,40,"Astrocytoma, IDH-mutant",IDH1 p.R132H\n'
        'UCSF-PDGM-0391_FU016d,F,40,"Astrocytoma, IDH-mutant",IDH1 p.R132H\n'
    )
    site, notes = imported("ucsf-pdgm", tmp_path / "in", tmp_path / "site")
    assert list(labels(site).values()) == ["idh-wildtype", "oligodendroglioma", "idh-mutant-astrocytoma"]
    assert [case.age for case in site.cases] == [66, 89, 40]
    assert "89+" in (tmp_path / "site" / "participants.tsv").read_text()
    assert any("FU016d" in note for note in notes)


def test_upenn_gbm_prefers_the_corrected_mask(tmp_path: Path) -> None:
    base = tmp_path / "in"
    for name in ("UPENN-GBM-00001_11", "UPENN-GBM-00002_11", "UPENN-GBM-00002_21"):
        make(base / "images_structural" / name, f"{name}_{{}}.nii.gz", ("T1", "T1GD", "T2", "FLAIR"))
        image(base / "automated_segm" / f"{name}_automated_approx_segm.nii.gz", 2)
    whole = Volume(np.full((6, 5, 4), 1, np.float32), np.eye(4))
    save_nifti(whole, base / "images_segm" / "UPENN-GBM-00001_11_segm.nii.gz", np.int16)
    (base / "UPENN-GBM_clinical_info_v2.1.csv").write_text(
        "ID,Gender,Age_at_scan_years,IDH1\nUPENN-GBM-00001_11,M,63.5,Wildtype\nUPENN-GBM-00002_11,F,50,NOS/NEC\n"
    )
    site, _ = imported("upenn-gbm", base, tmp_path / "site")
    assert labels(site) == {"sub-UPENNGBM0000111": "idh-wildtype", "sub-UPENNGBM0000211": "n/a"}
    masks = sorted((tmp_path / "site").rglob("*mask.nii.gz"))
    assert [load_nifti(mask).voxels.mean() == 1 for mask in masks] == [True, False]


@pytest.mark.parametrize("layout", ["SUBJECTS/EGD-0001/{}.nii.gz", "MR_EGD-0001/1_{0}/NIFTI/{0}.nii.gz"])
def test_egd_in_both_layouts(tmp_path: Path, layout: str) -> None:
    for name in ("T1", "T1GD", "T2", "FLAIR", "MASK"):
        image(tmp_path / "in" / layout.format(name))
    table = tmp_path / "in" / "Genetic_and_Histological_labels.csv"
    table.write_text("Subject,IDH,1p19q,Grade\nEGD-0001,0,1,4\n")  # wildtype and codeleted: wildtype
    site, _ = imported("egd", tmp_path / "in", tmp_path / "site")
    assert set(site.cases[0].files) == ALL
    assert list(labels(site).values()) == ["idh-wildtype"]


def test_tcga_takes_the_table_that_is_named(tmp_path: Path) -> None:
    stem = "TCGA-DU-7294_1989.01.04"
    mask = f"{stem}_GlistrBoost_ManuallyCorrected.nii.gz"
    make(tmp_path / "in" / "TCGA-DU-7294", f"{stem}_{{}}.nii.gz", ("t1", "t1Gd", "t2", "flair", "GlistrBoost"), mask, 4)
    table = tmp_path / "labels.tsv"
    table.write_text("PATIENT_ID\tIDH_CODEL_SUBTYPE\nTCGA-DU-7294\tIDHmut-codel\n")
    site, _ = imported("tcga", tmp_path / "in", tmp_path / "site", table=table, link=True)
    assert list(labels(site).values()) == ["oligodendroglioma"]
    assert site.cases[0].files["t1"].is_symlink()
    assert not any("1989" in str(path) for path in (tmp_path / "site").rglob("*"))


def test_a_second_run_adds_nothing(tmp_path: Path) -> None:
    make(tmp_path / "in" / "BraTS2021_00006", "BraTS2021_00006_{}.nii.gz", ("t1", "t1ce", "t2", "flair"))
    imported("brats2021", tmp_path / "in", tmp_path / "site")
    before = sorted(path for path in (tmp_path / "site").rglob("*"))
    imported("brats2021", tmp_path / "in", tmp_path / "site")
    assert sorted(path for path in (tmp_path / "site").rglob("*")) == before


def test_unknown_preset_and_wrong_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Known: brats2021"):
        read_preset("brats1999")
    with pytest.raises(DataError, match="no patient's folder named BraTS2021"):
        imported("brats2021", tmp_path, tmp_path / "site")
