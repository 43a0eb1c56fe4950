"""The registry: one NIST key a site, one site a key; the SuperLink is made to follow it, whatever it knew."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from server.cli.main import main
from server.deployment.home import Home, ServerSettings
from server.deployment.provision import init_home
from server.deployment.registry import admit, admitted, agreed_patients, read_key, revoke, synchronise
from server.deployment.superlink_nodes import Node, Nodes


@pytest.fixture
def home(tmp_path) -> Home:
    return init_home(tmp_path / "home", ServerSettings(address="localhost:8443"))


@pytest.fixture
def key(tmp_path):
    """Makes a key pair with OpenSSH's own program; gives the public file."""

    def make(name: str = "site", kind: str = "ecdsa", bits: str = "384") -> Path:
        command = ["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-C", "someone@hospital", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return tmp_path / f"{name}.pub"

    return make


@pytest.mark.parametrize("bits", ["256", "384", "521"])
def test_an_admitted_key_is_read_again_and_its_comment_stays_out(home, key, bits) -> None:
    file = key(bits=bits)
    site = admit(home, file, "hospital-a")
    assert admitted(home) == (site,)
    assert "someone@hospital" not in (home.folder / "sites" / "hospital-a.pub").read_text()
    told = subprocess.run(["ssh-keygen", "-lf", str(file)], capture_output=True, text=True, check=True).stdout
    assert site.fingerprint in told


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_another_kind_of_key_is_refused(home, key, kind) -> None:
    with pytest.raises(ConfigError, match="expected a key on a NIST curve"):
        admit(home, key(kind=kind, bits="2048"), "hospital-a")
    assert admitted(home) == ()


def test_a_private_key_is_refused_with_a_warning(home, key) -> None:
    with pytest.raises(ConfigError, match="must never leave the hospital"):
        admit(home, key().with_suffix(""), "hospital-a")


def test_two_keys_in_one_file_are_refused(home, key, tmp_path) -> None:
    both = tmp_path / "both.pub"
    both.write_bytes(key("one").read_bytes() + key("two").read_bytes())
    with pytest.raises(ConfigError, match="one"):
        admit(home, both, "hospital-a")


def test_a_name_and_a_key_belong_together(home, key) -> None:
    a, b = key("a"), key("b")
    admit(home, a, "hospital-a")
    with pytest.raises(ConfigError, match="The name hospital-a is taken by another key"):
        admit(home, b, "hospital-a")
    with pytest.raises(ConfigError, match="The name hospital-a is taken by another key"):
        admit(home, b, "Hospital-A")
    with pytest.raises(ConfigError, match="admitted already, as hospital-a"):
        admit(home, a, "hospital-b")
    admit(home, a, "hospital-a")  # twice the same does no harm
    assert [site.name for site in admitted(home)] == ["hospital-a"]


def test_a_revoked_key_comes_back_only_when_asked_for_and_under_any_name(home, key) -> None:
    file = key()
    admit(home, file, "hospital-a")
    revoke(home, "hospital-a")
    assert admitted(home) == ()
    for name in ("hospital-a", "hospital-b"):
        with pytest.raises(ConfigError, match="was revoked"):
            admit(home, file, name)
    admit(home, file, "hospital-b", again=True)
    assert [site.name for site in admitted(home)] == ["hospital-b"]
    revoke(home, "hospital-b")
    with pytest.raises(ConfigError, match="was revoked"):
        admit(home, file, "hospital-a")


def test_a_site_may_lose_several_keys(home, key) -> None:
    for name in ("one", "two", "three"):
        admit(home, key(name), "hospital-a")
        revoke(home, "hospital-a")
    for name in ("one", "two", "three"):
        with pytest.raises(ConfigError, match="was revoked"):
            admit(home, home.folder.parent / f"{name}.pub", "hospital-a")


def test_who_is_not_admitted_cannot_be_revoked(home, key) -> None:
    admit(home, key(), "hospital-a")
    with pytest.raises(ConfigError, match="Admitted: hospital-a"):
        revoke(home, "hospital-b")


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "a b", "-x", "ä", "a\n", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(home, key, name) -> None:
    with pytest.raises(ConfigError, match="--name"):
        admit(home, key(), name)


def test_one_key_in_two_files_is_noticed(home, key) -> None:
    file = key()
    admit(home, file, "hospital-a")
    (home.folder / "sites" / "hospital-b.pub").write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="hold the same key"):
        admitted(home)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda t: f"ecdsa-sha2-nistp384 {t}".encode())))
def test_no_content_makes_the_reader_fail_otherwise(tmp_path, content) -> None:
    file = tmp_path / "any.pub"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        read_key(file, "x")


class Ledger(Nodes):
    """Stands for the SuperLink: takes a key once, and never again once it is unregistered."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.key: node for node in nodes}
        self.asked: list[tuple[str, str]] = []

    def all(self) -> tuple[Node, ...]:
        return tuple(self.nodes.values())

    def register(self, name: str, key: bytes) -> None:
        assert key not in self.nodes, "Public key already in use."
        self.asked.append(("register", name))
        self.nodes[key] = Node(len(self.asked), name, key, "registered", "")

    def unregister(self, node: Node) -> None:
        self.asked.append(("unregister", node.name))
        self.nodes[node.key] = replace(node, status="unregistered")

    def forget(self, node: Node) -> None:
        assert self.nodes[node.key].status == "unregistered"
        del self.nodes[node.key]


def letting_in(ledger: Ledger) -> set[str]:
    return {node.name for node in ledger.all() if node.status != "unregistered"}


def test_the_superlink_follows_the_registry_whatever_it_knew(home, key) -> None:
    a, b = admit(home, key("a"), "a"), admit(home, key("b"), "b")
    c = admit(home, key("c"), "c")
    revoke(home, "c")
    unadmitted = Node(9, "unadmitted", b"unknown", "online", "")
    ledger = Ledger(unadmitted, Node(1, "c", c.key, "online", ""), Node(2, "old-name", b.key, "offline", ""))
    synchronise(home, ledger)
    assert letting_in(ledger) == {"a", "b"}
    assert ledger.nodes[a.key].name == "a"
    before = list(ledger.asked)
    synchronise(home, ledger)
    assert ledger.asked == before  # nothing to do the second time
    admit(home, home.folder.parent / "c.pub", "c", again=True)
    synchronise(home, ledger)
    assert letting_in(ledger) == {"a", "b", "c"}
    fresh = Ledger()  # the database was lost
    synchronise(home, fresh)
    assert letting_in(fresh) == {"a", "b", "c"}


def test_agreed_patients_are_kept_with_the_key_and_are_the_coordinators_word(home, key) -> None:
    file = key()
    file.write_text(file.read_text().strip() + " patients=9999999\n")  # what a hospital writes there counts for nothing
    assert admit(home, file, "hospital-a").patients == 0
    assert agreed_patients(home) == {}
    site = admit(home, file, "hospital-a", patients=40)
    assert admitted(home) == (site,)
    assert agreed_patients(home) == {"hospital-a": 40}
    with pytest.raises(ConfigError, match="--patients -1: expected the number of patients"):
        admit(home, file, "hospital-a", patients=-1)


def test_an_agreement_stays_until_another_is_made(home, key) -> None:
    one, two, three = key("one"), key("two"), key("three")
    admit(home, one, "hospital-a", patients=40)
    assert admit(home, one, "hospital-a").patients == 40  # nothing was said of patients
    revoke(home, "hospital-a")  # a key that was lost; the hospital is the same
    assert admit(home, two, "hospital-a").patients == 40
    revoke(home, "hospital-a")
    assert admit(home, three, "hospital-a", patients=50).patients == 50
    revoke(home, "hospital-a")
    assert admit(home, one, "hospital-a", again=True).patients == 50  # the one agreed last
    assert admit(home, one, "hospital-a", patients=0).patients == 0
    assert agreed_patients(home) == {}
    assert admit(home, two, "hospital-b", again=True).patients == 0  # another hospital


def test_a_line_as_it_comes_out_of_an_e_mail(home, key, capsys) -> None:
    line = key().read_text().strip()
    for text in (f"  {line}\r\n", f"'{line}'", f'"{line}" '):
        assert main(["admit", str(home.folder), text, "--name", "a"]) == 0
    assert [site.name for site in admitted(home)] == ["a"]
    capsys.readouterr()
    assert main(["admit", str(home.folder), f"{line[:90]}\n{line[90:]}", "--name", "b"]) == 2
    assert "broken into several lines" in " ".join(capsys.readouterr().err.split())
