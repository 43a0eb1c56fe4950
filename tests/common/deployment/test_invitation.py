"""An invitation as mail programs hand it on: line ends and a byte order mark change nothing, any other change is noticed."""

import io
import zipfile
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from common.deployment.invitation import Backbone, Invitation, read_invitation, write_invitation
from common.errors import ConfigError


def bundle() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("client/app.py", "app = 1\r\n")
    return held.getvalue()


SENT = Invitation("bonn", "fedmri", "localhost:8443", "1.41.0", "PEM\n", "", Backbone("demo", "random", ""), bundle())


@pytest.mark.parametrize("mark", [b"", BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path, mark: bytes, end: bytes) -> None:
    file = tmp_path / "bonn.txt"
    file.write_bytes(mark + write_invitation(SENT).replace(b"\n", end))
    again, fingerprint = read_invitation(file)
    assert again == SENT
    told = write_invitation(SENT).splitlines()[1].decode()
    assert told == f"fingerprint {fingerprint}"


def test_another_change_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "bonn.txt"
    file.write_bytes(write_invitation(SENT).replace(b"localhost:8443", b"localhost:8444").replace(b"\n", b"\r\n"))
    with pytest.raises(ConfigError, match="cut short or changed on its way"):
        read_invitation(file)
