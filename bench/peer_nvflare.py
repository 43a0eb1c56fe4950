"""A site under NVFlare's client API, for `bench/peers.py`: run by NVFlare, which knows the site's name."""

import sys
from importlib import import_module
from pathlib import Path

import nvflare.client as flare  # type: ignore[import-not-found,unused-ignore]

KEY = "numpy_key"  # where NVFlare's NumPy recipe keeps its one array

if __name__ == "__main__":
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    sys.path.insert(0, str(Path(sys.argv[3])))  # NVFlare runs a copy of this file
    # Not by a statement: NVFlare would copy what it finds imported, and some of it only.
    peer_site = import_module("peer_site").peer_site
    flare.init()
    name = flare.get_site_name()
    while flare.is_running():
        received = flare.receive()
        vector, weight = peer_site(folder).train(name, received.params[KEY], received.current_round + 1, out)
        flare.send(flare.FLModel(params={KEY: vector}, meta={"NUM_STEPS_CURRENT_ROUND": weight}))
