"""`fedmri-site init`: a hospital's folder, with site.toml, a key made here, and the coordinator's certificate authority."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from client.deployment.home import SiteHome, open_home
from client.deployment.keys import certificate_fingerprint, make_key, read_ca
from common.config.site import SiteConnection, SitePolicy, SitePrivacy, check_name, read_site_config, split_address
from common.deployment.ssh_fingerprint import ssh_fingerprint
from common.errors import ConfigError
from common.files import write_atomic
from common.models.backbones.kept_weights import keep_shipped
from common.text import toml_value

POLICY = {
    "share_counts": "how many patients, and how many of them labelled: the weight in the average",
    "share_metrics": "the mean losses of a round",
    "metrics": 'which losses, where share_metrics is true: names with wildcards; "seconds" is the time of the round',
    "share_calibration": "after the last round: sums over patients that never trained, and of features of the others",
    "share_data_hash": "a hash over what a round trained on, by a key that stays here: whether it changed, for the report",
    "twins": 'patients whom another hospital has too: "off", "keep", "drop" or "refuse"',
    "share_twins": "how many patients are left out here for being at another hospital too",
    "survey": "topics that a survey before training may be told: names with wildcards",
    "share_pictures": "as the external site: slices of its patients, with the evidence drawn on them, in the report",
    "min_patients": "of fewer patients no counts, losses or sums leave, whatever is said above",
    "backbone_sha256": "hold the server to the agreed frozen weights (`fedmri-site pins`)",
    "initial_sha256": "hold the server to the agreed start of training (`fedmri-site pins`)",
    "secure_only": "true: updates leave masked only, the server sees no single site's",
    "min_summed": "a masked update leaves only into a sum of so many sites or more",
    "arrays": "which trained arrays may leave: names with wildcards",
    "max_megabytes": "the largest reply that may leave",
    "max_update_norm": "the largest change of the adapters in one round, as a norm; 0: any",
    "max_rank": "the largest rank of an adapter that is trained here; 0: any. Not all runs can take a site below theirs",
    "hours": 'train only then, in local time: "19:00-06:30"; "": always',
    "max_hours": "the longest that one request may take, whatever the server allows",
    "take_weights": "take small frozen weights from the coordinator; false: by `fedmri-site weights add` alone",
    "keep_models": "keep released models that the coordinator hands over, where their signature fits; `fedmri-site models`",
    "approval": "only code approved with `fedmri-site approve` runs here",
}
PRIVACY = {
    "epsilon": "no patient may spend more, all runs together; training without privacy is refused then. 0: no budget",
    "delta": "the other half of the budget; below one over the number of patients",
    "ledger": "where spending is recorded; keep it and its salt (beside the key), and keep them in the backup",
    "same_patient": 'two patients who are one person: "refuse" the round, or "charge" the group, which costs far more',
}
CONNECTION = {
    "server": "the one address that this machine connects to, by TLS; nothing connects to this machine",
    "ca": "the coordinator's certificate authority; no other is trusted",
    "key": "this site's private key; it never leaves this machine",
    "state": "logs, audit log, refused bundles",
    "weights": 'a local file of the backbone\'s weights; "": what the run says',
}


@dataclass(frozen=True)
class Provisioned:
    """The files that `init` made, and the next steps for a person.

    Attributes:
        toml_done: what became of site.toml: "made", "connection added" or "left as it was".
        unread: a site.toml beside the patients, which the one here replaces; None: there is none.
        key_fingerprint: of the public key, to be compared by telephone.
        ca_fingerprint: of ca.crt, to be compared by telephone.
    """

    home: SiteHome
    toml_done: str
    public_line: str
    key_fingerprint: str
    ca_fingerprint: str
    unread: Path | None = None


def provision(folder: Path, server: str, ca: Path, *, name: str = "", data: Path | None = None) -> Provisioned:
    """Make a site's folder ready. All is checked before anything is written, and the key is made last.

    Args:
        folder: the site's, for site.toml, keys and state; made where it is absent.
        server: host:port of the coordinator.
        ca: file of the coordinator's certificate authority.
        name: the site's name; "": the folder's.
        data: folder of the patients; None: beside site.toml.

    Raises:
        ConfigError: something given is wrong, or would overwrite what is there: keys, another ca.crt, another site.toml.
    """
    folder = folder.absolute()
    split_address("--server", server)
    check_name(name or folder.name)
    certificate, content = read_ca(ca), ca.read_bytes()
    if data is not None and not data.is_dir():
        raise ConfigError(f"--data {data}: no such folder. Name the folder of the patients.")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder, found a file.")
    toml = folder / "site.toml"
    text, done = _settings(toml, server, name, data)
    connection = SiteConnection(server) if done != "left as it was" else read_site_config(toml).connection
    key = folder / Path(connection.key).expanduser()
    for file in (key, key.with_name(f"{key.name}.pub")):
        if os.path.lexists(file):
            raise ConfigError(
                f"{file} is there already; a key is never overwritten. `fedmri-site doctor {quote(str(folder))}` shows it."
            )
    kept = folder / Path(connection.ca).expanduser()
    if kept.exists() and kept.read_bytes() != content:
        raise ConfigError(f"{kept} is there already and is another certificate than {ca}. Move it away if the new one is right.")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(kept, content)
    if done != "left as it was":
        write_atomic(toml, text.encode())
    home = open_home(toml)
    home.logs.mkdir(parents=True, exist_ok=True)
    home.state.chmod(0o700)
    keep_shipped(home.weights)
    line = make_key(home.key, home.name)
    unread = _unread(home)
    return Provisioned(home, done, line, ssh_fingerprint(line), certificate_fingerprint(certificate), unread)


def _unread(home: SiteHome) -> Path | None:
    """The patients' own site.toml: two files would be two policies, so the one in the site's folder is the only one."""
    beside = home.folder / Path(home.config.data).expanduser() / "site.toml"
    return beside if beside.is_file() and not beside.samefile(home.toml) else None


def unread_lines(made: Provisioned) -> list[str]:
    """What to do about a site.toml that lies beside the patients."""
    if made.unread is None:
        return []
    return [f"Not read: {made.unread}. Copy what it says of files, labels and patients into {made.home.toml}, which replaces it."]


def _settings(toml: Path, server: str, name: str, data: Path | None) -> tuple[str, str]:
    """The text of site.toml and what is done to the file.

    Raises:
        ConfigError: the file that is there is refused, or says otherwise.
    """
    if not toml.exists():
        return settings_text(server, name, _relative(toml.parent, data)), "made"
    there = read_site_config(toml)
    if (name and name != there.name) or data is not None:
        raise ConfigError(f"{toml} is there already and is left as it is: set name and data in it, not with --name and --data.")
    text = toml.read_text(encoding="utf-8")
    if "connection" not in tomllib.loads(text):
        added = text.rstrip("\n") + "\n\n" + section_text("connection", CONNECTION, vars(SiteConnection(server)))
        return added, "connection added"
    if there.connection.server != server:
        said = there.connection.server or "none"
        raise ConfigError(f"{toml} is there already and names another server ({said}). Correct [connection] in it, or --server.")
    return text, "left as it was"


def settings_text(server: str, name: str, data: str) -> str:
    """A whole site.toml: the strict policy, every key with its default and a line on what it does."""
    head = [
        "# The hospital's own file. Nothing else decides what leaves this machine; it is read anew in every round.",
        f"{'' if name else '# '}name = {toml_value(name or 'hospital-a')}  # the folder's name where absent",
        f"data = {toml_value(data)}  # folder of the patients, relative to this file",
        '# patients = "sub-*"  # the patients\' folders; [files] and [labels] say how files and labels are named: see README.md',
    ]
    parts = [
        "\n".join(head) + "\n",
        "# What may leave besides the adapters. These are the defaults, the strictest.\n"
        + section_text("policy", POLICY, vars(SitePolicy())),
        "# The patients' privacy budget.\n" + section_text("privacy", PRIVACY, vars(SitePrivacy())),
        section_text("connection", CONNECTION, vars(SiteConnection(server))),
    ]
    return "\n".join(parts)


def section_text(name: str, explained: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """One section: a key a line, aligned with what it does."""
    lines = [f"{key} = {toml_value(values[key])}" for key in explained]
    width = min(max(map(len, lines)), 40)
    return (
        "\n".join([f"[{name}]", *(f"{line:<{width}}  # {text}" for line, text in zip(lines, explained.values(), strict=True))])
        + "\n"
    )


def _relative(folder: Path, data: Path | None) -> str:
    """As it is written into site.toml: relative where it lies inside the site's folder."""
    if data is None:
        return ""
    # A link stays the link that was named: who moves the patients moves it. `..` behind a link means what the system says.
    data = data.resolve() if ".." in data.parts else data.absolute()
    folder = folder.resolve() if ".." in folder.parts else folder.absolute()
    if data == folder:
        return ""
    return str(data.relative_to(folder)) if data.is_relative_to(folder) else str(data)
