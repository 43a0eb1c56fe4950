"""server.toml: what is refused is refused by name."""

import pytest

from common.errors import ConfigError
from server.deployment.home import open_home

GOOD = 'address = "fedmri.example.org:8443"\n'


def home_of(folder, text: str):
    (folder / "server.toml").write_text(text)
    return open_home(folder)


def test_the_smallest_file_is_enough(tmp_path) -> None:
    home = home_of(tmp_path, GOOD)
    assert (home.settings.host, home.settings.listen_at) == ("fedmri.example.org", "0.0.0.0:8443")
    assert home.superlink == "127.0.0.1:9092"
    assert home.runs == tmp_path / "runs"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "address: expected host:port"),
        ('address = "nowhere"', "address: expected host:port"),
        (GOOD + "port = 1", "Unknown key 'port'"),
        (GOOD + 'superlink_port = "9092"', "superlink_port: expected a whole number"),
        (GOOD + "health_port = 70000", "health_port: expected a number from 1 to 65535"),
        (GOOD + 'front = "apache"', "front: expected one of nginx, none"),
        (GOOD + 'listen = "example.org:8443"', "listen: expected IP:port"),
        (GOOD + 'listen = "0.0.0.0:80; evil on"', "listen: expected host:port"),
        (GOOD + "superlink_port = 8443", "must differ"),
        (GOOD + 'runs = " "', "runs: expected a folder"),
        (GOOD + 'name = "a/b"', "Site name 'a/b'"),
        ("address = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path, text, said) -> None:
    with pytest.raises(ConfigError, match=r"server\.toml") as caught:
        home_of(tmp_path, text)
    assert said in str(caught.value)


def test_a_folder_that_is_no_home_is_told_how_to_make_one(tmp_path) -> None:
    with pytest.raises(ConfigError, match="fedmri-server init"):
        open_home(tmp_path)
