"""The sites that may take part: one public key each, in `sites/`; the SuperLink is made to follow this registry."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from common.deployment.ssh_fingerprint import ssh_fingerprint
from common.errors import ConfigError
from common.files import sync_folder, write_atomic
from server.deployment.home import Home
from server.deployment.superlink_nodes import UNREGISTERED, Nodes

CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
MAKE_KEY = "Make one with `fedmri-site init`, or `ssh-keygen -t ecdsa -b 384`, and send the .pub file."
MAX_BYTES = 10_000
JOIN = " It was broken into several lines on its way: join them again."


@dataclass(frozen=True)
class AdmittedSite:
    """A site and its public key."""

    name: str
    line: str  # OpenSSH public key, without a comment
    key: bytes  # the same as PEM, as Flower holds it
    patients: int = 0  # that were agreed with it, and at most count; 0: nothing was agreed

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it: to be compared by telephone."""
        return ssh_fingerprint(self.line)


def read_key(source: Path | str, name: str) -> AdmittedSite:
    """Read an OpenSSH public key on a NIST curve, the only kind that Flower takes.

    Args:
        source: its file, or the line itself.
        name: of the site.

    Raises:
        ConfigError: unreadable, a private key, another kind of key, or more than one.
    """
    file = source if isinstance(source, Path) else "The key's line"
    content = _content(source)
    if b"PRIVATE KEY" in content:
        raise ConfigError(f"{file} is a private key, which must never leave the hospital. Let them make another pair. {MAKE_KEY}")
    try:
        key = load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        torn = JOIN if isinstance(source, str) and b"\n" in content else f" {MAKE_KEY}"
        raise ConfigError(f"{file}: expected one OpenSSH public key (ecdsa-sha2-nistp384 ...).{torn}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        kind = content.split()[0].decode("ascii", "replace")
        raise ConfigError(f"{file}: expected a key on a NIST curve (ecdsa-sha2-nistp384), got {kind}. {MAKE_KEY}")
    agreed = re.search(rb" patients=([1-9][0-9]{0,6})$", content)
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    if content.decode("utf-8", "replace").split()[:2] != line.split() or b"\n" in content:
        raise ConfigError(f"{file}: expected one plain public key on one line. {MAKE_KEY}")
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return AdmittedSite(name, line, pem, int(agreed[1]) if agreed else 0)


def admitted(home: Home) -> tuple[AdmittedSite, ...]:
    """The sites that may take part, sorted by name.

    Raises:
        ConfigError: a file in `sites/` is no such key, or two files hold the same.
    """
    sites = tuple(read_key(file, file.stem) for file in sorted(_folder(home).glob("*.pub")))
    names: dict[bytes, str] = {}
    for site in sites:
        if site.key in names:
            raise ConfigError(
                f"{_folder(home)}: {names[site.key]}.pub and {site.name}.pub hold the same key. Remove one of them."
            )
        names[site.key] = site.name
    return sites


def agreed_patients(home: Home) -> dict[str, int]:
    """How many patients were agreed with each site; sites with whom nothing was agreed are not in it."""
    return {site.name: site.patients for site in admitted(home) if site.patients}


def admit(home: Home, source: Path | str, name: str, *, again: bool = False, patients: int | None = None) -> AdmittedSite:
    """Enter a site into the registry; `synchronise` passes it on to the SuperLink.

    Args:
        home: the coordinator's folder.
        source: the file of the site's public key, or the one line in it.
        name: of the site in the registry: 1 to 64 letters, digits, '.', '_' or '-'.
        again: take back a key that was revoked.
        patients: the most of them that count, whatever the site says; 0: nothing is agreed; None: as agreed under this name
            before, a revoked key's agreement included.

    Raises:
        ConfigError: an impossible number, no fitting key, the name is taken, the key is admitted under another name, or was
            revoked.
    """
    require_site_name("--name", name)
    if not 0 <= (patients or 0) < 10**7:
        raise ConfigError(f"--patients {patients}: expected the number of patients that was agreed with the hospital.")
    site = replace(read_key(source, name), patients=agreed_before(home, name) if patients is None else patients)
    for other in admitted(home):
        if other.key == site.key and other.name != name:
            raise ConfigError(f"This key is admitted already, as {other.name}. Each site needs a key of its own. {MAKE_KEY}")
        if other.name.lower() == name.lower() and other.key != site.key:
            raise ConfigError(
                f"The name {other.name} is taken by another key ({other.fingerprint}). Revoke it first, or choose another name."
            )
    before = [old for old in _revoked_files(home) if read_key(old, name).key == site.key]
    if before and not again:
        raise ConfigError(f"This key was revoked ({before[0]}). Let the hospital make a new one, or take it back with --again.")
    agreed = f" patients={site.patients}" if site.patients else ""
    write_atomic(_folder(home) / f"{name}.pub", f"{site.line} {name}{agreed}\n".encode())
    for old in before:
        old.unlink()
    return site


def agreed_before(home: Home, name: str) -> int:
    """How many patients were agreed under a name, by its key or, where that is gone, the one revoked last; 0: none."""
    now = _folder(home) / f"{name}.pub"
    old = [file for file in _revoked_files(home) if file.stem.partition("~")[0] == name]
    files = [now] if now.is_file() else sorted(old, key=lambda file: (len(file.stem), file.stem))[-1:]
    return read_key(files[0], name).patients if files else 0


def revoke(home: Home, name: str) -> AdmittedSite:
    """Move a site's key to the revoked ones; `synchronise` passes it on to the SuperLink.

    Raises:
        ConfigError: no such site is admitted.
    """
    found = [site for site in admitted(home) if site.name == name]
    if not found:
        known = ", ".join(site.name for site in admitted(home)) or "none"
        raise ConfigError(f"No site {name!r} is admitted. Admitted: {known}.")
    target, number = _folder(home) / "revoked" / f"{name}.pub", 1
    while target.exists():  # an earlier key of the same site
        number += 1
        target = target.with_name(f"{name}~{number}.pub")
    target.parent.mkdir(exist_ok=True)
    (_folder(home) / f"{name}.pub").rename(target)
    sync_folder(target.parent)
    sync_folder(_folder(home))
    return found[0]


def synchronise(home: Home, nodes: Nodes) -> None:
    """Make the SuperLink know exactly the admitted sites, whatever its database holds. Doing it twice does no harm.

    Raises:
        ConfigError: the registry cannot be read.
        FederationError: the SuperLink does not answer or refuses.
    """
    wanted = {site.key: site for site in admitted(home)}
    known = {node.key: node for node in nodes.all()}
    for key, node in known.items():
        if node.status != UNREGISTERED and (key not in wanted or wanted[key].name != node.name):
            nodes.unregister(node)
    for key, site in wanted.items():
        there = known.get(key)
        if there and there.status != UNREGISTERED and there.name == site.name:
            continue
        if there:
            nodes.forget(there)
        nodes.register(site.name, key)


def is_site_name(name: str) -> bool:
    """Whether a site of the registry can be called so; the name is a file's, too."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name))


def require_site_name(where: str, name: str) -> None:
    """Refuse a name that no site of the registry can have.

    Raises:
        ConfigError: it is one.
    """
    if not is_site_name(name):
        raise ConfigError(
            f"{where} {name!r}: expected 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit."
        )


def _content(source: Path | str) -> bytes:
    if isinstance(source, str):
        return source.strip().encode()[:MAX_BYTES]
    try:
        return source.read_bytes()[:MAX_BYTES].strip()
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read ({error.strerror}). Name the site's public key file.") from error


def _folder(home: Home) -> Path:
    return home.folder / "sites"


def _revoked_files(home: Home) -> list[Path]:
    return sorted((_folder(home) / "revoked").glob("*.pub"))
