"""The run's aggregator as a Flower strategy: every reply is checked, every wait is limited, every failed site is named.

A round may be asked more than once: `configure_train` asks the sites whose good reply is not there yet, `aggregate_train` judges
what came and aggregates as soon as enough sites are in. `start` is the loop around the two.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from logging import INFO, WARNING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result
from flwr.supercore import log
from numpy.typing import NDArray

from common.aggregation.aggregator import Change
from common.aggregation.scaffold import Scaffold
from common.config.run import RunConfig
from common.config.sections import FederationConfig
from common.errors import BUDGET_SPENT, FederationError
from common.messages.round import SiteReply, Task, pack_arrays, record_bytes, unpack_arrays, write_task
from common.models.arrays import Arrays
from common.privacy.site_level import noise_to_signal
from common.training.shared import shared
from common.training.trainable import most_trained, trained_names
from server.events.kinds import (
    ODD_ONE_OUT,
    TRAIN,
    Evaluated,
    Opened,
    Retried,
    Spared,
)
from server.events.rounds import RoundRecord, RoundSoFar
from server.strategy.aggregation import (
    RefusedForGoodError,
    aggregate,
    influence_of,
    judge_reply,
    known_metrics,
    low_rank_figures,
    noised_sum,
    norm_outliers,
    round_plan,
    step,
)
from server.strategy.influence import as_agreed, at_hospitals, levelled, told
from server.strategy.labels import Labels
from server.strategy.messaging import exchange
from server.strategy.progress import Progress
from server.strategy.refusal import content_of, refusal_of
from server.strategy.round_state import Address, OpenRound, ResumePoint, aggregated, budget_ended, too_few
from server.strategy.shelf import Shelf
from server.strategy.site_selection import Presence

EXPIRY_SLACK = 60.0  # seconds that a message outlives the round; polling for an expired one fails inside Flower


FAR = 3.0  # times as far from the middle as others usually are: the log says so
Prepare = Callable[[Grid, int, list[Address]], None]  # of a round's number, with the sites that it may ask


class BudgetsSpentError(FederationError):
    """The hospitals' privacy budgets do not allow another round."""


class FedMRIAvg(FedAvg):
    """Aggregation of adapter updates; the aggregator's `state` after each round is for the checkpoint.

    Args:
        plan: how many sites, how long to wait, what to accept, and the aggregator.
        task: the request to every site; the round and the site are filled in.
        sites: in simulation, the names of the site folders: any number of Flower nodes serves them in turns. Empty at a real
            federation: each connected node is one site.
        template: the trained arrays of the agreed model, which every reply must resemble.
        config: of the run, for noise that hides whole hospitals (`site_level`); None: none is added.
        progress: notified of the round's state, requests, replies and failures.
        agreed: patients that were agreed with a hospital when it was let in; no more count. Others count what they say.
    """

    def __init__(
        self,
        plan: FederationConfig,
        task: Task,
        template: Arrays,
        sites: Sequence[str] = (),
        config: RunConfig | None = None,
        progress: Progress | None = None,
        agreed: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=plan.min_sites, min_available_nodes=plan.min_sites)
        self.plan = plan if sites else at_hospitals(plan)
        self.task, self.template, self.sites, self.agreed = task, template, tuple(sites), dict(agreed or {})
        self.config = config or RunConfig()
        self.site_level = self.config.site_level
        self.progress = progress or Progress()
        self.state = plan.aggregator.init(template)
        self.presence = Presence(plan, self.sites, self.progress)
        self.before = ResumePoint("")
        self.prepare: list[Prepare] = []  # what is settled with sites before each attempt at a round
        self.on_open: Callable[[RoundSoFar], None] | None = None
        self.open = OpenRound(0, {})
        self.labels = Labels(self.config)
        self.shelf = Shelf() if sites else None

    @property
    def failures(self) -> dict[str, str]:
        """Why a site has no valid update in the round that is open."""
        so_far = self.progress.rounds.open
        return {site: why.reason for site, why in so_far.failures.items()} if so_far else {}

    def summary(self) -> None:
        """Log who takes part and what a round needs."""
        log(INFO, "\t├──> Sites: %s", ", ".join(self.sites) or "every connected node")
        if self.site_level.enabled:
            many = len(self.sites) or self.plan.min_sites
            ratio = noise_to_signal(most_trained(self.template, self.config), many, self.site_level)
            log(WARNING, "\t├──> Site-level privacy: with %d sites noise of %.0f times the largest change is added", many, ratio)
        log(INFO, "\t└──> A round needs %d of them within %g s", self.plan.min_sites, self.plan.round_timeout)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        *,
        before: ResumePoint | None = None,
        on_open: Callable[[RoundSoFar], None] | None = None,
        on_round: Callable[[RoundRecord, Arrays], None] | None = None,
    ) -> Result:
        """Train up to round `num_rounds`.

        Args:
            grid: Flower's way to the nodes.
            initial_arrays: the global arrays that training begins or goes on with.
            num_rounds: number of the last round.
            timeout: seconds that each asking of a round may take.
            train_config: not used: sites get the `task`.
            evaluate_config: not used: sites are not asked to evaluate.
            evaluate_fn: measures the new global arrays after a round; chooses nothing.
            before: how far a resumed run came; None: it begins.
            on_open: called with the round before its requests go out, in every attempt.
            on_round: called with each finished round and the arrays that came of it.

        Raises:
            FederationError: too few sites connected, or too few gave a valid update in spite of retries.
        """
        self.presence.require_enough()
        self.summary()
        self.before, self.on_open = before or ResumePoint(""), on_open
        self.state = self.before.state or self.plan.aggregator.init(self.template)
        for line in self.before.lines:
            self.presence.attendance.note_line(line)
        arrays, result = initial_arrays, Result(arrays=initial_arrays)
        for number in range(self.before.round + 1, num_rounds + 1):
            try:
                arrays, record = self._play(grid, number, arrays, timeout)
            except BudgetsSpentError as spent:
                if number == 1:
                    raise
                log(INFO, "The federation ends after round %d of %d: %s", number - 1, num_rounds, spent)
                break
            self.presence.attendance.note(record.sites, record.failures)
            self.progress.set_state("evaluating", number)
            measured = evaluate_fn(number, arrays) if evaluate_fn else None
            if measured is not None:
                result.evaluate_metrics_serverapp[number] = measured
                self.progress.tell(Evaluated(number, _plain(measured)))
                record = self.progress.rounds.closed or record
            result.arrays, result.train_metrics_clientapp[number] = arrays, MetricRecord(dict(record.train))
            if on_round:
                on_round(record, unpack_arrays(arrays, self.template))
        return result

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """One message for each site whose valid reply to this round is still missing."""
        state = self.begin_attempt(server_round, arrays)
        there, _ = self.presence.called(grid, server_round, everyone=state.attempts > 1)
        self.spare(there)
        state.asked = [(a.name, self._message(server_round, arrays, a)) for a in there if a.name not in state.valid]
        return [message for _, message in state.asked]

    def begin_attempt(self, number: int, arrays: ArrayRecord, *, anew: bool = False) -> OpenRound:
        """The state of the round that another attempt begins with, or the first one.

        Args:
            number: of the round.
            arrays: the global ones.
            anew: replies to an earlier attempt count no more.
        """
        if self.open.number != number:
            self.open = OpenRound(number, unpack_arrays(arrays, self.template), attempts=1)
            if self.shelf:
                self.shelf.clear()
            self.progress.tell(Opened(number))
            return self.open
        valid = {} if anew else self.open.valid
        self.open = replace(self.open, attempts=self.open.attempts + 1, asked=[], judged=set(), valid=valid)
        self.progress.tell(Retried(number, self.open.attempts, anew))
        return self.open

    def spare(self, there: Sequence[Address]) -> None:
        """Stand in for sites without labels where they would change nothing (`Labels.stand_ins`)."""
        state = self.open
        if isinstance(self.plan.strategy, Scaffold):  # it notes each round
            return
        named = {address.name for address in there} - state.valid.keys()
        for name, reply in self.labels.stand_ins(state.number, named, state.current).items():
            state.valid[name] = reply
            state.idle.add(name)
            self.progress.tell(Spared(state.number, name))

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge the replies; aggregate if at least `min_sites` are valid, else return nothing: the round may be asked again."""
        state = self.open
        # An error reply's sender may be the SuperLink itself: only the message that it answers tells the site.
        came = {reply.metadata.reply_to_message_id: reply for reply in replies}
        for name, message in state.asked:
            if name not in state.judged:
                self.record_reply(name, came.get(message.metadata.message_id), self._read)
        for name, reason in norm_outliers(state.valid, self.plan.max_update_ratio).items():
            del state.valid[name]
            self.progress.failed(name, reason, ODD_ONE_OUT)
        self.labels.note(state.valid)
        lacking = self.labels.lacking(state.valid.values())
        if len(state.valid) < self.plan.min_sites or (lacking and (self.labels.seen or self.failures)):
            return None, None  # who has the labels failed, is away, or has no budget left
        self.labels.require(state.valid.values())
        if self.site_level.enabled:
            noised = noised_sum(state.valid, state.current, self.trained_mask(server_round), self.site_level)
            return self.stepped(noised), MetricRecord({})
        state.valid = as_agreed(state.valid, self.agreed)
        if not self.sites:  # hospitals: what was not agreed is a claim
            state.valid = self.levelled(state.valid)
        plan = round_plan(self.plan, self.config, server_round)
        state.influence = self.influence(plan)
        new, self.state, terms = aggregate(plan, self.state, state.current, state.valid)
        if self.config.model.adapter.pairs:
            state.low_rank = low_rank_figures(plan, state.current, state.valid, new)
        return pack_arrays(new), MetricRecord(dict(terms))

    def levelled(self, replies: dict[str, SiteReply]) -> dict[str, SiteReply]:
        """The replies with no more patients than agreed or usual; who counts for less than they say is said."""
        found = levelled(replies, self.agreed)
        for site, reply in found.items():
            if reply.patients < replies[site].patients:
                text = "Round %d: %s counts as %d of the %d patients that it tells: agree on a number by %s"
                command = "`fedmri-server admit --patients`"
                log(WARNING, text, self.open.number, site, reply.patients, replies[site].patients, command)
        return found

    def influence(self, plan: FederationConfig) -> dict[str, dict[str, float]]:
        """Each site's part in the round that is about to be aggregated; one that was bounded is said."""
        found = influence_of(plan, self.open.valid)
        for site, one in found.items():
            if one.scale < 1.0:
                log(WARNING, "Round %d: %s: its change was shortened to %.3g of its length", self.open.number, site, one.scale)
            if one.drawn and one.drawn.times > FAR:
                text = "Round %d: %s: its change is %.1f times as far off as others"
                log(WARNING, text, self.open.number, site, one.drawn.times)
        return told(found)

    def stepped(self, summed: tuple[Change, float]) -> ArrayRecord:
        """What the aggregator makes of the sites' sum: their weighted mean change and total weight."""
        aggregator = round_plan(self.plan, self.config, self.open.number).aggregator
        new, self.state = step(aggregator, self.state, self.open.current, iter([summed]))
        return pack_arrays(new)

    def attempt(
        self, grid: Grid, number: int, arrays: ArrayRecord, timeout: float
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Ask the sites once; returns nothing where too few reply."""
        self.configure_train(number, arrays, ConfigRecord(), grid)
        judge = self._judge if self.shelf else None
        return self.aggregate_train(number, self.exchanged(grid, self.open.asked, timeout, judge=judge).values())

    def _judge(self, name: str, reply: Message) -> None:
        """Judge a reply when it comes, and let go of the message: a thousand of them would lie in memory to the round's end."""
        valid = self.record_reply(name, reply, self._read)
        if valid and self.shelf:
            self.open.valid[name] = replace(valid, update=self.shelf.keep(valid.update))
        self.open.judged.add(name)
        if not reply.has_error():
            reply.content = RecordDict()

    def exchanged(
        self,
        grid: Grid,
        asked: Sequence[tuple[str, Message]],
        timeout: float,
        what: str = TRAIN,
        *,
        judge: Callable[[str, Message], None] | None = None,
    ) -> dict[str, Message]:
        """Send to each site by name, and note each reply when it comes; replies by the id of what they answer."""
        names = {id(message): name for name, message in asked}
        for name, message in asked:
            self.progress.asked(name, self.payload_bytes(message.content), what)
        if what == TRAIN and self.on_open and (so_far := self.progress.rounds.open):
            self.on_open(so_far)
        self.progress.set_state("training", self.open.number)

        def note(request: Message, reply: Message, seconds: float) -> None:
            size = 0 if reply.has_error() else self.payload_bytes(reply.content)
            self.progress.answered(names[id(request)], seconds, size, what)
            if judge:
                judge(names[id(request)], reply)

        replies = exchange(grid, [message for _, message in asked], timeout, note, self.progress.tick)
        self.open.lost = {
            names[id(m)]: replies.lost[m.metadata.message_id] for _, m in asked if m.metadata.message_id in replies.lost
        }
        return replies.came

    def payload_bytes(self, content: RecordDict) -> int:
        """Bytes of what a request or a reply carries."""
        return sum(record_bytes(record) for record in content.array_records.values())

    def _play(self, grid: Grid, number: int, arrays: ArrayRecord, timeout: float) -> tuple[ArrayRecord, RoundRecord]:
        """One round, asked again while too few sites are in."""
        began = time.monotonic()
        for _ in range(self.plan.round_retries + 1):
            self.presence.wait(grid, number)
            for settle in self.prepare:
                settle(grid, number, [a for a in self.presence.addresses(grid) if a.name not in self.presence.closed])
            new, terms = self.attempt(grid, number, arrays, timeout)
            if new is not None:
                self.progress.tell(aggregated(self.open, time.monotonic() - began, _plain(terms)))
                assert self.progress.rounds.closed
                return new, self.progress.rounds.closed
            if BUDGET_SPENT in self.failures.values():
                break  # asking again would charge the others once more and open no budget
            if self.sites and len(self.sites) - len(self.presence.closed) < self.plan.min_sites:
                break  # who is left is too few, however often they are asked
        state, failures = self.open, self.failures
        spent = [site for site, reason in failures.items() if reason == BUDGET_SPENT]
        if spent and len(state.valid) + len(spent) >= self.plan.min_sites:
            self.progress.tell(budget_ended(state, time.monotonic() - began))
            raise BudgetsSpentError(
                f"Too few sites have privacy budget left for round {number}: it is spent at {', '.join(sorted(spent))}."
            )
        unlabelled = bool(state.valid) and self.labels.lacking(state.valid.values())
        raise FederationError(too_few(state, self.plan.min_sites, self.presence.closed | failures, unlabelled=unlabelled))

    def trained_mask(self, number: int) -> NDArray[np.bool_]:
        """Which values of a flat change the round trains: the others stay what they are, and get no noise."""
        names = set(trained_names(sorted(shared(self.template, self.config, number)), self.config, number))
        return np.concatenate([np.full(self.template[name].size, name in names) for name in sorted(self.template)])

    def record_reply(
        self, name: str, reply: Message | None, read: Callable[[RecordDict], SiteReply], what: str = TRAIN
    ) -> SiteReply | None:
        """File one site's reply, or its absence, under valid or failed; returns a valid one.

        Args:
            name: of the site.
            reply: None: none came.
            read: reads and checks the content; raises FederationError where it is refused.
            what: the site was asked for.
        """
        state = self.open
        state.valid.pop(name, None)
        try:
            lost = state.lost.get(name, "")
            state.valid[name] = read(content_of(reply, lost, self.plan.round_timeout))
        except Exception as error:  # whatever a hostile reply may set off in a parser, it costs that site its round only
            reason, rule = refusal_of(error)
            if isinstance(error, RefusedForGoodError):
                self.presence.closed[name] = reason
            self.progress.failed(name, reason, rule, what)
        return state.valid.get(name)

    def _read(self, content: RecordDict) -> SiteReply:
        """A plain reply, judged."""
        current, number = self.open.current, self.open.number
        reply = judge_reply(content, current, number, self.plan, shared(current, self.config, number))
        kept, dropped = known_metrics(reply.metrics, self.config)
        if dropped:
            log(
                WARNING, "Round %d: %s told metrics that are not the run's, or out of range: %s", reply.round, reply.site, dropped
            )
        return replace(reply, metrics=kept)

    def _message(self, number: int, arrays: ArrayRecord, address: Address) -> Message:
        """The request to one site."""
        content = write_task(replace(self.task, round=number, site=address.site), arrays)
        return Message(content, address.node, MessageType.TRAIN, ttl=self.plan.round_timeout + EXPIRY_SLACK, group_id=str(number))


def _plain(record: MetricRecord | None) -> dict[str, float]:
    """A metric record's single numbers."""
    return {k: float(v) for k, v in record.items() if isinstance(v, int | float)} if record else {}
