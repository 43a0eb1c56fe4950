"""Whether code on the disk is what it was: names, sizes, times and inodes of files, without reading them.

It tells a process that keeps code in its memory when to let go of it. It proves nothing: a bundle is known by its hash, and the
installed programs are the hospital's own.
"""

import hashlib
import os
import sysconfig
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
ROOMS = ("client", "common")  # of the installed code that a gate is made of
COMPILED = "__pycache__"  # written by whoever imports first


def installed_stamp() -> str:
    """Of this program's own code, and of what is installed beside it."""
    return stamp_of(*(CHECKOUT / room for room in ROOMS)) + packages_stamp()


def packages_stamp() -> str:
    """Of the packages that are installed: the folder changes with each that comes, goes or changes its version."""
    return file_stamp(Path(sysconfig.get_path("purelib")))


def stamp_of(*folders: Path) -> str:
    """Of all files below these folders; a folder that is not there counts as an empty one."""
    digest = hashlib.sha256()
    for folder in folders:
        for path, names, files in os.walk(folder):
            names[:] = sorted(name for name in names if name != COMPILED)
            for name in sorted(files):
                digest.update(f"{path}/{name}\0{file_stamp(Path(path, name))}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def file_stamp(path: Path) -> str:
    """Of one file or folder; of one that is not there too."""
    try:
        told = path.stat()
    except OSError:
        return "absent"
    return f"{told.st_ino} {told.st_size} {told.st_mtime_ns} {told.st_ctime_ns}"
