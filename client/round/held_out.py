"""A site's look whether any of its patients is an external one of the run, by content, whatever their names and files are.

What becomes of such a patient the site's own policy says where it says anything of twins, else the run (`twins.with_external`):
the site takes no part in the run, or trains without them. Who it is stays at the site (`client.round.left_out`). Who comes later
is compared before the next round (`client.round.newcomers`).
"""

from typing import Any

from flwr.app import RecordDict

from client.round.left_out import ELSEWHERE, note_twins, noted_twins, outside_way, require_wanted
from client.round.newcomers import external_twins, keep_external
from client.round.site_context import SiteContext
from client.round.train import require_same_code
from common.config.run import config_from_json
from common.data.cases import Site, read_site
from common.messages.held_out import HELD_OUT
from common.messages.round import SiteReply, Task, write_status
from common.messages.twins import read_external


def check_held_out(content: RecordDict, task: Task, context: SiteContext) -> tuple[Any, Site]:
    """The reply, and the site. Patients who are left out are written down, for each round of the run.

    Raises:
        PolicyError: there are such patients, and the site or the run refuses to train then.
        FederationError, DataError, ConfigError: other code, a message that cannot be read, or a folder that is refused.
    """
    require_same_code(task)
    config = config_from_json(task.config)
    site = read_site(context.folder, config, simulated=context.simulated)
    external = read_external(content.get(HELD_OUT))
    outside = external_twins(site, config, context, external)
    keep_external(context, task.run, external)
    way = outside_way(site.config.policy.twins, config.twins.with_external)
    before, others = noted_twins(context, task.run)  # what an exchange with other hospitals has found
    known = {twin.patient for twin in outside}
    twins = [*outside, *(twin for twin in others if twin.at == ELSEWHERE and twin.patient not in known)]
    refused = outside if way == "refuse" else [twin for twin in twins if twin.at == ELSEWHERE and before == "refuse"]
    note_twins(context, task.run, "refuse" if refused else before or way, twins)
    require_wanted(context, task.run, "refuse", refused)
    return write_status(SiteReply(context.name, task.round)), site
