"""The hospital's gate: what Flower's executor starts here in the place of `flwr-clientapp`.

It takes a message and its bundle from the site's SuperNode. A bundle that is not approved is refused before anything of it is on
disk; an approved one answers in a process of its own (`client.bundle`), without the token; what it answers is held against the
hospital's policy, written into the audit log, and only then handed on. The gate is installed code: no server can change it.
"""

import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto, message_to_proto, recorddict_from_proto
from flwr.proto.message_pb2 import Context as ContextProto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from client import approved, audit_log
from client.bundle import read_part, write_part
from client.ledger import Ledger, read_ledger
from client.policy import keep_back, reply_bytes, require_hours, require_leaving
from common.config import config_from_json
from common.data.site import SiteConfig, read_site_config
from common.errors import AuditLogError, ConfigError, FederationError, FedMRIError, PolicyError
from common.protocol import ARRAYS, EPSILON, ERROR, METRICS, SITE, SiteReply, Task, printable, read_task, write_status
from common.secure.messages import MASKED, SECURE
from common.supervisor import die_with_parent

SITE_VARIABLE = "FEDMRI_SITE"  # in the environment: the absolute path of site.toml
ENDED = "the site's process ended before it answered"
TOO_LATE = "the site did not finish in time"
logger = logging.getLogger("fedmri.gate")


@dataclass(frozen=True)
class Gate:
    """One hospital's gate.

    Attributes:
        path: of site.toml, read anew for every message: the hospital may change its policy at any time.
    """

    path: Path

    @property
    def home(self) -> Path:
        """Folder of site.toml."""
        return self.path.parent

    def answer(self, message: Message, context: Context, bundle: bytes) -> tuple[RecordDict, Context]:
        """Answer one message, whatever happens: of an error its public sentence leaves, and no more.

        Raises:
            AuditLogError: the log cannot be written. Nothing leaves then, not even a refusal with its reason.
        """
        site, broken = self._site()
        state = self.home / site.connection.state
        log, task, name = state / audit_log.LOG_NAME, _task(message.content), site.name or self.home.resolve().name
        facts = {"bundle": hashlib.sha256(bundle).hexdigest(), "message": message.metadata.message_id, **_said(task)}
        audit_log.record(log, "in", **facts, **_carried(message.content))
        try:
            if broken:
                raise broken
            content, context = self._pass(message, context, bundle, site, task)
        except FedMRIError as error:
            logger.exception("Refused.")
            content = write_status(SiteReply(name, task.round, error=error.public))
            audit_log.record(log, "refused", **facts, rule=type(error).__name__, reason=error.public)
            return content, context
        except Exception as error:  # of an unknown error not even the text may leave
            logger.exception("The message failed at the gate.")
            content = write_status(SiteReply(name, task.round, error=f"an unexpected {type(error).__name__} at the site"))
            audit_log.record(log, "refused", **facts, rule=type(error).__name__, reason="unexpected")
            return content, context
        audit_log.record(log, "out", **facts, **_carried(content), policy="let out", **_outcome(content))
        return content, context

    def _site(self) -> tuple[SiteConfig, ConfigError | None]:
        """site.toml; where it cannot be read, the strict default, and why: nothing will be done then."""
        try:
            return read_site_config(self.path), None
        except ConfigError as error:
            return SiteConfig(), error

    def _pass(
        self, message: Message, context: Context, bundle: bytes, site: SiteConfig, task: Task
    ) -> tuple[RecordDict, Context]:
        """All rules, then the bundle, then all rules again over what it made."""
        state = self.home / site.connection.state
        require_hours(site.policy, datetime.now().astimezone())
        sha256 = hashlib.sha256(bundle).hexdigest()
        if site.policy.approval:
            approved.require_approved(self.home, state, bundle)
        before = self._open_ledger(site, task)
        folder = state / "bundles" / sha256
        approved.unpack(bundle, folder)
        most = int(site.policy.max_megabytes * 1e6) + 1_000_000
        content, context = run_bundle(message, context, folder, seconds=_left(message), most=most)
        require_leaving(content, message.content, site.policy)
        self._require_charged(site, content, before)
        return keep_back(content, site.policy), context

    def _open_ledger(self, site: SiteConfig, task: Task) -> Ledger | None:
        """The ledger as it stands, where the hospital has set a budget.

        Raises:
            PolicyError: the run trains without privacy.
            PrivacyError: the ledger cannot be trusted.
        """
        if not site.privacy.epsilon:
            return None
        if not config_from_json(task.config).privacy.enabled:
            raise PolicyError(
                "site.toml sets a privacy budget, but the run trains without privacy.",
                public="the site trains with differential privacy only",
            )
        return read_ledger(self.home / site.privacy.ledger)

    def _require_charged(self, site: SiteConfig, content: RecordDict, before: Ledger | None) -> None:
        """An update leaves only after its charge, and only within the budget, by the gate's own count.

        Raises:
            PolicyError: no charge was written, or the budget is exceeded.
        """
        if before is None or (ARRAYS not in content and MASKED not in content):
            return
        after = read_ledger(self.home / site.privacy.ledger)
        if len(after.entries) <= len(before.entries) or after.lines[: len(before.lines)] != before.lines:
            raise PolicyError("The bundle trained, but charged nothing to the privacy ledger. Nothing left the site.")
        from common.privacy.accounting import epsilon_of  # noqa: PLC0415  it brings torch, which most messages do without

        newest = after.entries[-1]
        spent = max(epsilon_of(history, site.privacy.delta) for history in after.histories(newest.cohort))
        if not spent <= site.privacy.epsilon:
            raise PolicyError(f"The ledger stands at epsilon {spent:.3f}, beyond the hospital's {site.privacy.epsilon:g}.")


def run_bundle(message: Message, context: Context, folder: Path, *, seconds: float, most: int) -> tuple[RecordDict, Context]:
    """Let the bundle's ClientApp answer, in a process of its own that ends with this one.

    Args:
        folder: the unpacked bundle.
        seconds: after which it is ended.
        most: bytes that it may answer.

    Raises:
        FederationError: it failed, took too long, or answered what cannot be read. Its own words stay in the site's log.
    """
    command = [sys.executable, str(Path(__file__).with_name("bundle.py")), str(folder)]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", SITE_VARIABLE)}
    sent = BytesIO()
    write_part(sent, message_to_proto(message).SerializeToString())
    write_part(sent, context_to_proto(context).SerializeToString())
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,  # noqa: PLW1509  one system call
    )
    with process:
        try:
            out, _ = process.communicate(sent.getvalue(), timeout=seconds)
        except subprocess.TimeoutExpired:
            raise FederationError(f"The bundle took more than {seconds:.0f} s.", public=TOO_LATE) from None
        finally:
            process.kill()
    if process.returncode or len(out) > most:
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}, {len(out)} bytes"
        raise FederationError(f"The bundle's process ended with {how}; the log above says more.", public=ENDED)
    try:
        answer = BytesIO(out)
        content = recorddict_from_proto(RecordDictProto.FromString(read_part(answer, most)))
        return content, context_from_proto(ContextProto.FromString(read_part(answer, most)))
    except Exception as error:  # protobuf and Flower raise many kinds
        raise FederationError(f"The bundle's answer cannot be read ({type(error).__name__}).", public=ENDED) from error


def _left(message: Message) -> float:
    """Seconds until nobody waits for the answer; at least one minute, for clocks differ."""
    return max(60.0, message.metadata.created_at + message.metadata.ttl - time.time())


def _task(content: RecordDict) -> Task:
    """What is asked, for the log; an unreadable request is the bundle's to refuse."""
    try:
        return read_task(content)
    except FedMRIError:
        return Task(round=1, config="", code="", backbone="")


def _said(task: Task) -> dict[str, Any]:
    return {"run": task.run, "round": task.round}


def _carried(content: RecordDict) -> dict[str, Any]:
    """What a message carries: names, bytes, and a hash over all array bytes."""
    digest, names = hashlib.sha256(), []
    for _, record in sorted(content.array_records.items()):
        for name, array in sorted(record.items()):
            names.append(name)
            digest.update(f"{name}\0{len(array.data)}\0".encode() + array.data)
    metrics, secure = content.metric_records.get(METRICS), content.config_records.get(SECURE)
    facts: dict[str, Any] = {"bytes": reply_bytes(content), "arrays": names, "metrics": sorted(metrics) if metrics else []}
    stage = {"stage": printable(str(secure.get("stage")), 20)} if secure is not None else {}
    return facts | stage | ({"sha256": digest.hexdigest()} if names else {})


def _outcome(content: RecordDict) -> dict[str, Any]:
    """What the reply says of itself: an error of the bundle's, epsilon spent."""
    site = content.config_records.get(SITE)
    if site is None:
        return {}
    epsilon, error = site.get(EPSILON), site.get(ERROR)
    spent = {"epsilon": epsilon} if isinstance(epsilon, float) and 0 <= epsilon < float("inf") else {}
    return ({"error": error} if error else {}) | spent


def main(argv: list[str] | None = None) -> int:
    """Stand in for Flower's program of the given name: one message, one answer."""
    from client.gate_flower import serve  # noqa: PLC0415  Flower's private names, in one place

    name, *arguments = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    path = Path(os.environ.get(SITE_VARIABLE, ""))
    try:
        return serve(name, arguments, Gate(path))
    except AuditLogError:
        logger.exception("Nothing left the site.")
        return 1


if __name__ == "__main__":
    sys.exit(main())
