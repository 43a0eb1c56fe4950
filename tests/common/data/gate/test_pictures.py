"""Pictures as volumes of one slice: cut, they are the picture itself; what is no picture is named for what it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.cli import config_path
from common.config.pictures import require_volumes
from common.config.run import RunConfig, config_from_json, config_from_table, load_config
from common.data.cache import open_site
from common.data.cases import read_site
from common.data.check import check_site
from common.data.gate.files import load_volume
from common.data.gate.finding import StaysOutError
from common.data.gate.pictures import EDGE
from common.data.slices import slice_case
from common.errors import ConfigError
from common.ternary import NO, YES, encode

TABLE: dict[str, Any] = {
    "data": {
        "modalities": ["image"],
        "slices": 1,
        "size": 64,
        "field_of_view": EDGE,
        "low_percentile": 0.0,
        "high_percentile": 100.0,
    },
    "task": {"name": "findings", "findings": ["effusion", "nodule"]},
    "objective": {
        "terms": {"findings": {"weight": 1.0}} | {n: {"weight": 0.0} for n in ("classification", "dino", "ibot", "koleo")}
    },
    "evaluation": {"every": 0},
}
CONFIG = config_from_table(TABLE)


def changed(section: str, **values: object) -> dict[str, Any]:
    return {**TABLE, section: {**TABLE.get(section, {}), **values}}


def picture(rows: int = 64, columns: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth, brighter to the right and below, with a corner that is dark: no turn of it looks alike."""
    y, x = np.mgrid[:rows, :columns] / (max(rows, columns) - 1)
    grey = 40 + 120 * x + 60 * y + np.random.default_rng(seed).integers(0, 3, (rows, columns))
    grey[: rows // 4, : columns // 4] = 20
    return grey.astype(np.uint8)


def saved(file: Path, pixels: np.ndarray, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


def site_of(folder: Path, count: int = 3) -> Path:
    for n in range(count):
        saved(folder / f"sub-{n}" / f"xray{n}.{('png', 'JPG', 'jpeg')[n % 3]}", picture(seed=n))
    rows = "".join(f"sub-{n}\t{'yes' if n % 2 else 'no'}\tn/a\n" for n in range(count))
    (folder / "participants.tsv").write_text("participant_id\teffusion\tnodule\n" + rows)
    return folder


def only_case(folder: Path, config: RunConfig = CONFIG) -> Any:
    (case,) = read_site(folder, config).cases
    return case


def code_of(file: Path) -> tuple[str, str]:
    with pytest.raises(StaysOutError) as caught:
        load_volume(file)
    [found] = caught.value.findings
    return found.code, found.found


def test_what_is_cut_is_the_picture_itself(tmp_path: Path) -> None:
    pixels = picture()
    saved(tmp_path / "sub-1" / "a.png", pixels)
    cut = slice_case(only_case(tmp_path), CONFIG.data)
    assert (cut.images.shape, cut.present.tolist(), cut.tumour) == ((1, 1, 64, 64), [True], False)
    low, high = float(pixels.min()), float(pixels.max())
    np.testing.assert_allclose(cut.images[0, 0], (pixels - low) / (high - low), atol=2e-3)


def test_a_wide_picture_is_whole_and_has_black_above_and_below(tmp_path: Path) -> None:
    pixels = picture(32, 64)
    saved(tmp_path / "sub-1" / "a.png", pixels)
    found = slice_case(only_case(tmp_path), CONFIG.data).images[0, 0].astype(float)
    low, high = float(pixels.min()), float(pixels.max())
    np.testing.assert_allclose(found[16:48], (pixels - low) / (high - low), atol=2e-3)
    assert (found[:15] == 0).all()
    assert (found[49:] == 0).all()
    middle = config_from_table(changed("data", field_of_view=EDGE / 2, size=32))
    half = slice_case(only_case(tmp_path, middle), middle.data).images[0, 0].astype(float)
    np.testing.assert_allclose(half, found[16:48, 16:48], atol=2e-3)


def test_sixteen_bits_keep_their_levels_and_colours_become_brightness(tmp_path: Path) -> None:
    deep = (picture().astype(np.uint16) * 200) + 7
    volume = load_volume(saved(tmp_path / "deep.png", deep))
    np.testing.assert_array_equal(volume.voxels[::-1, ::-1, 0].T, deep)
    assert volume.spacing == pytest.approx((EDGE / 64,) * 3)
    colour = np.stack([picture(), picture(seed=5)[::-1], np.full((64, 64), 90, np.uint8)], axis=2)
    saved(tmp_path / "sub-1" / "c.png", colour)
    cut = slice_case(only_case(tmp_path), CONFIG.data)
    assert [(one.code, one.patient, one.file) for one in cut.findings] == [("picture-grey", "sub-1", "sub-1/c.png")]
    grey = load_volume(tmp_path / "sub-1" / "c.png").voxels[::-1, ::-1, 0].T
    np.testing.assert_allclose(grey, colour @ np.array([0.299, 0.587, 0.114]), atol=1)  # ITU-R 601


def test_a_picture_stands_as_its_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    saved(tmp_path / "a.png", picture(40, 64), exif=exif)
    volume = load_volume(tmp_path / "a.png")
    np.testing.assert_array_equal(volume.voxels[::-1, ::-1, 0].T, np.rot90(picture(40, 64), -1))


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bytes(128) + b"DICM" + bytes(400))
    assert code_of(tmp_path / "a.png") == ("picture-not-read", "a DICOM file")
    whole = saved(tmp_path / "b.png", picture()).read_bytes()
    (tmp_path / "c.png").write_bytes(whole[: len(whole) // 2])
    assert code_of(tmp_path / "c.png")[0] == "picture-not-read"
    assert "damaged" in code_of(tmp_path / "c.png")[1]
    (tmp_path / "e.png").touch()
    assert code_of(tmp_path / "e.png") == ("picture-not-read", "empty (0 bytes)")
    (tmp_path / "f.png").write_bytes(whole[:8] + bytes(50))
    assert code_of(tmp_path / "f.png") == ("picture-not-read", "damaged (cannot identify image file)")  # no object's address
    assert code_of(tmp_path / "gone.png")[0] == "picture-not-read"
    frames = [Image.fromarray(picture(seed=n)) for n in range(2)]
    frames[0].save(tmp_path / "d.png", save_all=True, append_images=frames[1:])
    assert code_of(tmp_path / "d.png") == ("picture-several", "2 pictures")


def test_two_pictures_of_a_patient_and_empty_ones_keep_them_out(tmp_path: Path) -> None:
    saved(tmp_path / "sub-1" / "a.png", picture())
    saved(tmp_path / "sub-1" / "b.jpg", picture())
    saved(tmp_path / "sub-2" / "a.png", np.zeros((64, 64), np.uint8))
    saved(tmp_path / "sub-3" / "a.png", picture())
    site = read_site(tmp_path, CONFIG)
    check = check_site(site, CONFIG)
    assert {(one.patient, one.code) for one in check.findings if one.level == "error"} == {
        ("sub-1", "file-twins"),
        ("sub-2", "image-constant"),
    }
    assert check.used == 1


def test_mri_and_pictures_do_not_disturb_each_other(tmp_path: Path) -> None:
    saved(tmp_path / "sub-1" / "figure.png", picture())
    (tmp_path / "sub-1" / "anat").mkdir()
    (tmp_path / "sub-1" / "anat" / "sub-1_T1w.nii.gz").touch()
    assert list(only_case(tmp_path, RunConfig()).files) == ["t1"]
    assert "image" in only_case(tmp_path).files


def test_a_site_of_pictures_is_opened_checked_and_cached(tmp_path: Path) -> None:
    site = read_site(site_of(tmp_path / "site"), CONFIG)
    check = check_site(site, CONFIG)
    assert (check.used, check.classes) == (3, {"effusion": 1, "nodule": 0, "unlabelled": 0})
    assert not check.of("error")  # type: ignore[arg-type]
    patients = open_site(site, CONFIG.data, tmp_path / "cache", workers=1)
    assert patients.images.shape == (3, 1, 1, 64, 64)
    assert patients.labels.tolist() == [encode((NO, 2)), encode((YES, 2)), encode((NO, 2))]
    assert np.array_equal(open_site(site, CONFIG.data, tmp_path / "cache", workers=1).images, patients.images)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (changed("data", modalities=["t1", "image"]), "pictures are not read beside MRI"),
        (changed("data", slices=2), r"data\.slices = 2 cannot run on pictures"),
        (changed("data", axes=["coronal"]), r"data\.axes"),
        (changed("data", harmonise=True), r"data\.harmonise"),
        (changed("model", pooling="guided"), r"model\.pooling"),
        (changed("model", public_features="phantom-tissue", pooling="taught"), r"model\.public_features"),
    ],
)
def test_what_pictures_lack_is_refused_by_name(table: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config_from_table(table)


def test_the_shipped_configuration_is_one_and_export_refuses_it() -> None:
    config = load_config(config_path("images"))
    assert config.data.modalities == ("image",)
    assert config_from_json(config.to_json()) == config
    with pytest.raises(ConfigError, match="Export knows models of volumes"):
        require_volumes(config, "Export")
    require_volumes(RunConfig(), "Export")
