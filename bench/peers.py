"""The same adapters, training function, sites and rounds under our engine, plain Flower with Ray, and NVFlare's simulator.

    python bench/peers.py OUT.json [--sites 4] [--patients 8] [--turns 2] [--nvflare PYTHON]

`--nvflare` is an interpreter that has NVFlare and this package, in an environment of its own beside ours:
`python -m venv DIR; DIR/bin/pip install -c constraints.txt nvflare==2.9.0`, and a .pth file there that names our site-packages
(`import site; site.addsitedir(...)`). Without it that side is left out, and a line says so.

Phantoms, two head rounds and two tuning rounds of the demo's recipe (mean pooling; no hold-out, no baselines, no curve), slice
caches filled, two sites at a time, each a thread. The peers are FedAvg of a dozen lines round our `train_round`, weighted as we
weigh. Ours is the whole run: messages, checks, checkpoints, evaluation and report. Wall seconds from the start of the process to
its end, and between the ends of rounds; turns alternate. Each side's last arrays must be ours to 1e-4.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from peer_site import PeerSite, peer_site

from common.files import write_atomic
from common.models.arrays import flat, load_arrays
from server.run.round_lines import read_rounds
from simulation.engines import run_federation
from simulation.phantom.hospitals import write_hospitals

CHECKOUT = Path(__file__).resolve().parents[1]
ROUNDS, AT_ONCE, CLOSE = 4, 2, 1e-4
CONFIG = f"""
[data]
size = 64
intensity = "zscore"
[model]
backbone = "fedmri_vit_mini"
weights = "phantom-tissue"
blocks = 2
joint_blocks = 2
head = "linear"
head_hidden = 0
[objective]
local_crops = 0
modality_dropout = 0.3
[objective.terms]
dino.weight = 0.1
ibot.weight = 0.1
koleo.weight = 0.01
[training]
batch_size = 24
local_epochs = 3
head_rounds = 2
head_steps = 20
head_optimizer = "sgd"
head_views = 8
head_learning_rate = 1e-4
[federation]
rounds = {ROUNDS}
unlabelled_weight = 0.3
max_update_ratio = 0.0
[evaluation]
every = 0
bootstrap = 0
baselines = false
[twins]
between_sites = "keep"
with_external = "keep"
"""


def ours(folder: Path, out: Path) -> None:
    """`fedmri-sim run`'s engine, without the baselines after it."""
    settings = {"config": str(folder / "run.toml"), "data": str(folder / "data"), "external": "external"}
    run_federation("pool", CHECKOUT, settings | {"cache": str(folder / "cache")}, len(names(folder)), out / "run")
    arrays, _ = load_arrays(out / "run" / "model.safetensors")
    np.save(out / "last.npy", flat({name: arrays[name] for name in peer_site(folder).first}))
    (out / "rounds.json").write_text(json.dumps([line["seconds"] for line in read_rounds(out / "run")]))


def flower(folder: Path, out: Path) -> None:
    """Flower's own FedAvg, and its simulation by Ray."""
    from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict  # noqa: PLC0415
    from flwr.clientapp import ClientApp  # noqa: PLC0415
    from flwr.serverapp import Grid, ServerApp  # noqa: PLC0415
    from flwr.serverapp.strategy import FedAvg  # noqa: PLC0415
    from flwr.simulation import run_simulation  # noqa: PLC0415

    client, server, sites, here = ClientApp(), ServerApp(), names(folder), str(Path(__file__).parent)

    @client.train()
    def train(message: Message, context: Context) -> Message:
        sys.path.insert(0, here)  # an actor of Ray's knows no folder of ours
        from peer_site import peer_site as site_of  # noqa: PLC0415

        site = sites[int(context.node_config["partition-id"])]
        number = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
        vector = message.content.array_records["arrays"]["all"].numpy()
        trained, weight = site_of(folder).train(site, vector, number, out)
        content = {"arrays": ArrayRecord({"all": Array(trained)}), "metrics": MetricRecord({"num-examples": weight})}
        return Message(content=RecordDict(content), reply_to=message)  # type: ignore[arg-type]

    @server.main()
    def main_(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=len(sites), min_available_nodes=len(sites))
        first = ArrayRecord({"all": Array(np.load(folder / "first.npy"))})
        np.save(out / "last.npy", strategy.start(grid, first, num_rounds=ROUNDS).arrays["all"].numpy())

    resources = {"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": AT_ONCE}}
    run_simulation(server, client, len(sites), backend_config=resources)  # type: ignore[arg-type]


def nvflare(folder: Path, out: Path) -> None:
    """NVFlare's NumPy recipe of FedAvg, in its simulator."""
    from nvflare.app_common.np.recipes.fedavg import (  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
        NumpyFedAvgRecipe,
    )
    from nvflare.recipe.sim_env import SimEnv  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    here = Path(__file__).parent
    recipe = NumpyFedAvgRecipe(
        name="peer",
        initial_ckpt=str(folder / "first.npy"),
        min_clients=len(names(folder)),
        num_rounds=ROUNDS,
        train_script=str(here / "peer_nvflare.py"),
        train_args=f"{folder} {out} {here}",
    )
    recipe.execute(SimEnv(clients=names(folder), num_threads=AT_ONCE, workspace_root=str(out / "workspace")))
    [last] = sorted((out / "workspace").rglob("server.npy"))
    np.save(out / "last.npy", np.load(last, allow_pickle=False))


SIDES = {"ours": ours, "flower": flower, "nvflare": nvflare}


def names(folder: Path) -> list[str]:
    """Of the training sites."""
    return sorted(path.name for path in (folder / "data").glob("hospital-*"))


def prepare(folder: Path, sites: int, patients: int) -> None:
    """Phantoms, configuration, slice caches and the first arrays."""
    write_hospitals(folder / "data", sites=sites, patients=patients, external=4, seed=7)
    (folder / "run.toml").write_text(CONFIG)
    site = PeerSite(folder)
    np.save(folder / "first.npy", flat(site.first).astype(np.float32))
    for name in [*names(folder), "external"]:
        site.patients(name)


def measure(side: str, python: str, folder: Path, out: Path) -> dict[str, float]:
    """Seconds of one run, in all and from the end of one round to that of the next (median)."""
    out.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FEDMRI_CACHE": str(out / "kept"), "RAY_DISABLE_IMPORT_WARNING": "1"}
    command, began = [python, __file__, "--child", side, str(folder), str(out)], time.perf_counter()
    with (out / "log").open("wb") as log:
        ended = subprocess.run(command, env=environment, cwd=out, stdout=log, stderr=subprocess.STDOUT, check=False)
    whole = time.perf_counter() - began
    if ended.returncode or not (out / "last.npy").is_file():
        raise SystemExit(f"{side}: the run failed; the end of its log:\n{(out / 'log').read_text(errors='replace')[-3000:]}")
    return {"run": round(whole, 2), "round": round(statistics.median(round_seconds(out)), 3)}


def round_seconds(out: Path) -> list[float]:
    """Of each round after the first."""
    if (out / "rounds.json").is_file():
        return list(json.loads((out / "rounds.json").read_text()))[1:]
    lines = [json.loads(line) for file in out.glob("*.times") for line in file.read_text().splitlines()]
    ends = [max(at for number, at in lines if number == one) for one in range(1, ROUNDS + 1)]
    return list(np.diff(ends))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--nvflare", help="an interpreter that has it", default=sys.executable)
    arguments = parser.parse_args()
    pythons = {"ours": sys.executable, "flower": sys.executable, "nvflare": arguments.nvflare}
    if subprocess.run([arguments.nvflare, "-c", "import nvflare"], capture_output=True, check=False).returncode:
        print(f"NVFlare is not installed for {arguments.nvflare}: that side is left out. --help says how to have it.", flush=True)
        del pythons["nvflare"]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in pythons}
    apart: dict[str, float] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments.sites, arguments.patients)
        for turn in range(arguments.turns):
            for side, python in pythons.items():
                out = folder / f"{side}-{turn}"
                found[side].append(measure(side, python, folder, out))
                apart[side] = float(np.abs(np.load(out / "last.npy") - np.load(folder / "ours-0" / "last.npy")).max())
                print(side, json.dumps(found[side][-1]), f"largest difference from ours {apart[side]:.1e}", flush=True)
    middle = {side: {what: statistics.median(one[what] for one in turns) for what in turns[0]} for side, turns in found.items()}
    best = {what: min(times[what] for side, times in middle.items() if side != "ours") for what in middle["ours"]}
    ratios = {what: round(middle["ours"][what] / best[what], 3) for what in best}
    table = {"seconds": found, "medians": middle, "ours over the faster peer": ratios, "apart": apart, "aim": 0.5}
    write_atomic(arguments.out, (json.dumps(table, indent=2) + "\n").encode())
    print(json.dumps(table, indent=2))
    if max(apart.values()) > CLOSE:
        raise SystemExit(f"The sides end in other arrays, so that the ratio says nothing: {apart}")


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        SIDES[sys.argv[2]](Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
