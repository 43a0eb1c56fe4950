"""What every fault of `faults.py` needs: the federation it is done to, the table of what was seen, and what a whole run is."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fault_tools import Proxy

from common.files import write_atomic
from tests.integration.deployment.federation import Federation, Hospital, Run, until


@dataclass
class Bench:
    """The federation that faults are done to, and the table of what was seen."""

    federation: Federation
    proxy: Proxy
    table: Path

    def sites(self) -> list[Hospital]:
        """All four, online and honest."""
        until(lambda: len(self.federation.online()) == 4, 240, "four hospitals online")
        return [self.federation.hospitals[name] for name in sorted(self.federation.hospitals)]

    @cached_property
    def reference(self) -> Run:
        """An uninterrupted run."""
        run = Run.begin(self.federation, "reference", "rounds=3")
        assert run.ends() == 0, run.error
        assert [r["sites"] for r in run.rounds] == [sorted(self.federation.hospitals)] * 3
        return run

    def same_model(self, run: Run) -> bool:
        """Whether a run ended in the uninterrupted one's model, byte for byte."""
        return (run.out / "model.safetensors").read_bytes() == (self.reference.out / "model.safetensors").read_bytes()

    def tell(self, fault: str, expected: str, seen: str, seconds: float | None = None) -> None:
        """A row of the table; one of the same fault is replaced."""
        rows = json.loads(self.table.read_text()) if self.table.is_file() else []
        row = {"fault": fault, "expected": expected, "seen": seen, "seconds": round(seconds, 1) if seconds else seconds}
        write_atomic(self.table, json.dumps([*(r for r in rows if r["fault"] != fault), row], indent=2).encode())
        print(f"{fault}: {seen}", flush=True)


def whole(run: Run, rounds: int) -> None:
    """The run is complete: every round once, a report, and a checkpoint of each round that was acknowledged."""
    assert [r["round"] for r in run.rounds] == list(range(1, rounds + 1))
    assert (run.out / "report.json").is_file()
    assert (run.out / "model.safetensors").is_file()
    for r in run.rounds:
        assert (run.out / "checkpoints" / f"round-{r['round']:04d}.safetensors").is_file()


def back(run: Run, site: Hospital, after: int) -> int:
    """The first round after `after` whose mean holds the site's update."""
    found = [r["round"] for r in run.rounds if r["round"] > after and site.name in r["sites"]]
    assert found, f"{site.name} did not come back: {run.failures}"
    return int(found[0])


def began(site: Hospital, run: Run) -> None:
    """Wait until a request of this run has come in."""
    before = site.events("asked")
    run.until(lambda: site.events("asked") > before, 240, f"a request at {site.name}")
