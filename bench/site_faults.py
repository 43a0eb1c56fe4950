"""Faults at hospitals that are there: approval, policy, patients' data, disks."""

import contextlib
import gzip
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from fault_bench import Bench, Scenario, asked, events, wait_back, whole
from fault_tools import changed, fill, small_disk

from client.cli.main import main as site_main
from client.gate.audit_log import verify
from server.deployment.bundle import build_bundle
from tests.integration.deployment.federation import SMALL, Hospital, Run, until

PRIVATE = (
    *("head_rounds=2", "rounds=2", "privacy.steps=2", "bootstrap=20", "evaluation.every=0", "baselines=false"),
    *("min_sites=1", "round_timeout=240", "evaluation.audit=false", "pause_after=0"),
)


def first_run(bench: Bench) -> None:
    """The first run of all, as the documents have it: no file of weights is named, and every hospital's cache is empty."""
    late, *others = bench.sites()
    with bench.row("first") as row:
        for site in others:
            assert 'weights = ""' in (site.home / "site.toml").read_text()
            assert not (site.home / "cache").exists()
        out = io.StringIO()
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            small = [word for setting in SMALL for word in ("--set", setting)]
            code = site_main(["doctor", str(others[0].home), "--config", "demo", *small, "--json"])
        checks = {check["check"]: check["level"] for check in json.loads(out.getvalue())["checks"]}
        assert code == 0, [check for check in json.loads(out.getvalue())["checks"] if check["level"] == "FAILED"]
        row.seen = f"doctor: {len(checks)} checks, none failed"
    run = bench.run("first", "rounds=2", "pause_after=0", "evaluation.holdout=0.2")
    with bench.row("late-approval") as row:
        sha256 = build_bundle().sha256
        run.until(lambda: late.events("refused"), 300, "the refusal of a bundle that nobody approved")
        late.approve(sha256)
        assert (late.home / "state" / "refused" / f"{sha256}.fab").is_file()
        assert run.ends(900) == 0, run.error
        assert late.name not in run.rounds[0]["sites"], run.rounds[0]
        again = wait_back(run, late, 0)
        told = [e for e in events(run) if e["event"] == "refused" and e["site"] == late.name]
        assert "has not approved the bundle" in told[0]["reason"], told
        assert late.log()[1]["rule"] == "policy.approval", late.log()[1]
        row.seen = f"round 1: {told[0]['reason']}; in from round {again}"
    bench.add(
        "first", "all who had approved are in round 1", holds=lambda: set(run.rounds[0]["sites"]) == {o.name for o in others}
    )
    said = (run.out / "report.json").read_text() + (run.out / "rounds.jsonl").read_text()
    bench.add("first", "no hospital's path in the report", holds=lambda: str(bench.federation.folder / "hospitals") not in said)
    quiet = all("does not share sums" in site.log()[-1]["reason"] for site in others)
    bench.add("first", "sums for calibration stay there by default", holds=lambda: quiet)


def policies(bench: Bench) -> None:
    """One hospital refuses the run for good, one an update, one changes its policy while it trains, one has no labels."""
    plain, stands, bounds, unlabelled = bench.sites()
    plan = ("rounds=3", "head_rounds=2", "min_sites=3", "local_epochs=12", "pause_after=0")
    with changed(stands, r"^secure_only = false", "secure_only = true"), contextlib.ExitStack() as strict:
        strict.enter_context(changed(bounds, r"^max_update_norm = 0.0", "max_update_norm = 1e-9"))
        told = {site.name: len(site.log()) for site in (stands, bounds)}  # by earlier runs of this federation

        def refused(site: Hospital) -> list[dict[str, Any]]:
            return [entry for entry in site.log()[told[site.name] :] if entry["event"] == "refused"]

        run = bench.run("policies", *plan)
        with bench.row("policy-log") as row:
            run.until(lambda: refused(bounds), 300, "the refusal of its update")
            strict.close()
            line = refused(bounds)[0]
            assert line["rule"] == "policy.max_update_norm", line
            row.seen = f"event {line['event']}, rule {line['rule']}: {line['reason']}"
        with bench.row("refused-once") as row:
            run.until(lambda: len(run.rounds) >= 1, 500, "round 1")
            first = run.rounds[0]
            again = {(each["site"], each.get("rule")) for each in first["retried"]}
            assert (bounds.name, "site") in again, first
            assert bounds.name in first["sites"], first
            assert first["attempts"] == 2, first
            row.seen = f"round 1: 2 attempts; {bounds.name} in the mean, its refusal kept: {sorted(again)}"
        with bench.row("refused-for-good") as row:
            times = asked(run, 1)
            assert times == {plain.name: 1, stands.name: 1, bounds.name: 2, unlabelled.name: 1}, times
            line = refused(stands)[0]
            assert (line["rule"], line.get("by")) == ("policy.secure_only", "bundle"), line
        with bench.row("policy-changed") as row:
            run.until(lambda: _trains(unlabelled, 3), 500, "the training of round 3")
            with changed(unlabelled, r"^max_update_norm = 0.0", "max_update_norm = 1e-9"):
                before = unlabelled.events("refused")
                run.until(lambda: unlabelled.events("refused") > before, 300, "the refusal of what it had trained")
            line = [entry for entry in unlabelled.log() if entry["event"] == "refused"][-1]
            assert (line["rule"], line["round"], line.get("by")) == ("policy.max_update_norm", 3, None), line
            row.seen = f"round 3: {line['event']} by {line['rule']}, nothing left"
        assert run.ends(900) == 0, run.error
    whole(run, 3)
    _after_policies(bench, run)


def _after_policies(bench: Bench, run: Run) -> None:
    """What can be told when the run is over."""
    _, stands, _, unlabelled = bench.sites()
    for_good = all(stands.name not in asked(run, number) for number in (2, 3))
    bench.add(
        "refused-for-good",
        f"asked once in 3 rounds ({run.failures[1][stands.name]}); nobody trained again for it",
        holds=lambda: for_good,
    )
    named = any(each["site"] == unlabelled.name for each in run.rounds[2].get("retried", []))
    bench.add(
        "policy-changed",
        "named in round 3, and in after the policy was set back",
        holds=lambda: named and unlabelled.name in run.rounds[2]["sites"],
    )
    with bench.row("unlabelled") as row:
        assert run.rounds[1].get("idle") == [unlabelled.name], run.rounds[1]
        assert unlabelled.name not in asked(run, 2)
        row.seen = f"round 2 (head alone): not asked, idle {run.rounds[1]['idle']}; asked again in round 3"


def _trains(site: Hospital, number: int) -> bool:
    """Whether it has written down who trains in this round, which it does just before."""
    return any(f'"last": {number}' in file.read_text() for file in (site.home / "trained").glob("*.json"))


def data(bench: Bench) -> None:
    """A patient's volumes are replaced in mid-run, another patient withdraws, and hospitals calibrate with a handful."""
    replaces, withdraws, *others = bench.sites()
    with contextlib.ExitStack() as undo:
        for site in (replaces, withdraws, *others):
            undo.enter_context(changed(site, r"^share_calibration = false", "share_calibration = true"))
        undo.enter_context(changed(replaces, r"^share_data_hash = false", "share_data_hash = true"))
        undo.callback(lambda: shutil.copytree(bench.folder / "data" / replaces.name, replaces.data, dirs_exist_ok=True))
        run = bench.run("data", "rounds=2", "evaluation.holdout=0.1", "evaluation.ood_rate=0.3")
        run.until(lambda: len(run.rounds) >= 1, 500, "round 1")
        _replace(replaces.data, "sub-0001")
        with bench.row("withdrawn") as row:
            cache = withdraws.home / "cache"
            mine = {path.parent for path in cache.glob("*/index.json")}
            out = io.StringIO()
            with redirect_stdout(out), _cache_of(withdraws):
                assert site_main(["withdraw", str(withdraws.home), "sub-0002", "--json"]) == 0
            told = json.loads(out.getvalue())
            assert told["entries"] == len(mine) > 0, told
            assert not any(path.exists() for path in mine)
            assert [used["last"] >= 1 for used in told["runs"].values()][-1:] == [True], told
            row.seen = f"{told['entries']} cache entries gone; {len(told['runs'])} runs named"
        assert run.ends(900) == 0, run.error
        whole(run, 2)
        bench.add(
            "withdrawn", "its cache holds no slice of theirs after the run", holds=lambda: not _cached(withdraws, "sub-0002")
        )
        logged = withdraws.events("withdrawn") == 1
        bench.add("withdrawn", "in the audit log", holds=lambda: logged)
        with bench.row("replaced") as row:
            lines = [entry for entry in replaces.log() if entry["event"] == "answered" and "data" in entry][-3:]
            assert any(entry.get("data_changed") for entry in lines), lines
            report = json.loads((run.out / "report.json").read_text())
            hashes = report["provenance"]["data"]["hashes"][replaces.name]
            assert len(hashes) == 2, hashes
            row.seen = f"data_changed in the audit log; the report has its data {' and '.join(hashes)}"
        with bench.row("few-held-back") as row:
            out = io.StringIO()
            with redirect_stdout(out), redirect_stderr(io.StringIO()):
                patient = next(p for p in sorted(others[0].data.iterdir()) if p.name.startswith("sub-"))
                assert site_main(["predict", str(patient), "--model", str(run.out), "--evidence", "none"]) == 0
            words = " ".join(out.getvalue().split())
            assert "Not flagged" not in words, words
            begins = "Cannot be told whether the patient is like"
            assert begins in words, words[:600]
            row.seen = words[words.index(begins) :].split(". ")[0][:250]
        withdraws.change(r"^exclude = .*$", "")


def _replace(folder: Path, patient: str) -> None:
    """Other images under the same names: each is turned over."""
    import nibabel as nib  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    for file in (folder / patient).glob("**/*.nii.gz"):
        image = nib.load(file)  # type: ignore[attr-defined]
        turned = nib.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine, image.header)  # type: ignore[attr-defined]
        file.write_bytes(gzip.compress(turned.to_bytes(), 1))


@contextmanager
def _cache_of(site: Hospital) -> Iterator[None]:
    import os  # noqa: PLC0415

    os.environ["FEDMRI_CACHE"] = str(site.home / "cache")
    try:
        yield
    finally:
        del os.environ["FEDMRI_CACHE"]


def _cached(site: Hospital, patient: str) -> bool:
    return any(patient in path.read_text() for path in (site.home / "cache").glob("*/index.json"))


def disks_full(bench: Bench) -> None:
    """A private run in which three hospitals have no room: for the privacy ledger, for slices, for the audit log. Needs root."""
    plain, charges, slices, logs = bench.sites()
    with contextlib.ExitStack() as undo:
        for site in (plain, charges, slices, logs):
            undo.enter_context(changed(site, r"^epsilon = 0.0", "epsilon = 1000.0"))
        undo.enter_context(changed(charges, r'^ledger = "privacy-ledger.jsonl"', 'ledger = "small/privacy-ledger.jsonl"'))
        logs.stop()
        shutil.rmtree(logs.home / "state")
        undo.callback(lambda: bench.start(logs))
        undo.enter_context(small_disk(logs.home / "state", 8000))
        undo.callback(logs.stop)
        bench.start(logs)
        until(logs.connected, 240, "the site connected")
        grow = {}
        for site, folder in ((charges, "small"), (slices, "cache")):
            grow[site.name] = undo.enter_context(small_disk(site.home / folder, 64))
            fill(site.home / folder, leave=8192)  # room for a head, not for what follows
        filler = fill(logs.home / "state")
        bench.sites()
        run = bench.run("disks", small=PRIVATE, config="private")
        run.until(lambda: len(run.rounds) >= 1, 600, "round 1")
        filler.unlink()
        for each in grow.values():
            each()
        first = run.failures[1]
        assert run.ends(900) == 0, run.error
        whole(run, 2)
        for key, site, says in (("ledger", charges, "ledger"), ("site-cache", slices, ""), ("audit-log", logs, "")):
            with bench.row(key) as row:
                assert site.name in first, first
                again = wait_back(run, site, 1)
                row.seen = f"round 1: {first[site.name]}; in from round {again}"
                assert says in first[site.name], first
                verify(site.home / "state" / "audit.jsonl")
        own = (slices.home / "state" / "logs" / "superexec.log").read_text(errors="replace")
        words = "No space left on device. Make room there"
        bench.add("site-cache", f"its own log: {words}", holds=lambda: words in own)


FIRST = Scenario(
    first_run,
    {
        "first": ("the first run, no weights named, caches empty", "doctor is content, and so is the first run"),
        "late-approval": ("a site that approves late", "refused and named; in from the next round"),
    },
    late=True,
)
POLICIES = Scenario(
    policies,
    {
        "policy-log": ("an update that the policy refuses", "the audit log says refused, and by which key of site.toml"),
        "refused-once": ("a refusal, and the retry succeeds", "both stand in the round's record"),
        "refused-for-good": ("a refusal that stands for the run", "asked once; nobody trains again for it; named"),
        "policy-changed": ("policy changed while the site trains", "held to before the update leaves; named"),
        "unlabelled": ("a site without labels in a round of the head alone", "not asked; no work for nothing"),
    },
)
DATA = Scenario(
    data,
    {
        "replaced": ("a patient's volumes replaced in mid-run", "a trace in the audit log and, where shared, in the report"),
        "withdrawn": (
            "a patient withdrawn in mid-run",
            "trains no more; no slice of theirs is kept; runs that used them are named",
        ),
        "few-held-back": ("a threshold from a handful of held-back patients", "predict says that it cannot be told"),
    },
)
SITE_DISKS = Scenario(
    disks_full,
    {
        "ledger": ("site's disk full at the privacy ledger", "no charge, no training; named; back when there is room"),
        "site-cache": (
            "site's disk full at the slice cache",
            "not trained; named; its own log says why; back when there is room",
        ),
        "audit-log": ("site's disk full at the audit log", "nothing leaves unlogged; named; back when there is room"),
    },
    needs=("root",),
)
