"""What a deployed round costs beside the training: four hospitals and their coordinator, TLS on the loopback, a small step.

    python bench/deployed.py OUT.json [ROUNDS]

Overhead is the wall time of a round less the longest span, at a site, from request read to update ready. That span is taken where
the bundle's own code is called: each site holds the bundle with an app around its app that notes the time (an unpacked bundle
is left as it is). In the folder of another commit's checkout, by that one's Python, it measures that one.
BENCH_SET in the environment holds more settings of the run, KEY=VALUE with spaces between.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SITES, IDLE_SECONDS = 4, 30.0
TICKS = os.sysconf("SC_CLK_TCK")
APP = """
import json, time
from flwr.clientapp import ClientApp
import client.app
app = ClientApp()

@app.train()
def train(message, context):
    began, used = time.time(), time.process_time()
    reply = client.app.app(message=message, context=context)
    line = {{"group": message.metadata.group_id, "began": began, "ended": time.time()}}
    with open({spans!r}, "a") as file:
        file.write(json.dumps(line | {{"before": used, "used": time.process_time()}}) + "\\n")
    return reply
"""
SETTINGS = (
    *("data.size=64", "data.slices=2", "head_steps=1", "training.batch_size=4", "local_crops=0", "bootstrap=0"),
    *("evaluation.every=0", "holdout=0.0", f"min_sites={SITES}", "round_timeout=240", "baselines=false"),
)


def main(out: Path, rounds: int = 6) -> None:
    """Measure and write."""
    sys.path.insert(0, str(Path.cwd()))
    federation = importlib.import_module("tests.integration.deployment.federation")
    with TemporaryDirectory() as name:
        one = federation.Federation(Path(name))
        try:
            one.build(sites=SITES, patients=4)
            found = _measure(one, federation, rounds)
        finally:
            one.stop()
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def _measure(one: Any, federation: Any, rounds: int) -> dict[str, Any]:
    place = "server.deployment.bundle" if Path("server/deployment").is_dir() else "server.bundle"
    bundle = importlib.import_module(place).build_bundle()
    one.start()
    sites = list(one.hospitals.values())
    for site in sites:
        site.approve(bundle.sha256)
        _note_spans(bundle.content, site.home / "state" / "bundles" / bundle.sha256, site.home / "spans.jsonl")
        site.start()
    federation.until(lambda: len(one.online()) == SITES, 120, "the hospitals online")
    time.sleep(5)
    idle = _seconds_of(federation, sites)
    time.sleep(IDLE_SECONDS)
    before = _seconds_of(federation, sites)
    served = _service(one)
    ended, watch = _run(one, federation.server_main.__module__, rounds)
    time.sleep(3)
    after = _seconds_of(federation, sites)
    spans = [[json.loads(line) for line in (site.home / "spans.jsonl").read_text().splitlines()] for site in sites]
    rows = [_round(number, line, spans) for number, line in enumerate(ended, start=1)]
    asked = [span for each in spans for span in each]
    bundle_seconds = sum(span["used"] for span in asked)
    return {
        "checkout": str(Path.cwd().name),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "rounds": rows,
        "median": {key: round(statistics.median(row[key] for row in rows[1:]), 3) for key in ("seconds", "span", "overhead")},
        "messages": len(asked),
        "core seconds": {
            "idle site, a minute": round((before - idle) / SITES * 60 / IDLE_SECONDS, 3),
            "all of a site, a message": round((after - before) / len(asked), 3),
            "bundle's process until it is called": round(statistics.median(span["before"] for span in asked), 3),
            "bundle's process in all": round(bundle_seconds / len(asked), 3),
            "service, of a round": round((_service(one) - served) / rounds, 3),
            **watch,
        },
    }


def _note_spans(bundle: bytes, folder: Path, spans: Path) -> None:
    """Unpack the bundle as the gate does, and have its app called by one that notes when."""
    unpack = importlib.import_module("client.gate.approvals" if Path("client/gate").is_dir() else "client.approved").unpack
    unpack(bundle, folder)
    (folder / "timed.py").write_text(APP.format(spans=str(spans)))
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace("client.app:app", "timed:app"))


def _run(one: Any, cli: str, rounds: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A run by `fedmri-server run`: its rounds, and what the command itself cost."""
    out = one.home / "runs" / "bench"
    call = f"import sys; from {cli} import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", call, "run", str(one.home), "--config", "demo"]
    command += ["--external", str(one.data / "external"), "--out", str(out), "--cache", str(one.folder / "cache")]
    for setting in (*SETTINGS, f"federation.rounds={rounds}", f"head_rounds={rounds}", *os.environ.get("BENCH_SET", "").split()):
        command += ["--set", setting]
    began, at = time.monotonic(), 0.0
    with subprocess.Popen(command) as process:
        until = {"fedmri-server run, until the run is taken": 0.0}
        first = used = 0.0
        while process.poll() is None:
            with suppress(OSError, ValueError, IndexError):
                used, now = _used(process.pid), time.monotonic()
                if not at and (one.home / "state" / "run.json").is_file():
                    at, first = now, used
                    until = {"fedmri-server run, until the run is taken": round(used, 2)}
            time.sleep(0.05)
    assert process.returncode == 0, "the run failed"
    watched = (used - first) / max(1e-9, now - at)
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    wall = {"seconds until the run is taken": round(at - began, 2), "seconds of the run": round(now - began, 2)}
    return lines, until | {"fedmri-server run, of a core while it watches": round(watched, 4)} | wall


def _round(number: int, line: dict[str, Any], spans: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Wall time of a round, the longest span of its training at a site, and what is left."""
    longest = max(span["ended"] - span["began"] for each in spans for span in each if span["group"] == str(number))
    seconds = float(line["seconds"])
    return {
        "round": number,
        "seconds": round(seconds, 2),
        "span": round(longest, 3),
        "overhead": round(seconds - longest, 3),
        "sites": len(line["sites"]),
    }


def _seconds_of(federation: Any, sites: list[Any]) -> float:
    """Processor seconds of all processes of the sites, and of those of them that have ended."""
    return sum(
        sum(map(_used, (*federation.carrying("FEDMRI_SITE", str(site.home.resolve() / "site.toml")), *_of_bundle(site))))
        for site in sites
    )


def _of_bundle(site: Any) -> list[int]:
    """Processes that run the site's unpacked bundle, and know nothing of its site.toml."""
    place, found = str(site.home.resolve() / "state" / "bundles").encode(), []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if place in file.read_bytes():
                found.append(int(file.parent.name))
    return found


def _service(one: Any) -> float:
    told = json.loads((one.home / "state" / "supervisor.json").read_text())
    return sum(_used(entry["pid"]) for entry in told["programs"].values() if entry["pid"])


def _used(pid: int) -> float:
    """User and system seconds of a process and of its children that were waited for; 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(fields[place]) for place in (11, 12, 13, 14)) / TICKS


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
