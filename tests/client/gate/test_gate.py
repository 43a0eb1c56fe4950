"""The gate with real bundles in real processes: an unapproved one never runs, an approved one is held to the policy."""

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.gate.approvals import approve
from client.gate.audit_log import LOG_NAME, verify
from client.gate.bundle_process import ENDED, TOO_LATE, run_bundle
from client.gate.gate import Gate
from client.privacy.ledger import alone, append, read_ledger
from common.config.run import RunConfig, config_from_table
from common.errors import AuditLogError, FederationError, PrivacyError
from common.messages.parcel import KIND, is_packed, marked, packed
from common.messages.round import SiteReply, Task, pack_arrays, read_reply, read_status, write_task
from common.models.arrays import arrays_sha256
from common.privacy.charge import Charge

BEFORE = {"head": np.zeros(4, np.float32)}
TWO = {"body": np.zeros(3, np.float32), "head": np.zeros(4, np.float32)}
PYPROJECT = '[tool.flwr.app.components]\nclientapp = "client.app:app"\n'
APP = """
from pathlib import Path
import os, sys, time
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
Path(r"{ran}").write_text(__file__)

def reply(message, arrays, **metrics):
    metrics = {{"num-examples": 50, "labelled": 40, "round": 1, **metrics}}
    site = {{"name": "a", "error": "", "counts-shared": True, "epsilon": -1.0}}
    content = RecordDict({{"change": arrays, "metrics": MetricRecord(metrics), "site": ConfigRecord(site)}})
    return Message(content, reply_to=message)

@app.train()
def train(message, context):
    print("a word on stdout")
    arrays = ArrayRecord({{"head": Array(np.full(4, 0.5, np.float32))}})
    context.state["seen"] = MetricRecord({{"n": 1}})
    {body}
    return reply(message, arrays, loss=0.25)
"""


def bundle(tmp_path: Path, body: str = "pass") -> bytes:
    memory = BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        file.writestr("pyproject.toml", PYPROJECT)
        file.writestr("client/__init__.py", "")
        file.writestr("client/app.py", APP.format(ran=tmp_path / "ran", body=body))
    return memory.getvalue()


@pytest.fixture(autouse=True)
def identity(monkeypatch) -> None:
    """What Flower knows of the task that a process is for."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)


def asked(config: RunConfig | None = None, ttl: float = 100.0) -> tuple[Message, Context]:
    task = Task(1, (config or RunConfig()).to_json(), "code", "backbone", run="r1")
    message = Message(write_task(task, pack_arrays(BEFORE)), 7, "train", ttl=ttl)
    message.metadata.__dict__["_message_id"] = "m1"
    context = Context(run_id=1, node_id=7, node_config={}, state=RecordDict(), run_config={})
    return message, context


@pytest.fixture
def home(tmp_path) -> Path:
    folder = tmp_path / "hospital"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "a"\n')
    return folder


def ask(home: Path, content: bytes, config: RunConfig | None = None, yes: bool = True) -> tuple[SiteReply, Context, list[dict]]:
    if yes:
        approve(home, hashlib.sha256(content).hexdigest())
    reply, context = Gate(home / "site.toml").answer(*asked(config), content)
    verify(home / "state" / LOG_NAME)
    lines = [json.loads(line) for line in (home / "state" / LOG_NAME).read_text().splitlines()]
    status = read_status(reply)
    return (status if status.error else read_reply(reply, BEFORE)), context, lines


def test_an_unapproved_bundle_is_refused_before_anything_of_it_is_unpacked_or_run(home, tmp_path) -> None:
    content = bundle(tmp_path)
    reply, _, lines = ask(home, content, yes=False)
    assert reply.error == f"the site has not approved the bundle {hashlib.sha256(content).hexdigest()[:12]}"
    assert not (tmp_path / "ran").exists()
    assert sorted(p.name for p in (home / "state").iterdir()) == [LOG_NAME, "gate.lock", "refused"]
    assert [line["event"] for line in lines] == ["asked", "refused"]
    assert lines[1]["reason"] == reply.error


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "policy.approval"),
        ("[policy]\napproval = false\nsurvey = []\n", "policy.survey"),
        ("[privacy]\nepsilon = 3.0\n[policy]\napproval = false\n", "privacy.epsilon"),
        ("[policy]\nshare_count = true\n", "configuration"),
    ],
)
def test_a_refusal_names_the_key_that_refused(home, tmp_path, text, rule) -> None:
    (home / "site.toml").write_text(text)
    message, context = asked()
    if "survey" in rule:
        message.content["survey"] = ConfigRecord({})
    Gate(home / "site.toml").answer(message, context, bundle(tmp_path))
    lines = [json.loads(line) for line in (home / "state" / LOG_NAME).read_text().splitlines()]
    assert [(line["event"], line.get("rule")) for line in lines] == [("asked", None), ("refused", rule)]


REFUSES = """
    context.state["refused-by"] = ConfigRecord({{"rule": "policy.max_rank"}})
    content = reply(message, arrays).content
    del content["change"]
    content["site"]["error"] = "the site trains adapters of rank 2 at most"
    return Message(content, reply_to=message)
"""


@pytest.mark.slow
def test_what_the_bundle_itself_refuses_is_a_refusal_in_the_log(home, tmp_path) -> None:
    answer, context, lines = ask(home, bundle(tmp_path, REFUSES.format().strip()))
    assert answer.error == lines[1]["reason"] == "the site trains adapters of rank 2 at most"
    assert (lines[1]["event"], lines[1]["rule"], lines[1]["by"]) == ("refused", "policy.max_rank", "bundle")
    assert "refused-by" not in context.state


CHANGES = {
    "secure_only": ("[policy]\nsecure_only = true\n", "policy.secure_only"),
    "arrays": ('[policy]\narrays = ["vit.*"]\n', "policy.arrays"),
    "a budget": ("[privacy]\nepsilon = 3.0\n", "privacy.epsilon"),
    "nonsense": ("[policy]\nshare_count = 1\n", "configuration"),
    "withdrawn": ("", "policy.approval"),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_rule_that_is_made_while_the_bundle_trains_holds_when_the_update_leaves(home, tmp_path, change) -> None:
    text, rule = CHANGES[change]
    body = f"Path(r'{home / 'site.toml'}').write_text({text!r})"
    if change == "withdrawn":
        body += f"; Path(r'{home / 'bundles.txt'}').write_text('')"
    answer, _, lines = ask(home, bundle(tmp_path, body))
    assert answer.error
    assert not answer.update.change
    assert (lines[1]["event"], lines[1]["rule"]) == ("refused", rule)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then", "told"), [(False, True, {}), (True, False, {}), (True, True, {"loss": 0.25})])
def test_of_the_rules_before_and_after_the_stricter_hold(home, tmp_path, first, then, told) -> None:
    text = "[policy]\nmin_patients = 1\nshare_metrics = {}\n"
    (home / "sub-1").mkdir()
    (home / "site.toml").write_text(text.format(str(first).lower()))
    body = f"Path(r'{home / 'site.toml'}').write_text({text.format(str(then).lower())!r})"
    assert ask(home, bundle(tmp_path, body))[0].metrics == told


def test_an_approved_bundle_answers_from_its_own_code_and_only_what_may_leave_leaves(home, tmp_path) -> None:
    reply, context, lines = ask(home, bundle(tmp_path))
    assert reply.error == ""
    assert reply.update.change["head"].tolist() == [0.5] * 4
    assert (reply.patients, reply.counts_shared, reply.metrics) == (1, False, {})  # site.toml shares nothing
    assert str(home / "state" / "bundles") in (tmp_path / "ran").read_text()  # not the installed client.app
    assert "seen" in context.state
    assert [line["event"] for line in lines] == ["asked", "answered"]
    assert lines[0]["arrays"] == lines[1]["arrays"] == ["head"]
    assert lines[0]["sha256"] != lines[1]["sha256"]
    assert (lines[1]["run"], lines[1]["round"], lines[1]["metrics"]) == ("r1", 1, ["labelled", "num-examples", "round"])


TELLS = """
    told = reply(message, arrays)
    told.content["site"]["data"] = {data!r}
    return told
"""


@pytest.mark.slow
@pytest.mark.parametrize(("shared", "private"), [(False, False), (True, False), (True, True)])
def test_the_log_holds_the_hash_of_what_was_trained_on_and_says_when_it_changes(home, tmp_path, shared, private) -> None:
    text = "[privacy]\nepsilon = 30.0\n" if private else ""
    (home / "site.toml").write_text(f"{text}[policy]\nshare_data_hash = {str(shared).lower()}\n")
    told = []
    for data in ("ab" * 32, "cd" * 32):
        body = TELLS.format(data=data).strip()
        if private:
            root = Path(__file__).resolve().parents[3]
            body = CHARGE.format(root=root, home=home, noise=5.0, run="r1").strip() + "\n    " + body
        reply, _, lines = ask(home, bundle(tmp_path, body), private_plan() if private else None)
        assert reply.error == ""
        told.append(reply.data)
    assert told == (["ab" * 32, "cd" * 32] if shared and not private else ["", ""])
    answered = [line for line in lines if line["event"] == "answered"]
    assert [line["data"] for line in answered] == ["ab" * 32, "cd" * 32]
    assert [line.get("data_changed", False) for line in answered] == [False, True]


@pytest.mark.parametrize(("name", "says"), [("survey", "answers no surveys"), ("twins", "does not compare its patients")])
def test_what_the_policy_has_off_is_refused_before_the_bundle_runs_and_logged(home, tmp_path, name, says) -> None:
    content = bundle(tmp_path)
    approve(home, hashlib.sha256(content).hexdigest())
    message, context = asked()
    message.content[name] = ConfigRecord({"stage": "offer"})
    reply, _ = Gate(home / "site.toml").answer(message, context, content)
    assert says in read_status(reply).error
    assert not (tmp_path / "ran").exists()
    lines = [json.loads(line) for line in (home / "state" / LOG_NAME).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["asked", "refused"]
    assert all(line[name] for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "policy", "says"),
    [
        ("arrays['head'] = Array(np.full(4, 50.0, np.float32))", "max_update_norm = 10.0", "larger than may leave"),
        ("arrays['head'] = Array(np.full(4, np.nan, np.float32))", "", "not of the form"),
        ("arrays['x'] = Array(np.zeros(9, np.float32))", "", "not of the form"),
        ("arrays['head'] = Array(np.zeros(9_000_000, np.float32))", "max_megabytes = 1.0", ENDED),
        ("pass", 'arrays = ["vit.*"]', "arrays that may not leave"),
        ("raise ValueError('patient Smith')", "", ENDED),
        ("os.kill(os.getpid(), 9)", "", ENDED),
        ("sys.exit(0)", "", ENDED),
        ("os.write(3, b'garbage'); os._exit(0)", "", ENDED),
    ],
)
def test_what_an_approved_bundle_does_wrong_stays_here(home, tmp_path, body, policy, says) -> None:
    (home / "site.toml").write_text(f"[policy]\n{policy}\n")
    reply, _, lines = ask(home, bundle(tmp_path, body))
    assert says in reply.error
    assert "Smith" not in json.dumps(lines) + reply.error
    assert [line["event"] for line in lines] == ["asked", "refused"]


def test_outside_the_hours_nothing_runs(home, tmp_path, monkeypatch) -> None:
    from datetime import datetime, timedelta

    now = datetime.now().astimezone()
    hours = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    (home / "site.toml").write_text(f'[policy]\nhours = "{hours}"\n')
    reply, _, _ = ask(home, bundle(tmp_path))
    assert reply.error == "the site does not train at this time of day"
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_bundle_that_takes_too_long_is_ended(home, tmp_path) -> None:
    from client.gate.approvals import unpack

    unpack(bundle(tmp_path, "Path(r'%s').write_text(str(os.getpid())); time.sleep(600)" % (tmp_path / "pid")), tmp_path / "b")
    with pytest.raises(FederationError) as late:
        run_bundle(*asked(), tmp_path / "b", seconds=8.0, most=10_000)
    assert late.value.public == TOO_LATE
    if (tmp_path / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)


def private(noise: float = 5.0) -> RunConfig:
    """A run of this noise multiplier."""
    bounded = {"koleo": 0.0, "dino": 0.0, "ibot": 0.0, "local_crops": 0}
    return config_from_table({"privacy": {"enabled": True, "noise_multiplier": noise}, "objective": bounded})


CHARGE = """
    sys.path.insert(0, r'{root}')
    for name in [n for n in sys.modules if n.split('.')[0] in ('client', 'common')]: del sys.modules[name]
    from client.privacy.ledger import alone, append, read_ledger
    from common.privacy.charge import Charge
    path = Path(r'{home}') / 'privacy-ledger.jsonl'
    ledger = read_ledger(path)
    append(path, ledger, Charge({noise}, 0.1, 10), (ledger.mark('id:1'),), '{run}')
"""


private_plan = private


def test_under_a_budget_a_run_without_privacy_is_refused_outside_the_bundle_too(home, tmp_path) -> None:
    (home / "site.toml").write_text("[privacy]\nepsilon = 3.0\n")
    reply, _, _ = ask(home, bundle(tmp_path))
    assert reply.error == "the site trains with differential privacy only"
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("charged", "planned", "run", "leaves"),
    [
        (5.0, 5.0, "r1", True),
        (None, 5.0, "r1", False),  # nothing was charged
        (0.3, 0.3, "r1", False),  # beyond the budget
        (50.0, 5.0, "r1", False),  # less than was spent
        (5.0, 5.0, "r2", False),  # another run's
    ],
)
def test_an_update_leaves_only_after_its_charge_within_the_budget(home, tmp_path, charged, planned, run, leaves) -> None:
    (home / "site.toml").write_text("[privacy]\nepsilon = 3.0\n")
    root = Path(__file__).resolve().parents[3]
    body = "pass" if charged is None else CHARGE.format(root=root, home=home, noise=charged, run=run).strip()
    reply, _, _ = ask(home, bundle(tmp_path, body), private(planned))
    assert (reply.error == "") is leaves, reply.error
    if not leaves:
        assert reply.error == "the site's policy does not allow it"


def test_a_damaged_ledger_closes_the_gate(home, tmp_path) -> None:
    (home / "site.toml").write_text("[privacy]\nepsilon = 3.0\n")
    path = home / "privacy-ledger.jsonl"
    with alone(path):
        ledger = read_ledger(path)
        append(path, ledger, Charge(5.0, 0.1, 10), (ledger.mark("id:1"),), "r0")
    path.write_text(path.read_text().replace("5.0", "9.0"))
    reply, _, _ = ask(home, bundle(tmp_path), private())
    assert reply.error == PrivacyError.public_default
    assert not (tmp_path / "ran").exists()


def test_nothing_leaves_where_the_log_cannot_be_written(home, tmp_path) -> None:
    content = bundle(tmp_path)
    approve(home, hashlib.sha256(content).hexdigest())
    (home / "state").mkdir()
    (home / "state" / LOG_NAME).mkdir()
    with pytest.raises(AuditLogError):
        Gate(home / "site.toml").answer(*asked(), content)
    assert not (tmp_path / "ran").exists()


def test_a_request_whose_time_ran_out_behind_another_is_not_worked_on(home, tmp_path, monkeypatch) -> None:
    content = bundle(tmp_path)
    approve(home, hashlib.sha256(content).hexdigest())

    @contextmanager
    def slow(state: Path) -> Iterator[None]:
        time.sleep(0.2)
        yield

    monkeypatch.setattr("client.gate.gate.alone", slow)
    message, context = asked(ttl=0.1)
    reply = read_status(Gate(home / "site.toml").answer(message, context, content)[0])
    assert reply.error == "the site was busy with an earlier request until this one's time was over"
    assert not (tmp_path / "ran").exists()


def test_a_policy_that_cannot_be_read_closes_the_gate(home, tmp_path) -> None:
    (home / "site.toml").write_text("[policy]\nshare_count = true\n")
    reply, _, lines = ask(home, bundle(tmp_path))
    assert reply.error == "the configuration was refused at the site"
    assert [line["event"] for line in lines] == ["asked", "refused"]


def test_a_stage_of_a_secure_round_is_answered_once(home, tmp_path) -> None:
    """Flower may start two tasks of one node side by side, each with the same secrets in its context."""
    content = bundle(tmp_path)
    approve(home, hashlib.sha256(content).hexdigest())
    said = []
    for _ in range(2):
        message, context = asked()
        message.content["secure"] = ConfigRecord({"stage": "shares", "session": "s1"})
        reply, _ = Gate(home / "site.toml").answer(message, context, content)
        said.append(read_status(reply).error)
        (tmp_path / "ran").unlink(missing_ok=True) if len(said) == 1 else None
    assert said[1] == "a message of secure aggregation was out of step, or not readable"
    assert not (tmp_path / "ran").exists()


def test_a_pinned_start_is_held_to_whatever_round_the_server_names(home, tmp_path) -> None:
    (home / "site.toml").write_text(f'[policy]\ninitial_sha256 = "{"a" * 64}"\n')
    reply, _, _ = ask(home, bundle(tmp_path))
    assert reply.error == "the run is not the one that the site pinned (initial_sha256)"
    (home / "site.toml").write_text(f'[policy]\ninitial_sha256 = "{arrays_sha256(BEFORE)}"\n')
    assert ask(home, bundle(tmp_path))[0].error == ""
    (home / "site.toml").write_text(f'[policy]\ninitial_sha256 = "{"b" * 64}"\n')
    assert ask(home, bundle(tmp_path))[0].error == ""  # of a run that is known only the first request counts


def test_a_request_of_a_million_names_does_not_close_the_log(home, tmp_path) -> None:
    content = bundle(tmp_path)
    message, context = asked()
    message.content["arrays"] = ArrayRecord({"n" * 200 + str(i): Array(np.zeros(1, np.float32)) for i in range(8000)})
    Gate(home / "site.toml").answer(message, context, content)
    reply, _, lines = ask(home, content)
    assert reply.error == ""
    assert lines[0]["number"] == 8000
    assert max(len(line) for line in (home / "state" / LOG_NAME).read_text().splitlines()) < 10_000


def test_losses_of_a_small_cohort_are_kept_by_the_gates_own_count(home, tmp_path) -> None:
    (home / "site.toml").write_text("[policy]\nshare_metrics = true\nmin_patients = 3\n")
    for number in range(2):
        (home / f"sub-{number}").mkdir()
    assert ask(home, bundle(tmp_path))[0].metrics == {}
    (home / "sub-3").mkdir()
    assert ask(home, bundle(tmp_path))[0].metrics == {"loss": 0.25}


def test_processes_that_a_bundle_starts_end_with_it(home, tmp_path) -> None:
    pid = tmp_path / "pid"
    body = f"import subprocess; Path(r'{pid}').write_text(str(subprocess.Popen(['/bin/sleep', '600'], stdout=2).pid))"
    assert ask(home, bundle(tmp_path, body))[0].error == ""
    status = Path("/proc") / pid.read_text() / "status"
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_arrays_that_travel_as_one_are_held_to_the_same_rules(home, tmp_path) -> None:
    content = bundle(tmp_path)
    approve(home, hashlib.sha256(content).hexdigest())
    message, context = asked()
    message.content = marked(packed(RecordDict({**message.content, "arrays": pack_arrays(TWO)})))
    assert is_packed(message.content)
    Gate(home / "site.toml").answer(message, context, content)
    lines = [json.loads(line) for line in (home / "state" / LOG_NAME).read_text().splitlines()]
    assert lines[0]["arrays"] == sorted(TWO)  # by their names, as in any request
    assert (lines[1]["event"], lines[1]["rule"]) == ("refused", "records")  # the bundle answers with one of the two


def test_a_parcel_that_cannot_be_read_is_refused_and_logged(home, tmp_path) -> None:
    content = bundle(tmp_path)
    approve(home, hashlib.sha256(content).hexdigest())
    message, context = asked()
    message.content["arrays"] = ArrayRecord({"x": Array("uint8", (3,), KIND, b"\xff\xff\xff")})
    reply, _ = Gate(home / "site.toml").answer(message, context, content)
    assert read_status(reply).error
    assert not (tmp_path / "ran").exists()
    lines = [json.loads(line) for line in (home / "state" / LOG_NAME).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["asked", "refused"]
