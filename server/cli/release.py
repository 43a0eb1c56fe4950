"""The verbs of `fedmri-server` that release a model: `release-key`, `export`, `verify`."""

import argparse
import json
import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console

from common.cli import add_debug
from common.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_export(verbs: Verbs) -> None:
    """Add the verbs to the parser."""
    text = "Make the key that signs releases: release.key, which stays here, and release.pub, which everybody may have."
    verb = verbs.add_parser("release-key", help="make the key that signs releases", description=text)
    verb.add_argument("folder", type=Path, metavar="DIR")
    add_passphrase(verb)
    verb.add_argument("--no-passphrase", action="store_true", help="leave the key unencrypted; who reads the file can sign")
    add_debug(verb)
    verb.set_defaults(handler=_release_key)
    _add_export(verbs)
    text = "Check a release: every file, and the signature of the list of them."
    verb = verbs.add_parser("verify", help="check a release", description=text)
    verb.add_argument("folder", type=Path, metavar="RELEASE")
    verb.add_argument("--key", type=Path, metavar="PUB", required=True, help="release.pub, from another source than the release")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_verify)


def _add_export(verbs: Verbs) -> None:
    text = (
        "Write a run's model as one merged safetensors file, as ONNX and as a MONAI bundle, each checked against the trained "
        "model, with a model card and a signed manifest."
    )
    verb = verbs.add_parser("export", help="release a run's model", description=text)
    verb.add_argument("run", type=Path, metavar="RUN", help="folder of the finished run")
    verb.add_argument("--out", type=Path, required=True, metavar="RELEASE", help="folder to make")
    verb.add_argument("--weights", default="", metavar="FILE", help="the backbone's weights (default: the run's model.weights)")
    verb.add_argument("--check", type=Path, metavar="SITE", help="folder of patients to check with (default: seeded noise)")
    verb.add_argument("--release", default="1.0.0", metavar="VERSION", help="of the release (default: 1.0.0)")
    key = verb.add_mutually_exclusive_group(required=True)
    key.add_argument("--key", type=Path, metavar="KEY", help="release.key, which signs it")
    key.add_argument("--unsigned", action="store_true", help="write no signature; nobody can verify the release")
    add_passphrase(verb)
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    add_debug(verb)
    verb.set_defaults(handler=_export)


def add_passphrase(verb: argparse.ArgumentParser) -> None:
    """The option that names a file of the passphrase."""
    verb.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="its first line is the passphrase (default: asked for)"
    )


def _release_key(arguments: argparse.Namespace) -> int:
    from common.deployment.minisign import KEY, PUBLIC, make_key  # noqa: PLC0415

    passphrase = "" if arguments.no_passphrase else _passphrase(arguments.passphrase_file, new=True)
    public = make_key(arguments.folder, passphrase)
    print(f"{arguments.folder / KEY} signs; keep it secret. {arguments.folder / PUBLIC} verifies: publish it.\n{public.line()}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from server.release.export import ExportRequest, export  # noqa: PLC0415  (torch: seconds)

    private = private_key(arguments) if arguments.key else None
    wanted = ExportRequest(arguments.run, arguments.out, arguments.weights, arguments.check, arguments.release, private)
    console = Console(stderr=True)
    with console.status("Exporting") as spinner:
        checks = export(wanted, spinner.update)
    if arguments.json:
        print(json.dumps({"release": str(arguments.out), "signed": private is not None, "checks": checks}, indent=2))
        return 0
    for check in checks:
        found = f"at most {check['difference']:.1e} from the trained model"
        print(f"{check['file']}: {found}, {check['patients']} patients, {check['source']}")
    print(f"Done: {arguments.out}, {'signed' if private else 'not signed'}.")
    return 0


def private_key(arguments: argparse.Namespace) -> "Ed25519PrivateKey":
    """The key that `--key` names; its passphrase is asked for where it needs one."""
    from common.deployment.minisign import is_locked, read_key  # noqa: PLC0415

    passphrase = _passphrase(arguments.passphrase_file, new=False) if is_locked(arguments.key) else ""
    return read_key(arguments.key, passphrase)


def _verify(arguments: argparse.Namespace) -> int:
    from common.deployment.minisign import read_public  # noqa: PLC0415
    from server.release.manifest import verify_release  # noqa: PLC0415

    files, comment = verify_release(arguments.folder, read_public(arguments.key))
    if arguments.json:
        print(json.dumps({"verified": True, "files": files, "comment": comment}, indent=2))
    else:
        print(f"Verified: {files} files as they were signed. Signer's comment: {comment}")
    return 0


def _passphrase(file: Path | None, *, new: bool) -> str:
    """From the file, or from whoever sits at the terminal."""
    if file is not None:
        try:
            passphrase = file.read_text(encoding="utf-8").split("\n", 1)[0]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--passphrase-file {file}: cannot be read as text.") from error
    elif sys.stdin.isatty():
        passphrase = getpass("Passphrase of the release key: ")
        if new and getpass("Once more: ") != passphrase:
            raise ConfigError("The two passphrases differ. Nothing was written.")
    else:
        raise ConfigError("No terminal to ask for the passphrase at. Name a file with --passphrase-file.")
    if not passphrase:
        raise ConfigError("The passphrase is empty. Give one; `release-key --no-passphrase` makes a key without.")
    return passphrase
