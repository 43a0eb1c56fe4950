"""Who has labels: what sites told of theirs in a run, which rounds they are spared for it, and runs that nobody could teach."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from common.config.run import RunConfig
from common.errors import FederationError
from common.messages.round import SiteReply
from common.messages.update import Update
from common.models.arrays import Arrays, trained_at_sites
from common.training.trainable import idle_without_labels, needs_labels, no_label


@dataclass
class Labels:
    """What is known of the sites' labels, from reply to reply.

    Attributes:
        config: of the run.
        none_at: the last replies, without their update, of sites that told that none of their patients has a label.
        seen: a site has, or may have, labelled patients.
    """

    config: RunConfig
    none_at: dict[str, SiteReply] = field(default_factory=dict)
    seen: bool = False

    def note(self, valid: Mapping[str, SiteReply]) -> None:
        """Remember what an attempt's valid replies, by site, tell."""
        for name, reply in valid.items():
            if reply.counts_shared and not reply.labelled:
                self.none_at[name] = replace(reply, update=Update())
            else:
                self.none_at.pop(name, None)
        self.seen |= bool(valid) and not self.lacking(valid.values())

    def lacking(self, replies: Iterable[SiteReply]) -> bool:
        """Whether the run needs labels, and all who are in tell that they have none; what is kept back may hold labels."""
        return needs_labels(self.config) and all(one.counts_shared and not one.labelled for one in replies)

    def require(self, replies: Iterable[SiteReply]) -> None:
        """Refuse to go on where every site tells its numbers, and none has a labelled patient.

        Raises:
            FederationError: nobody has one.
        """
        if self.lacking(replies):
            raise FederationError(no_label(self.config))

    def stand_ins(self, number: int, there: Collection[str], current: Arrays) -> dict[str, SiteReply]:
        """Replies for those of the sites who have no label, in a round in which they change nothing; none in another round.

        They weigh what they would weigh if they answered: the mean is the one that their answer would lead to, to the last bit.

        Args:
            number: of the round.
            there: sites by name.
            current: the global arrays.
        """
        if not idle_without_labels(self.config, number):
            return {}
        nothing = Update({name: np.zeros_like(array) for name, array in trained_at_sites(current).items()})
        return {
            name: replace(self.none_at[name], round=number, update=nothing, metrics={})
            for name in sorted(self.none_at.keys() & set(there))
        }
