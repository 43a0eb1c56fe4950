"""Answers whose slices go through a proposed tumour where none is drawn, each beside the answer without the proposal."""

from collections.abc import Sequence
from dataclasses import replace

from client.predict.prediction import Answer, answer
from client.predict.proposal import Guided, propose, slices_through
from common.data.cases import Case
from common.data.slices import Sliced
from common.errors import DataError
from common.model_files.opened_model import OpenedModel


def guided_answers(
    opened: OpenedModel, read: Sequence[tuple[Case, Sliced]], guide: OpenedModel | None, named: str, *, places: bool = False
) -> list[Answer]:
    """As `answer`; patients through whose tumour no mask leads are answered twice, with a proposed mask and without.

    Args:
        opened: the model that predicts.
        read: patients and their slices.
        guide: the model that segments; None: nobody is proposed anything.
        named: how the guide is called in answers.
        places: with the evidence by place.
    """
    found = answer(opened, read, places=places)
    if guide is None:
        return found
    return [one if one.sliced.tumour else _guided(one, opened, guide, named, places=places) for one in found]


def _guided(one: Answer, opened: OpenedModel, guide: OpenedModel, named: str, *, places: bool) -> Answer:
    """The answer through the proposed tumour; as it was where nothing, or next to nothing, is proposed."""
    try:
        proposal = propose(guide, one.case)
        sliced = slices_through(proposal, opened.config)
    except DataError as error:  # such as none of the modalities that the guide knows
        return replace(one, unguided=f"{named} could propose none ({str(error).removesuffix('.')})")
    if sliced is None:
        return replace(one, unguided=f"{named} proposes none ({proposal.ml:.2f} ml)")
    through = answer(opened, [(one.case, sliced)], places=places)[0]
    return replace(through, guided=Guided(named, proposal.ml, one.probabilities))
