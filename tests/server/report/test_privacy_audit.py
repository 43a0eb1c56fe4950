"""What a hospital sends as its audit: taken when whole and consistent, refused by name in one line otherwise."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import FedMRIError
from server.cli.main import main
from server.report.privacy_audit import audit_entry, read_audit, refutations, with_audit
from server.report.publish import write_report
from server.report.report import read_report
from server.report.results import complete

CLAIM = {"epsilon": 3.2, "delta": 1e-3, "noise_multiplier": 1.0, "max_grad_norm": 0.5, "sample_rate": 0.08, "steps": 20}
NAMES = ("noise of the promised size", "noise from no seed", "sampling rate as claimed", "one patient's share is bounded")
GOOD: dict[str, Any] = {
    "mechanism": {"noise_multiplier": 1.0, "max_grad_norm": 0.5, "sample_rate": 0.08},
    "checks": [{"name": name, "passed": True, "detail": f"as it should be, {n}"} for n, name in enumerate(NAMES)],
    "canary": {"claimed": 1.5, "audited": 0.21, "delta": 1e-5, "guesses": 120, "right": 79},
    "membership_auc": 0.53,
    "passed": True,
}
DELETED = object()
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from([*GOOD, *GOOD["canary"], "name", "x"]), inner),
    max_leaves=12,
)
PLACES = [
    *[(key,) for key in GOOD],
    *[("mechanism", key) for key in GOOD["mechanism"]],
    *[("canary", key) for key in GOOD["canary"]],
    *[("checks", n, key) for n in range(4) for key in ("name", "passed", "detail")],
    ("checks", 2),
    ("surplus",),
    ("canary", "surplus"),
]


def changed(*changes):
    """GOOD with other values at some places."""
    table = copy.deepcopy(GOOD)
    for place, value in changes:
        inner: Any = table
        for step in place[:-1]:
            inner = inner[step]
        if value is DELETED:
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
    return table


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    write_report(folder, complete({"privacy": {"bonn": CLAIM, "köln <b>": CLAIM}}))
    return folder


def sent(tmp_path, content) -> str:
    file = tmp_path / "audit.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(file)


def files(run):
    return {name: (run / name).read_bytes() for name in ("report.json", "report.html")}


def test_an_audit_stands_beside_its_epsilon_and_nothing_else_changes(run, tmp_path, capsys) -> None:
    before = read_report(run)
    assert main(["audit", str(run), "bonn", sent(tmp_path, GOOD)]) == 0
    assert "bonn passed" in capsys.readouterr().out
    after = read_report(run)
    assert after["privacy"]["bonn"].pop("audit") == {
        "passed": True,
        "checks": GOOD["checks"],
        "canary": {"claimed": 1.5, "audited": 0.21, "passed": True},
        "membership_auc": 0.53,
    }
    assert after == before
    page = " ".join((run / "report.html").read_text().split())
    assert '<th scope="row"><b>bonn</b></th> <td class="nowrap">passed</td> <td class="num">4 of 4</td>' in page
    assert '<td class="num">0.21</td> <td class="num">1.50</td><td class="num">0.53</td>' in page
    assert '<b>köln &lt;b&gt;</b></th> <td class="nowrap">not audited</td>' in page
    assert "REFUTED at" not in page


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([(("checks", 0, "passed"), False)], "noise of the promised size: as it should be, 0"),
        ([(("canary", "audited"), 3.25)], "canaries proved epsilon 3.25 of 1.50 claimed"),
    ],
)
def test_a_refuted_claim_is_loud_and_is_written(run, tmp_path, capsys, changes, said) -> None:
    file = sent(tmp_path, changed(*changes, (("passed",), False)))
    assert main(["audit", str(run), "bonn", file]) == 1
    assert f"PRIVACY CLAIM REFUTED at bonn ({said})" in capsys.readouterr().out
    assert not read_report(run)["privacy"]["bonn"]["audit"]["passed"]
    page = (run / "report.html").read_text()
    assert "✕ Privacy claim REFUTED at bonn." in page.split("<section>")[0]  # before anything else is read
    assert '<span class="wrong">✕ REFUTED</span>' in page
    assert [sentence[:38] for sentence in refutations(read_report(run))] == ["PRIVACY CLAIM REFUTED at bonn (" + said[:7]]


def test_a_run_whose_claim_nobody_audited_says_so(run) -> None:
    assert "The privacy claim has not been audited" in (run / "report.html").read_text()


def test_one_audit_is_not_laid_over_another_unasked(run, tmp_path, capsys) -> None:
    file = sent(tmp_path, GOOD)
    assert main(["audit", str(run), "bonn", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["membership_auc"] == 0.53
    before = files(run)
    other = sent(tmp_path, changed((("membership_auc",), None)))
    assert main(["audit", str(run), "bonn", other]) == 2
    assert "already holds an audit of bonn. Give --force" in capsys.readouterr().err
    assert files(run) == before
    assert main(["audit", str(run), "bonn", other, "--force"]) == 0
    assert read_report(run)["privacy"]["bonn"]["audit"]["membership_auc"] is None


def test_unknown_sites_and_runs_are_named(run, tmp_path, capsys) -> None:
    file = sent(tmp_path, GOOD)
    assert main(["audit", str(run), "ulm", file]) == 2
    assert "Site 'ulm' is none of the run's private sites (bonn, köln <b>)" in capsys.readouterr().err
    write_report(tmp_path / "open", complete({}))
    assert main(["audit", str(tmp_path / "open"), "bonn", file]) == 2
    assert "not private" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "none"), "bonn", file]) == 1
    assert "no report.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("canary",), DELETED, "expected a table of mechanism, checks, canary"),
        (("surplus",), 1, "expected a table of mechanism"),
        (("mechanism", "noise_multiplier"), 2.0, "mechanism.noise_multiplier: expected 1.0, as in the run; got 2.0"),
        (("mechanism", "sample_rate"), True, "mechanism.sample_rate"),
        (("checks",), [], "expected a list of 9 checks"),
        (("checks", 1, "name"), NAMES[0], "the checks' names: expected noise of the promised size, noise from no seed"),
        (("checks", 1, "name"), ["x"], "the checks' names"),
        (("checks", 1, "passed"), 1, "checks[1].passed: expected true or false; got 1"),
        (("checks", 1, "detail"), "a\nb", "checks[1].detail: expected at most 300 printable characters"),
        (("checks", 1, "detail"), "x" * 301, "checks[1].detail"),
        (("checks", 1, "detail"), DELETED, "checks[1]: expected a table of name, passed, detail"),
        (("canary", "audited"), -0.1, "canary.audited: expected a number from 0 to 20; got -0.1"),
        (("canary", "audited"), "0.2", "canary.audited"),
        (("canary", "claimed"), 10**400, "canary.claimed"),
        (("canary", "guesses"), 1.5, "canary.guesses: expected a whole number"),
        (("canary", "right"), 121, "canary.right: expected a whole number from 0 to 120; got 121"),
        (("membership_auc",), 1.01, "membership_auc: expected a number from 0 to 1, or null"),
        (("passed",), False, "passed: expected true, as its checks and canaries have it; got False"),
        (("checks", 3, "passed"), False, "passed: expected false"),
        (("canary", "audited"), 1.51, "passed: expected false"),
    ],
)
def test_what_is_wrong_is_named_in_one_line_and_changes_nothing(run, tmp_path, capsys, place, value, named) -> None:
    before = files(run)
    assert main(["audit", str(run), "bonn", sent(tmp_path, changed((place, value)))]) == 1
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert files(run) == before


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "not valid JSON"),
        (b"\x80\x04}.", "not valid JSON"),  # a pickle
        (b"[" * 60_000, "not valid JSON"),
        (b" " * 65_537, "at most 65536 bytes"),
        (json.dumps(GOOD).replace("0.53", "NaN").encode(), "NaN is no number of JSON"),
        (json.dumps(GOOD).replace("0.53", "1e999").encode(), "membership_auc"),
        (json.dumps(GOOD).replace('"passed": true}', '"passed": true, "passed": true}').encode(), "a key occurs twice"),
        (b"9" * 5000, "not valid JSON"),
    ],
)
def test_what_is_no_audit_at_all(run, tmp_path, capsys, content, named) -> None:
    assert main(["audit", str(run), "bonn", sent(tmp_path, content)]) == 1
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_no_file_is_one_line(run, tmp_path, capsys) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        assert main(["audit", str(run), "bonn", str(path)]) == 1
        assert "expected what `fedmri-site audit privacy --json` prints" in capsys.readouterr().err


@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK), max_size=3))
@settings(max_examples=300, deadline=None)
def test_no_change_gets_an_inconsistent_audit_in(changes) -> None:
    """Whatever is accepted is what its own figures say, and fits a report; all else is our one error."""
    report = complete({"privacy": {"bonn": CLAIM}})
    try:
        table = changed(*changes)
    except (TypeError, IndexError, KeyError, AttributeError):  # an earlier change left no such place
        return
    try:
        entry = with_audit(report, "bonn", table)["privacy"]["bonn"]["audit"]
    except FedMRIError as error:
        refused = str(error).split("\n")
    else:
        refused = []
    if refused:
        assert len(refused) == 1
        return
    assert {check["name"] for check in entry["checks"]} == set(NAMES)
    assert entry["passed"] is (
        all(c["passed"] for c in table["checks"]) and table["canary"]["audited"] <= table["canary"]["claimed"]
    )
    assert 0 <= entry["canary"]["audited"] <= 20
    assert entry["membership_auc"] is None or 0 <= entry["membership_auc"] <= 1
    json.dumps(entry, allow_nan=False).encode()


@given(JUNK | st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_junk_is_refused(tmp_path_factory, junk) -> None:
    file = tmp_path_factory.getbasetemp() / "junk.json"
    file.write_bytes(junk if isinstance(junk, bytes) else json.dumps(junk).encode())
    with pytest.raises(FedMRIError, match=r"expected|at most") as caught:
        audit_entry(read_audit(file), CLAIM)
    assert "\n" not in str(caught.value)


def test_the_page_takes_names_and_details_as_text(run, tmp_path) -> None:
    table = changed((("checks", 2, "detail"), "<script>x</script>"), (("checks", 2, "passed"), False), (("passed",), False))
    assert main(["audit", str(run), "köln <b>", sent(tmp_path, table)]) == 1
    page = (run / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "REFUTED at köln &lt;b&gt;" in page
