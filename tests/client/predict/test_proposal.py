"""Proposed masks: in the patient's own space as NIfTI and DICOM SEG, and under a prediction that says what it owes to them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from client.cli.main import main
from client.cli.propose import require_apart
from client.predict import guided, proposal
from client.predict.mask_file import NAME, as_stored, nifti_of
from client.predict.proposal import NOTE, NOTHING, Proposal, slices_through
from common.config.run import RunConfig
from common.data.cases import UNLABELLED, Case
from common.data.gate.patient import read_patient
from common.errors import DataError
from simulation.phantom.dicom import Scan, write_classic

SEGMENTS: dict[str, dict[str, Any]] = {
    "data": {"size": 32, "slices": 2, "through": "brain", "field_of_view": 160.0},
    "task": {"name": "segmentation", "decoder": "linear"},
    "model": {"head": "linear", "head_hidden": 0},
    "objective": {
        "terms": {"segmentation": {"weight": 1.0}} | {n: {"weight": 0.0} for n in ("classification", "dino", "ibot", "koleo")}
    },
    "evaluation": {"every": 0},
}
AXES = [np.diag([-1.5, 1.5, 3.0, 1.0]), np.array([[0, 0, 3.0, 5], [-1.5, 0, 0, 7], [0, 1.5, 0, -9], [0, 0, 0, 1.0]])]


@pytest.fixture(scope="session")
def segmenter(model_of: Callable[..., Path]) -> Path:
    return model_of(**SEGMENTS)


def patient_of(tmp_path: Path, affine: np.ndarray, shape: tuple[int, int, int] = (40, 36, 30)) -> tuple[Case, np.ndarray]:
    """An image in any axes, and the stored voxels of an uneven corner that stands for a tumour."""
    grid = np.stack(np.meshgrid(*(np.arange(n) - n / 2 for n in shape), indexing="ij"))
    head = (grid**2).sum(0) < 13**2
    corner = head & (grid[0] > 2) & (grid[1] < -1) & (grid[2] > 3)
    values = (400 + np.random.default_rng(0).normal(0, 20, shape)) * head
    nib.save(Nifti1Image(values.astype(np.float32), affine), tmp_path / "t1.nii")  # type: ignore[attr-defined]
    return Case("sub-1", {"t1": tmp_path / "t1.nii"}, None, UNLABELLED, None, None, tmp_path), corner


def loaded(file: Path) -> Any:
    return nib.load(file)  # type: ignore[attr-defined]


def proposal_of(case: Case, stored: np.ndarray, affine: np.ndarray) -> Proposal:
    read = read_patient(case, RunConfig().data)
    canonical = nib.as_closest_canonical(Nifti1Image(stored.astype(np.uint8), affine))  # type: ignore[attr-defined]
    return Proposal(case, np.asarray(canonical.dataobj) > 0, read.reference, "t1", ("t1",))


@pytest.mark.parametrize("affine", AXES)
def test_a_mask_lies_on_the_voxels_of_the_patients_own_file(tmp_path: Path, affine: np.ndarray) -> None:
    case, corner = patient_of(tmp_path, affine)
    found = proposal_of(case, corner, affine)
    np.testing.assert_array_equal(as_stored(found), corner)
    (tmp_path / "mask.nii.gz").write_bytes(nifti_of(found))
    mask, image = loaded(tmp_path / "mask.nii.gz"), loaded(tmp_path / "t1.nii")
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine)
    assert b"proposed" in bytes(mask.header["descrip"])
    assert found.ml == pytest.approx(corner.sum() * 1.5 * 1.5 * 3 / 1000)


def test_a_proposal_is_never_taken_for_a_drawn_mask() -> None:
    from common.config.modalities import MASKS

    assert not any(Path(f"a/sub-1_{NAME}.nii.gz").match(pattern.removeprefix("**/")) for pattern in MASKS)


def test_slices_go_through_the_proposed_tumour_as_through_a_drawn_one(tmp_path: Path) -> None:
    affine = AXES[0]
    case, corner = patient_of(tmp_path, affine)
    nib.save(Nifti1Image(corner.astype(np.uint8), affine), tmp_path / "mask.nii")  # type: ignore[attr-defined]
    from common.data.slices import slice_case

    found = slices_through(proposal_of(case, corner, affine), RunConfig())
    drawn = slice_case(replace(case, mask=tmp_path / "mask.nii"), RunConfig().data)
    assert found is not None
    assert found.tumour
    np.testing.assert_array_equal(found.images, drawn.images)
    assert slices_through(proposal_of(case, np.zeros_like(corner), affine), RunConfig()) is None


def test_a_dicom_seg_marks_the_pixels_of_its_series(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    import highdicom as hd

    from client.predict.dicom_seg import read_series, seg_of

    affine = np.diag([-1.5, -1.5, 3.0, 1.0])  # DICOM's own axes
    case, corner = patient_of(tmp_path, affine)
    voxels = np.rint(np.asarray(loaded(tmp_path / "t1.nii").dataobj)).astype(np.int32)
    write_classic(Scan(voxels, affine), tmp_path / "series")
    found = proposal_of(case, corner, affine)
    images = read_series(tmp_path / "series")
    (tmp_path / "seg.dcm").write_bytes(seg_of(found, images, "0"))
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert "not drawn" in seg.SeriesDescription
    where = {image.SOPInstanceUID: round((image.ImagePositionPatient[2] - affine[2, 3]) / 3.0) for image in images}
    pixels = seg.get_pixels_by_source_instance(list(where), assert_missing_frames_are_empty=True)[..., 0]
    for frame, k in zip(pixels, where.values(), strict=True):
        np.testing.assert_array_equal(frame, corner[:, :, k].T)
    other = proposal_of(case, corner, affine)
    away = replace(
        other, reference=replace(other.reference, affine=other.reference.affine + np.diag([0, 0, 0, 0.0]) + 400 * np.eye(4, k=3))
    )
    with pytest.raises(DataError, match="Name the series"):
        seg_of(away, images, "0")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (("PixelSpacing",), "lack PixelSpacing"),
        (("ImagePositionPatient", "ImageOrientationPatient"), "lack ImageOrientationPatient, ImagePositionPatient"),
        (("FrameOfReferenceUID",), "lack FrameOfReferenceUID"),
    ],
)
def test_a_series_that_has_no_place_in_the_patient_is_refused_by_what_it_lacks(
    tmp_path: Path, spoil: tuple[str, ...], said: str
) -> None:
    """As screenshots and some exports."""
    pytest.importorskip("highdicom")
    from pydicom import dcmread

    from client.predict.dicom_seg import read_series

    write_classic(Scan(np.ones((8, 8, 3), np.int32), np.diag([-1.5, -1.5, 3.0, 1.0])), tmp_path / "series")
    for file in (one for one in (tmp_path / "series").rglob("*") if one.is_file()):
        image = dcmread(file)
        for name in spoil:
            delattr(image, name)
        image.save_as(file)
    with pytest.raises(DataError, match=said):
        read_series(tmp_path / "series")


def test_nothing_proposed_is_a_seg_without_a_mark(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    import highdicom as hd

    from client.predict.dicom_seg import read_series, seg_of

    affine = np.diag([-1.5, -1.5, 3.0, 1.0])
    case, corner = patient_of(tmp_path, affine)
    write_classic(Scan(np.ones(corner.shape, np.int32), affine), tmp_path / "series")
    (tmp_path / "seg.dcm").write_bytes(
        seg_of(proposal_of(case, np.zeros_like(corner), affine), read_series(tmp_path / "series"), "0")
    )
    assert not hd.seg.segread(tmp_path / "seg.dcm").pixel_array.any()


def test_a_series_of_another_patient_leaves_no_file(segmenter: Path, phantom: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("highdicom")
    away = np.diag([-1.5, -1.5, 3.0, 1.0]) + 4000 * np.eye(4, k=3) * np.array([[1], [1], [1], [0]])
    write_classic(Scan(np.ones((8, 8, 3), np.int32), away), tmp_path / "series")
    ask = ["predict", str(phantom), "--model", str(segmenter), "--masks", str(tmp_path / "masks")]
    code = main([*ask, "--dicom", str(tmp_path / "series")])
    told = capsys.readouterr().err
    assert (code, "Name the series" in told) == (1, True), told
    assert not (tmp_path / "masks").exists()  # the NIfTI neither


def test_two_patients_whose_files_would_have_one_name_are_refused(tmp_path: Path) -> None:
    case, _ = patient_of(tmp_path, np.eye(4))
    require_apart([replace(case, id=name) for name in ("sub-1", "sub-2", "sub-a_b")])
    with pytest.raises(DataError, match="'sub-a b' and 'sub-a_b'"):
        require_apart([replace(case, id=name) for name in ("sub-1", "sub-a b", "sub-a_b")])


def test_predict_writes_masks_and_says_that_nobody_drew_them(segmenter: Path, phantom: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["predict", str(phantom), "--model", str(segmenter), "--masks", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["proposed"] is True
    assert told["note"] == (NOTE if told["ml"] else NOTHING)
    mask = loaded(Path(told["files"]["nifti"]))
    image = loaded(next((phantom / "anat").glob("*T1w*")))
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
    assert told["ml"] == pytest.approx(np.asarray(mask.dataobj).sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000, rel=1e-4)
    assert told["drawn"]["drawn_ml"] > 0  # the phantom has a mask: how far the proposal is from it is told


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model", "SEG"], "--masks DIR"),
        (["--model", "SEG", "--masks", "m", "--card", "c"], "--card"),
        (["--model", "SEG", "--masks", "m", "--mask-model", "SEG"], "--mask-model"),
        (["--model", "RUN", "--masks", "m"], "--masks"),
        (["--model", "RUN", "--mask-model", "RUN"], "expected a model that segments"),
    ],
)
def test_options_of_the_other_kind_of_model_are_refused(
    segmenter: Path, run: Path, phantom: Path, capsys: Any, options: list[str], named: str
) -> None:
    said = [{"SEG": str(segmenter), "RUN": str(run)}.get(word, word) for word in options]
    assert main(["predict", str(phantom), *said]) == 2
    assert named in capsys.readouterr().err


@pytest.fixture
def unmasked(phantom: Path, tmp_path: Path) -> Path:
    """The phantom without its mask."""
    folder = tmp_path / "sub-1" / "anat"
    folder.mkdir(parents=True)
    for file in (phantom / "anat").glob("*"):
        if "mask" not in file.name:
            (folder / file.name).write_bytes(file.read_bytes())
    return tmp_path / "sub-1"


def test_a_prediction_says_what_it_owes_to_a_proposed_mask(
    segmenter: Path, run: Path, phantom: Path, unmasked: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a proposal that is the drawn mask: the answer is that with the drawn mask, beside that without."""
    data = RunConfig().data

    def as_drawn(_: object, case: Case) -> Proposal:
        read = read_patient(replace(case, mask=next((phantom / "anat").glob("*mask*"))), data)
        return Proposal(case, read.region, read.reference, "t1", ("t1",))

    monkeypatch.setattr(guided, "propose", as_drawn)
    ask = ["predict", str(unmasked), "--model", str(run), "--evidence", "none", "--json"]
    assert main([*ask, "--mask-model", str(segmenter)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(ask) == 0
    without = json.loads(capsys.readouterr().out)
    assert main(["predict", str(phantom), *ask[2:]]) == 0
    drawn = json.loads(capsys.readouterr().out)
    assert told["probabilities"] == pytest.approx(drawn["probabilities"], abs=1e-6)
    assert told["proposed_mask"]["probabilities_without"] == pytest.approx(without["probabilities"], abs=1e-6)
    assert told["slices"]["through"] == "proposed tumour"
    assert "nobody drew it" in told["slices"]["why"]
    assert (without["proposed_mask"], without["slices"]["through"]) == (None, "brain")
    assert main([*ask[:-1], "--mask-model", str(segmenter)]) == 0
    assert "Without the proposed mask:" in capsys.readouterr().out


def nothing(_: object, case: Case) -> Proposal:
    """In the place of `propose`: an empty mask."""
    read = read_patient(case, RunConfig().data)
    return Proposal(case, np.zeros(read.reference.voxels.shape, bool), read.reference, "t1", ("t1",))


@pytest.mark.parametrize("as_json", [True, False])
def test_a_mask_without_tumour_is_told_to_be_one(
    segmenter: Path, phantom: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setattr(proposal, "propose", nothing)
    more = ["--json"] if as_json else []
    assert main(["predict", str(phantom), "--model", str(segmenter), "--masks", str(tmp_path), *more]) == 0
    told = capsys.readouterr()
    if as_json:
        assert json.loads(told.out)["note"] == NOTHING
    assert f"{phantom.name}: {NOTHING}" in told.err


def test_where_nothing_is_proposed_the_answer_says_so(
    segmenter: Path, run: Path, unmasked: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guided, "propose", nothing)
    ask = ["predict", str(unmasked), "--model", str(run), "--evidence", "none", "--json", "--mask-model", str(segmenter)]
    assert main(ask) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["proposed_mask"] is None
    assert "proposes none (0.00 ml)" in told["slices"]["why"]
    assert proposal.LEAST_ML > 0
