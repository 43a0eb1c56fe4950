"""What the hospital does for whom, and when: rules over a request, before any work."""

from datetime import datetime

from flwr.app import ConfigRecord, RecordDict

from client.policy.rule import named_by, refused
from common.config.site import SitePolicy, read_hours
from common.data.survey import TOPICS
from common.errors import PolicyError
from common.messages.calibration import CALIBRATION
from common.messages.held_out import HELD_OUT
from common.messages.released_model import MODEL
from common.messages.secure_aggregation import (
    SECURE,
    AdvertiseKeys,
    Unmask,
    from_record,
)
from common.messages.survey import SURVEY
from common.messages.twins import TWINS
from common.messages.weights import WEIGHTS
from common.text import printable


def require_hours(policy: SitePolicy, now: datetime) -> None:
    """Refuse work outside the hospital's hours; `now` is local time.

    Raises:
        PolicyError: it is outside `policy.hours`.
    """
    if not policy.hours:
        return
    begin, end = read_hours(policy.hours)
    minute = now.hour * 60 + now.minute
    inside = begin <= minute < end if begin < end else minute >= begin or minute < end
    if not inside:
        raise PolicyError(
            f"policy.hours of site.toml is {policy.hours}, and it is {now:%H:%M}: the site does not train now.",
            public="the site does not train at this time of day",
            rule="policy.hours",
        )


def require_calibrating(policy: SitePolicy, *, private: bool, cohort: int) -> None:
    """Refuse to send the sums that calibrate a model (`common.messages.calibration`).

    Args:
        policy: `share_calibration`, `secure_only` and `min_patients` are read.
        private: the site, or the run, trains with differential privacy only: the sums have no noise.
        cohort: the smallest group of patients that they would be of.

    Raises:
        PolicyError: the policy does not say that they may leave, or not in the clear, or not of so few.
    """
    if not policy.share_calibration:
        raise refused("share_calibration", "it is not set", "the site does not share sums for calibration")
    if policy.secure_only:
        raise refused("secure_only", "sums in the clear", "the site takes part in secure aggregation only")
    if private:
        text = (
            "site.toml sets a privacy budget, or the run is private; sums for calibration have no noise. Nothing left the site."
        )
        raise PolicyError(text, public="the site shares nothing without differential privacy", rule="privacy.epsilon")
    if cohort < policy.min_patients:
        text = f"sums over {cohort} patients, policy.min_patients is {policy.min_patients}"
        raise refused("min_patients", text, "too few patients are held back at the site, or train there, to share sums")


def require_summed(asked: RecordDict, policy: SitePolicy) -> None:
    """Refuse a stage of a secure round whose sum would be of too few sites: who knows the others' updates knows this one's.

    Args:
        asked: the request; of other stages than the first and the last nothing is asked.
        policy: `min_summed` is read.

    Raises:
        PolicyError: fewer than `policy.min_summed` need stay, or have stayed.
        FederationError: the stage's message cannot be read.
    """
    stage = secure_stage(asked)
    if stage == AdvertiseKeys.stage:
        summed = from_record(asked.get(SECURE), AdvertiseKeys).threshold
    elif stage == Unmask.stage:
        summed = len(from_record(asked.get(SECURE), Unmask).survivors)
    else:
        return
    if summed < policy.min_summed:
        text = f"a sum of {summed} sites, policy.min_summed is {policy.min_summed}"
        raise refused("min_summed", text, f"the site takes part in sums of {policy.min_summed} sites or more only")


def surveyed(policy: SitePolicy) -> list[str]:
    """The topics that a survey may be told."""
    return [topic for topic in TOPICS if named_by(topic, policy.survey)]


def require_surveying(policy: SitePolicy, *, private: bool, cohort: int) -> None:
    """Refuse to answer a survey.

    Args:
        policy: `survey` and `min_patients` are read.
        private: the site trains with differential privacy only: counts have no noise.
        cohort: the number of patients.

    Raises:
        PolicyError: no topic may be told, or not without noise, or not of so few.
    """
    if not surveyed(policy):
        raise refused("survey", "it names no topic", "the site answers no surveys")
    if private:
        text = "site.toml sets a privacy budget, and counts have no noise. Nothing left the site."
        raise PolicyError(text, public="the site shares nothing without differential privacy", rule="privacy.epsilon")
    if cohort < policy.min_patients:
        text = f"{cohort} patients, policy.min_patients is {policy.min_patients}"
        raise refused("min_patients", text, "the site has too few patients to answer surveys")


def require_comparing(policy: SitePolicy) -> None:
    """Refuse to compare patients with other hospitals'.

    Raises:
        PolicyError: the policy has it off.
    """
    if policy.twins == "off":
        raise refused("twins", "it is off", "the site does not compare its patients with other hospitals'")


def require_taking(policy: SitePolicy, sha256: str) -> None:
    """Refuse frozen weights that come from the coordinator.

    Args:
        policy: `take_weights` and `backbone_sha256` are read.
        sha256: of the weights that it offers.

    Raises:
        PolicyError: they come by file only, or are not the pinned ones.
    """
    if not policy.take_weights:
        raise refused("take_weights", "it is not set", "the site takes backbone weights by file only")
    if policy.backbone_sha256 and policy.backbone_sha256 != sha256:
        text = f"pinned {policy.backbone_sha256[:12]}, offered {sha256[:12]}"
        raise refused("backbone_sha256", text, "the run is not the one that the site pinned (backbone_sha256)")


def require_keeping(policy: SitePolicy) -> None:
    """Refuse a released model.

    Raises:
        PolicyError: the policy keeps none.
    """
    if not policy.keep_models:
        raise refused("keep_models", "it is not set", "the site keeps no released models")


def require_one_thing(asked: RecordDict) -> list[str]:
    """The names of the records that say what a request is for, none where it is for training.

    Raises:
        PolicyError: it asks for several things: the rules of one are not those of another.
    """
    wanted = [name for name in (CALIBRATION, SURVEY, TWINS, HELD_OUT, SECURE, WEIGHTS, MODEL) if name in asked]
    if len(wanted) > 1:
        raise refused("records", f"the request asks for {' and '.join(wanted)}", "the request asks for several things at once")
    return wanted


def secure_stage(asked: RecordDict) -> str | None:
    """The stage of a secure round that a request is for; None for a plain one."""
    record = asked.get(SECURE)
    if record is None:
        return None
    return printable(str(record.get("stage")), 20) if isinstance(record, ConfigRecord) else ""
