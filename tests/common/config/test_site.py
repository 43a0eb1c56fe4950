"""site.toml: what it may say, and how it is refused."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.config.site import SiteConfig, SitePolicy, find_sites, read_site_config
from common.errors import ConfigError

BRATS = """
name = "Bonn"
data = "../elsewhere"
patients = "BraTS*"
exclude = ["BraTS2021_00001"]

[files]
t1 = "t1.nii.gz"
t1c = ["t1ce.nii.gz", "t1gd.nii.gz"]
mask = ""

[labels]
column = "grade"
map = { "4" = "idh-wildtype" }

[policy]
share_counts = true
"""


def test_every_field_is_read(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(BRATS)
    config = read_site_config(tmp_path)
    assert config == read_site_config(tmp_path / "site.toml")
    assert (config.name, config.data, config.patients) == ("Bonn", "../elsewhere", "BraTS*")
    assert config.exclude == ("BraTS2021_00001",)
    assert config.files["t1"] == ("t1.nii.gz",)
    assert config.files["t1c"] == ("t1ce.nii.gz", "t1gd.nii.gz")
    assert config.files["mask"] == ()
    assert config.labels.map == {"4": "idh-wildtype"}
    assert config.policy == SitePolicy(share_counts=True, share_metrics=False)


def test_a_folder_without_the_file_is_strict_bids(tmp_path: Path) -> None:
    assert read_site_config(tmp_path) == SiteConfig()
    assert SiteConfig().policy == SitePolicy(share_counts=False, share_metrics=False)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("patient = 'sub-*'", "patient"),
        ("[files]\nt3 = 'x'", "files.t3"),
        ("[files]\nt1 = 5", "files.t1"),
        ("[policy]\nshare_counts = 'yes'", "policy.share_counts"),
        ("[files]\nt1 = '/etc/*'", "files.t1"),
        ("patients = '../*'", "patients"),
        ("patients = ''", "patients"),
        ("name = 'a/b'", "a/b"),
        ("name = 'a+b'", "a+b"),
        ('name = "a\\u001bb"', "Site name"),
        ("files = 3", "files"),
        ("not toml", "TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"site\.toml") as caught:
        read_site_config(tmp_path)
    assert named in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_site_config(tmp_path / "other.toml")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(content=st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)))
def test_any_bytes_give_a_config_or_a_config_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "site.toml"
    file.write_bytes(content)
    with contextlib.suppress(ConfigError):
        assert isinstance(read_site_config(file), SiteConfig)


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-9, 9), st.sampled_from(["", "x", "/x", "..", "*"])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["t1", "map", "k"]), inner, max_size=2)),
    max_leaves=4,
)
KEYS = st.sampled_from(["name", "data", "patients", "exclude", "files", "labels", "policy", "other"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(table=st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_table_gives_a_config_or_a_config_error(tmp_path: Path, table: dict[str, object]) -> None:
    file = tmp_path / "site.toml"
    file.write_text("\n".join(f"{key} = {_toml(value)}" for key, value in table.items()))
    with contextlib.suppress(ConfigError):
        assert isinstance(read_site_config(file), SiteConfig)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(_toml(inner) for inner in value) + "]"
        case str():
            return f'"{value}"'
        case _:
            return str(value)


def test_sites_are_found_by_what_they_hold(tmp_path: Path) -> None:
    for name in ("b/sub-1", "a", "c", "empty", ".hidden/sub-1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "site.toml").touch()
    (tmp_path / "c" / "participants.tsv").touch()
    (tmp_path / "file").touch()
    assert [folder.name for folder in find_sites(tmp_path)] == ["a", "b", "c"]
    assert find_sites(tmp_path / "nowhere") == ()
