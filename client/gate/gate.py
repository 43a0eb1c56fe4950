"""The hospital's gate: Flower's executor starts it in the place of `flwr-clientapp` (`client.gate.__main__`).

It takes a message and its bundle from the site's SuperNode. A bundle that is not approved is refused before anything of it is on
disk; an approved one answers in a process of its own (`client.gate.bundle_main`); what it answers is held against the hospital's
policy,
written into the audit log, and only then handed on. The gate is installed code: no server can change it. It guards against a
server that asks too much and code that does so by mistake; approved code runs as the same user and could go around it: hence the
approval.
"""

import hashlib
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict

from client.gate import approvals as approved
from client.gate import audit_log
from client.gate.bundle_process import run_bundle
from client.gate.data_watch import trained_facts
from client.gate.kept_models import keep_model
from client.gate.kept_process import KeptProcess
from client.gate.ledger_watch import note_grown, note_moved, require_known
from client.gate.message_facts import asked_facts, carried_facts, refusal_of, spent_facts
from client.gate.replay_guard import (
    alone,
    keep_split,
    note_summed,
    require_once,
    require_one_split,
    require_pinned_start,
    require_unsummed,
)
from client.policy.asking import (
    require_calibrating,
    require_comparing,
    require_hours,
    require_keeping,
    require_one_thing,
    require_summed,
    require_surveying,
    require_taking,
    secure_stage,
)
from client.policy.keeping import keep_back
from client.policy.leaving import asked_arrays, require_leaving
from client.privacy.ledger import Ledger, migrate, read_ledger
from client.privacy.ledger import alone as alone_with_ledger
from common.config.run import config_from_json
from common.config.site import SiteConfig, read_site_config
from common.errors import ConfigError, FederationError, FedMRIError, PolicyError, PrivacyError
from common.messages.calibration import CALIBRATION, SUMS
from common.messages.parcel import unpacked
from common.messages.refused_by import take_rule
from common.messages.released_model import MODEL, read_hand_out
from common.messages.round import ARRAYS, CHANGE, SiteReply, Task, read_task, write_status
from common.messages.secure_aggregation import MASKED, SECURE, MaskedInput, Unmask
from common.messages.survey import SURVEY
from common.messages.twins import TWINS
from common.messages.weights import LACKING, WEIGHTS, read_offer
from common.models.backbones.kept_weights import FOLDER_NAME as WEIGHTS_FOLDER
from common.models.backbones.kept_weights import keep_bytes, keep_shipped, kept_file
from common.privacy.charge import Charge

logger = logging.getLogger("fedmri.gate")


@dataclass(frozen=True)
class Gate:
    """One hospital's gate.

    Attributes:
        path: of site.toml, read anew for every message: the hospital may change its policy at any time.
        kept: forks an approved bundle's process where one is warm; None: each is started anew.
    """

    path: Path
    kept: KeptProcess | None = None

    @property
    def home(self) -> Path:
        """Folder of site.toml."""
        return self.path.parent

    @property
    def state(self) -> Path:
        """The site's state folder."""
        return self._state(self._site()[0])

    def answer(self, message: Message, context: Context, bundle: bytes) -> tuple[RecordDict, Context]:
        """Answer one message, whatever happens; of an error only its public sentence leaves the site.

        One at a time: Flower may start two side by side, and in a secure round each would see the same secrets.

        Raises:
            AuditLogError: the log cannot be written. Nothing leaves then, not even a refusal with its reason.
        """
        site, broken = self._site()
        state = self._state(site)
        try:
            if message.has_content():
                message.content = unpacked(message.content)
        except FederationError as error:
            broken = broken or error
        asked = message.content if message.has_content() else RecordDict()
        log, task, name = state / audit_log.LOG_NAME, _task(asked), site.name or self.home.resolve().name
        facts = {"bundle": hashlib.sha256(bundle).hexdigest(), "message": message.metadata.message_id, **asked_facts(task, asked)}
        came = time.monotonic()
        with alone(state):
            audit_log.record(log, audit_log.ASKED, **facts, **carried_facts(asked))
            try:
                if broken:
                    raise broken
                _require_awaited(message, time.monotonic() - came)
                content, context, trained = self._watched(message, context, bundle, site, task)
            except FedMRIError as error:
                logger.exception("Refused.")
                content = write_status(SiteReply(name, task.round, error=error.public, for_good=error.for_good))
                audit_log.record(log, audit_log.REFUSED, **facts, rule=error.rule, reason=error.public)
                return content, context
            except Exception as error:  # of an unknown error not even the text may leave
                logger.exception("The message failed at the gate.")
                content = write_status(SiteReply(name, task.round, error=f"an unexpected {type(error).__name__} at the site"))
                audit_log.record(log, audit_log.REFUSED, **facts, rule=audit_log.UNEXPECTED, reason=type(error).__name__)
                return content, context
            refused, rule = refusal_of(content), take_rule(context.state)
            if refused:  # the bundle's own: the approved code holds the same rules, and knows what the gate does not see
                audit_log.record(log, audit_log.REFUSED, **facts, rule=rule or "bundle", reason=refused, by="bundle")
            else:
                audit_log.record(log, audit_log.ANSWERED, **facts, **carried_facts(content), **spent_facts(content), **trained)
            return content, context

    def _state(self, site: SiteConfig) -> Path:
        return self.home / Path(site.connection.state).expanduser()

    def _site(self) -> tuple[SiteConfig, FedMRIError | None]:
        """site.toml; where it cannot be read, the strict default, and why: nothing will be done then."""
        try:
            return read_site_config(self.path), None
        except ConfigError as error:
            return SiteConfig(), error

    def _watched(
        self, message: Message, context: Context, bundle: bytes, site: SiteConfig, task: Task
    ) -> tuple[RecordDict, Context, dict[str, Any]]:
        """As `_pass`; where the ledger grew, the log says how far, also when the message is refused after its charge."""
        try:
            return self._pass(message, context, bundle, site, task)
        finally:
            if self._ledger(site).exists():
                with suppress(PrivacyError):  # a damaged one is refused where it is needed
                    note_grown(self._state(site) / audit_log.LOG_NAME, self._read_ledger(site))

    def _ledger(self, site: SiteConfig) -> Path:
        return self.home / site.privacy.ledger

    def _read_ledger(self, site: SiteConfig) -> Ledger:
        return read_ledger(self._ledger(site), self._keys(site))

    def _keys(self, site: SiteConfig) -> Path:
        """The folder of the site's key, where the ledger's salt is too."""
        return self.home / Path(site.connection.key).expanduser().parent

    def _pass(
        self, message: Message, context: Context, bundle: bytes, site: SiteConfig, task: Task
    ) -> tuple[RecordDict, Context, dict[str, Any]]:
        """Apply all rules, run the bundle, then apply the rules again to its reply; with what it trained on, for the log."""
        state, asked = self._state(site), message.content
        if MODEL in asked:
            return self._kept(site, asked, task, bundle), context, {}
        require_hours(site.policy, datetime.now().astimezone())
        sha256 = hashlib.sha256(bundle).hexdigest()
        if site.policy.approval:
            approved.require_approved(self.home, state, bundle)
        before = self._open_ledger(site, task)
        if site.policy.initial_sha256 and ARRAYS in asked:
            require_pinned_start(state, task.run, asked_arrays(asked), site.policy.initial_sha256)
        if WEIGHTS in asked:
            return self._taken(site, asked, task), context, {}
        self._require_kind(site, asked, task)  # refused before any patient is opened
        if CALIBRATION in asked:
            require_one_split(state, config_from_json(task.config))
        self._require_one_sum(state, site, asked, task)  # last of the rules: what is refused before has told nothing
        folder = state / "bundles" / sha256
        approved.unpack(bundle, folder)
        most = int(site.policy.max_megabytes * 1e6) + 1_000_000
        seconds = min(_left(message), site.policy.max_hours * 3600)
        keep_shipped(self.home / WEIGHTS_FOLDER)
        run = self.kept.run_bundle if self.kept and site.policy.approval else run_bundle
        content, context = run(message, context, folder, seconds=seconds, most=most)
        trained = trained_facts(state / audit_log.LOG_NAME, content, task)
        content = self._leaving(content, asked, site, task, before)
        content = self._leaving(content, asked, self._still_allowed(asked, task, bundle), task, before)
        if SUMS in content:
            keep_split(state, config_from_json(task.config))
        return content, context, trained

    def _leaving(self, content: RecordDict, asked: RecordDict, site: SiteConfig, task: Task, before: Ledger | None) -> RecordDict:
        """What of a reply leaves under one reading of site.toml; errors as `require_leaving` and `_require_charged`."""
        require_leaving(content, asked, site.policy)
        epsilon = self._require_charged(site, task, content, before)
        return keep_back(content, site.policy, cohort=self._cohort(site), epsilon=-1.0 if epsilon is None else epsilon)

    def _still_allowed(self, asked: RecordDict, task: Task, bundle: bytes) -> SiteConfig:
        """site.toml as it stands now: what the hospital has forbidden while the bundle ran does not leave either.

        `policy.hours` is not looked at again: a round that was begun in time is ended.

        Raises:
            ConfigError: it cannot be read any more.
            PolicyError: the request would be refused now.
        """
        site = read_site_config(self.path)
        if site.policy.approval:
            approved.require_approved(self.home, self._state(site), bundle)
        _require_private(site, task)
        self._require_kind(site, asked, task)
        if secure_stage(asked) is not None:
            require_summed(asked, site.policy)
        return site

    def _require_kind(self, site: SiteConfig, asked: RecordDict, task: Task) -> None:
        """The rules for requests that are none to train."""
        if CALIBRATION in asked:
            private = bool(site.privacy.epsilon) or config_from_json(task.config).privacy.enabled
            require_calibrating(site.policy, private=private, cohort=self._cohort(site))
        if TWINS in asked:
            require_comparing(site.policy)
        if SURVEY in asked:
            require_surveying(site.policy, private=bool(site.privacy.epsilon), cohort=self._cohort(site))

    def _taken(self, site: SiteConfig, asked: RecordDict, task: Task) -> RecordDict:
        """The reply to an offer of frozen weights, which the gate itself takes: no bundle runs."""
        folder, content = self.home / WEIGHTS_FOLDER, read_offer(asked)
        keep_shipped(folder)
        there: Path | str | None = kept_file(folder, task.backbone) or site.connection.weights
        if not there:
            require_taking(site.policy, task.backbone)
        if content and not there:
            keep_bytes(folder, content, task.backbone)
            there = kept_file(folder, task.backbone)
        return write_status(SiteReply(site.name or self.home.resolve().name, task.round, error="" if there else LACKING))

    def _kept(self, site: SiteConfig, asked: RecordDict, task: Task, bundle: bytes) -> RecordDict:
        """The reply to a released model, which the gate itself takes, at any hour: no bundle runs."""
        if site.policy.approval:
            approved.require_approved(self.home, self._state(site), bundle)
        require_one_thing(asked)
        require_keeping(site.policy)
        keep_model(self.home, read_hand_out(asked))
        return write_status(SiteReply(site.name or self.home.resolve().name, task.round))

    def _require_one_sum(self, state: Path, site: SiteConfig, asked: RecordDict, task: Task) -> None:
        """The rules of a secure round: each stage once, sums of enough sites, and one sum of one training."""
        stage = secure_stage(asked)
        if stage is None:
            return
        require_summed(asked, site.policy)
        session = str(asked[SECURE].get("session"))  # type: ignore[union-attr]
        require_once(state, session, stage)
        if stage == MaskedInput.stage:
            require_unsummed(state, session, config_from_json(task.config), task.round, asked_arrays(asked))
        elif stage == Unmask.stage:
            note_summed(state, session)

    def _cohort(self, site: SiteConfig) -> int:
        """The number of patients' folders: an upper bound on the patients that the site can have trained on."""
        data = self.home / Path(site.data).expanduser()
        return sum(1 for folder in data.glob(site.patients) if folder.is_dir())

    def _open_ledger(self, site: SiteConfig, task: Task) -> Ledger | None:
        """The ledger as it stands, where the hospital has set a budget or the run is private; its salt is moved to the keys.

        Raises:
            PolicyError: the run trains without privacy, and the hospital has a budget.
            PrivacyError: the ledger cannot be trusted, or has forgotten what the audit log knows of.
        """
        _require_private(site, task)
        if not _private(task):
            return None
        path, log = self._ledger(site), self._state(site) / audit_log.LOG_NAME
        ledger = self._read_ledger(site)
        require_known(log, ledger, path)
        if ledger.salted:
            with alone_with_ledger(path):
                migrate(path, self._keys(site))
            ledger = self._read_ledger(site)
            note_moved(log, ledger)
        return ledger

    def _require_charged(self, site: SiteConfig, task: Task, content: RecordDict, before: Ledger | None) -> float | None:
        """A private update leaves only after its charge, and only within the budget, by the gate's own count.

        Returns:
            Epsilon of the run so far, for the reply; None where no private update leaves.

        Raises:
            PolicyError: no charge was written, or the budget is exceeded.
        """
        if before is None or (CHANGE not in content and MASKED not in content):
            return None
        after = self._read_ledger(site)
        plan = config_from_json(task.config).privacy
        due = Charge(plan.noise_multiplier, plan.sample_rate, plan.steps)
        new = after.entries[len(before.entries) :]
        if after.lines[: len(before.lines)] != before.lines or [(e.charge, e.run) for e in new] != [(due, task.run)]:
            raise PolicyError(
                "The bundle trained, but did not charge the round to the privacy ledger. Nothing left the site.",
                rule="not-charged",
            )
        from client.privacy.budget import epsilon_of_run  # noqa: PLC0415  they bring torch, which most messages do without
        from common.privacy.accounting import epsilon_of  # noqa: PLC0415

        newest = after.entries[-1]
        spent = max((epsilon_of(history, site.privacy.delta) for history in after.histories(newest.cohort)), default=0.0)
        if site.privacy.epsilon and not spent <= site.privacy.epsilon:
            text = f"The ledger is at epsilon {spent:.3f}, beyond the hospital's {site.privacy.epsilon:g}."
            raise PolicyError(text, rule="privacy.epsilon")
        return epsilon_of_run(after, task.run, plan.delta)


def _private(task: Task) -> bool:
    """Whether a request is for a private run; one that cannot be read is the bundle's to refuse."""
    return bool(task.config) and config_from_json(task.config).privacy.enabled


def _require_private(site: SiteConfig, task: Task) -> None:
    """Refuse a run without privacy where the hospital has set a budget.

    Raises:
        PolicyError: it has.
    """
    if site.privacy.epsilon and not _private(task):
        raise PolicyError(
            "site.toml sets a privacy budget, but the run trains without privacy.",
            public="the site trains with differential privacy only",
            rule="privacy.epsilon",
        )


def _require_awaited(message: Message, waited: float) -> None:
    """Refuse work that nobody waits for: a site that fell behind must not stay behind, nor spend its patients' budget on it.

    Args:
        message: its `ttl` is how long, in seconds, the server waits for an answer.
        waited: seconds that the message was queued at this site; the clocks of two machines are not compared.

    Raises:
        FederationError: its time is over.
    """
    if waited > message.metadata.ttl:
        text = "the site was busy with an earlier request until this one's time was over"
        raise FederationError(f"The message waited {waited:.0f} s here: {text}.", public=text, rule="expired")


def _left(message: Message) -> float:
    """Seconds until nobody waits for the answer; at least one minute, for clocks differ."""
    return max(60.0, message.metadata.created_at + message.metadata.ttl - time.time())


def _task(content: RecordDict) -> Task:
    """The request's task, for the log; an unreadable request is the bundle's to refuse."""
    try:
        return read_task(content)
    except FedMRIError:
        return Task(round=1, config="", code="", backbone="")
