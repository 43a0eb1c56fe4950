"""Hospitals whose gate lies: what is no update at all, and what could be one, but claims too much. All in one run."""

from pathlib import Path

import numpy as np
from fault_bench import Bench, Scenario, whole
from fault_tools import changed
from safetensors.numpy import load_file

from server.cli.main import main as server_main
from tests.integration.deployment.federation import Hospital, Run

LIES = {
    "nan": "NaN",
    "shapes": "wrong shapes",
    "names": "wrong names",
    "pickle": "a pickle in the place of an array",
    "norm": "a hundredfold update",
    "old": "an old round's reply",
    "garbage": "garbage bytes",
    "labelled": "more labelled patients than patients",
}
SHARE = 0.5  # of the weight, and of the change: the default of a deployed federation
AGREED = 4


def lies(bench: Bench) -> None:
    """A lie a round at three hospitals; never so many at once that the rest cannot say who is odd."""
    first, one, two, three = bench.sites()
    told = {
        one.name: ["nan", "counts", "shapes", "names", "pickle", "long"],
        two.name: ["garbage", "", "norm", "old", "", "many"],
        three.name: ["metrics", f"name:{first.name}", "", "", "labelled", ""],
    }
    _admit(bench, two, AGREED)
    try:
        with bench.tricked(told), changed(first, r"^share_metrics = false", "share_metrics = true"):
            run = bench.run("lies", "rounds=6", "pause_after=0", "min_sites=2")
            assert run.ends(1800) == 0, run.error
    finally:
        _admit(bench, two, 0)
    whole(run, 6)
    for name, number, lie in ((name, i, lie) for name, lies in told.items() for i, lie in enumerate(lies, start=1)):
        if lie in LIES:
            with bench.row(lie) as row:
                assert name not in run.rounds[number - 1]["sites"], run.rounds[number - 1]
                row.seen = run.failures[number][name]
                assert lie != "pickle" or not Path("/tmp/fedmri-unpickled").exists()
    _bounded(bench, run)
    _left_out(bench, run)


def _bounded(bench: Bench, run: Run) -> None:
    """Counts and lengths that the server brings down."""
    first, one, two, _ = bench.sites()
    with bench.row("counts") as row:
        part = _part(run, 2, one)
        assert part["weight"] <= SHARE + 1e-9, part
        usual = [_moved(run, number) for number in (3, 4)]
        assert _moved(run, 2) > 0.1 * min(usual), (_moved(run, 2), usual)
        others = f"rounds 3 and 4: {min(usual):.3g} to {max(usual):.3g}"
        row.seen = f"{part['weight']:.0%} of the weight; the model moved by {_moved(run, 2):.3g} ({others})"
    with bench.row("many") as row:
        part, honest = _part(run, 6, two), _part(run, 6, first)
        assert part["weight"] <= honest["weight"] + 1e-9, (part, honest)  # the other has as many patients, all labelled
        row.seen = f"counts as {AGREED}: {part['weight']:.0%} of the weight"
    with bench.row("long") as row:
        part = _part(run, 6, one)
        assert part["scale"] < 1
        assert part["change"] <= SHARE + 1e-9, part
        row.seen = f"shortened to {part['scale']:.3f} of its length, {part['change']:.0%} of the change, in the round's record"


def _left_out(bench: Bench, run: Run) -> None:
    """Metrics and names that nobody asked for."""
    first, _, _, three = bench.sites()
    with bench.row("metrics") as row:
        line = run.rounds[0]
        assert three.name in line["sites"], line
        assert "loss" in line["train"], line["train"]  # the honest one's
        assert not {"accuracy", "../../etc/passwd"} & set(line["train"]), line["train"]
        assert all(abs(value) <= 1e6 for value in line["train"].values()), line["train"]
        assert "etc/passwd" not in (run.out / "report.json").read_text() + (run.out / "events.jsonl").read_text()
        row.seen = f"left out; the round's record holds the other's {', '.join(sorted(line['train']))}"
    with bench.row("name") as row:
        line = run.rounds[1]
        assert three.name in line["sites"], line
        assert first.name in line["sites"], line
        row.seen = f"counts as {three.name}, by its key; {first.name}'s own reply is in the mean"


def _admit(bench: Bench, site: Hospital, patients: int) -> None:
    """Agree on so many patients; 0: on nothing."""
    key = str(site.home / "keys" / "site.pub")
    assert server_main(["admit", str(bench.federation.home), key, "--name", site.name, "--patients", str(patients)]) == 0


def _part(run: Run, number: int, site: Hospital) -> dict[str, float]:
    """The site's part in a round, of its record."""
    found: dict[str, float] = run.rounds[number - 1]["influence"][site.name]
    return found


def _moved(run: Run, number: int) -> float:
    """The length of the global arrays' step in a round."""
    before, after = (load_file(run.out / "checkpoints" / f"round-{n:04d}.safetensors") for n in (number - 1, number))
    steps = [after[name].astype(np.float64) - before[name] for name in after if name in before and after[name].shape]
    return float(np.sqrt(sum(float((step**2).sum()) for step in steps)))


LYING = Scenario(
    lies,
    {lie: (f"a site sends: {words}", "refused, named, weighs nothing") for lie, words in LIES.items()}
    | {
        "counts": ("a site claims 10^7 patients and changes nothing", "half of the weight at most; the model goes on moving"),
        "many": (f"a site claims 10^7 patients, {AGREED} were agreed on", f"counts as {AGREED}"),
        "long": (
            "a site claims 200 patients and sends 20 times its change",
            "shortened; half of the change at most; in the record",
        ),
        "metrics": ("a site tells metrics of its own invention, and 1e308", "in no record, chart or mean"),
        "name": ("a site says that it is another", "counts as itself; the other's reply stays"),
    },
)
