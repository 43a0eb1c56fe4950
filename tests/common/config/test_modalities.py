"""The table against what the code said before there was one, literally."""

from common.config.modalities import DEFAULT_MODALITIES, MODALITIES, NAMINGS, Modality, file_patterns, looked_for
from common.config.sections import DataConfig
from common.config.site import SiteConfig

MASKS = ("**/*tumour*mask.nii*", "**/*tumor*mask.nii*", "**/*lesion*mask.nii*", "**/*seg*mask.nii*")
BEFORE = {  # by naming, in the order t1, t1c, t2, flair
    "bids": ("**/anat/*_T1w.nii*", "**/anat/*_ce-*_T1w.nii*", "**/anat/*_T2w.nii*", "**/anat/*_FLAIR.nii*"),
    "bids_flat": ("*_T1w.nii*", "*_ce-*_T1w.nii*", "*_T2w.nii*", "*_FLAIR.nii*"),
    "brats": ("*t1.nii*", "*t1ce.nii*", "*t2.nii*", "*flair.nii*"),
    "brats_2023": ("*-t1n.nii*", "*-t1c.nii*", "*-t2w.nii*", "*-t2f.nii*"),
}


def test_the_first_four_rows_are_what_the_code_said():
    assert DEFAULT_MODALITIES == DataConfig().modalities == tuple(MODALITIES)[:4] == ("t1", "t1c", "t2", "flair")
    assert {naming: tuple(g for m in DEFAULT_MODALITIES for g in file_patterns(naming)[m]) for naming in NAMINGS} == BEFORE
    assert [MODALITIES[m].suffix for m in DEFAULT_MODALITIES] == ["T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"]
    assert SiteConfig().files == {m: (glob,) for m, glob in zip(DEFAULT_MODALITIES, BEFORE["bids"], strict=True)} | {
        "adc": ("**/dwi/*_[Aa][Dd][Cc].nii*", "**/anat/*_[Aa][Dd][Cc].nii*"),
        "image": (
            *("**/*.[Pp][Nn][Gg]", "**/*.[Jj][Pp][Gg]", "**/*.[Jj][Pp][Ee][Gg]"),
            *("**/*.[Dd][Cc][Mm]", "**/*.[Dd][Ii][Cc][Oo][Mm]"),
        ),
        "mask": MASKS,
    }
    assert {m: row.unlike for m, row in MODALITIES.items() if row.unlike} == {"t1": ("t1c",)}
    assert [m for m, row in MODALITIES.items() if row.quantity] == ["adc"]


def test_no_word_names_two_modalities():
    words = [word for row in MODALITIES.values() for word in (row.name, *row.aliases)]
    assert len(words) == len(set(words))


def test_the_four_are_always_looked_for_and_others_when_a_run_names_them(monkeypatch):
    monkeypatch.setitem(MODALITIES, "swi", Modality("swi", "SWI", "swi", "swi", ("swi", "swi"), folders=("swi",)))
    assert looked_for(("flair",)) == DEFAULT_MODALITIES
    assert looked_for(("swi", "t1", "adc")) == (*DEFAULT_MODALITIES, "adc", "swi")
