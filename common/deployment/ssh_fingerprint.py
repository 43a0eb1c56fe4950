"""SSH key fingerprints, which hospital and coordinator compare by telephone before a key is trusted."""

import base64
import hashlib


def ssh_fingerprint(line: str) -> str:
    """`SHA256:...` of an OpenSSH public key's line, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
