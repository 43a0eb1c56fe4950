"""Run configurations and site.toml, in any shape: read, or refused with a sentence."""

import json
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given

from common.config.run import RunConfig, config_from_json, load_config
from common.config.site import SiteConfig, read_site_config
from common.errors import FedMRIError
from tests.damage import MANY, PIECES, WORDS, damaged_json, made, mutated, nothing_unpickled, replaced, tree

pytestmark = pytest.mark.slow

RUN = b"""seed = 3
[data]
size = 32
classes = ["a", "b"]
[model]
backbone = "vit"
targets = ["qkv"]
[federation]
rounds = 2
round_timeout = 7
[privacy]
enabled = false
"""
SITE = b"""name = "north"
patients = "BraTS*"
exclude = ["BraTS2021_00017"]
[files]
t1 = "*t1.nii.gz"
t2 = ["*t2.nii.gz", "*T2w.nii.gz"]
[labels]
column = "diagnosis"
[labels.map]
"Astrocytoma, IDH-mutant" = "idh-mutant-astrocytoma"
[policy]
share_counts = true
hours = "19:00-06:30"
arrays = ["*"]
max_megabytes = 3.5
[privacy]
epsilon = 8.0
[connection]
server = "fedmri.example.org:8443"
"""
DEEP = b"[" + b".".join([b"a"] * 3000) + b"]\n"
TOML = (
    *PIECES,
    DEEP,
    b"data = " + DEEP,
    b"[policy]\n",
    b"= nan\n",
    b"= inf\n",
    b'= ""\n',
    b"= 1979-05-27\n",
    b"= []\n",
    b"= {}\n",
)
DEFAULTS = json.loads(RunConfig().to_json())
KEYS = [f"{section}.{key}" for section, table in DEFAULTS.items() if isinstance(table, dict) for key in table]
KEYS += [key.split(".")[1] for key in KEYS] + ["seed", "a.b.c", "seed.x", ".", "model.", *WORDS]


@pytest.fixture(autouse=True)
def guarded():
    with nothing_unpickled():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("settings")


@MANY
@given(content=made(lambda random: mutated(random, SITE, TOML)))
def test_site_toml(content, folder):
    (folder / "site.toml").write_bytes(content)
    with suppress(FedMRIError):
        assert isinstance(read_site_config(folder), SiteConfig)


@MANY
@given(content=made(lambda random: mutated(random, RUN, TOML)))
def test_run_configurations(content, folder):
    (folder / "run.toml").write_bytes(content)
    with suppress(FedMRIError):
        config = load_config(folder / "run.toml")
        assert config_from_json(config.to_json()) == config


@MANY
@given(content=made(lambda random: damaged_json(random, DEFAULTS)))
def test_configurations_that_travel_as_json(content):
    with suppress(FedMRIError):
        config = config_from_json(content.decode("utf-8", "replace"))
        assert config_from_json(config.to_json()) == config


@MANY
@given(table=made(lambda random: replaced(random, DEFAULTS)))
def test_values_of_other_kinds(table):
    with suppress(FedMRIError):
        config = config_from_json(json.dumps(table))
        assert config_from_json(config.to_json()) == config


def settings(random: Random) -> tuple[str, ...]:
    """A few `key=value`, most of real keys."""
    value = (lambda: json.dumps(tree(random))) if random.random() < 0.7 else (lambda: random.choice(TOML).decode("latin-1"))
    pairs = [f"{random.choice(KEYS)}={value()}" for _ in range(random.randint(1, 3))]
    return (*pairs, random.choice(WORDS)) if random.random() < 0.1 else tuple(pairs)


@MANY
@given(given=made(settings))
def test_settings_of_the_command_line(given, folder):
    (folder / "empty.toml").write_bytes(b"")
    with suppress(FedMRIError):
        load_config(folder / "empty.toml", given)
