"""Errors that a user can act on.

Every message says what was expected, what came, where, and what to do. Commands print it in one or two lines, without a
traceback. `public` is what may leave a hospital: it never holds a patient identifier, a path, a count or a value.
"""

LASTING = frozenset(
    {
        *("code", "external-patients", "privacy.epsilon", "policy.arrays", "policy.backbone_sha256", "policy.initial_sha256"),
        *("policy.max_rank", "policy.secure_only", "policy.twins"),
    }
)
"""Rules whose refusal stands for the whole run: asking again changes nothing until a person changes the policy or the run."""


class FedMRIError(Exception):
    """Base of all errors that are the user's to mend, not ours.

    Args:
        message: for the person at this machine; may name a patient or a file.
        public: for the coordinator; says the kind of trouble only. The default is the class's own sentence.
        rule: for the hospital's audit log: the key of site.toml that refused, else a code that never comes to mean anything else.
            The default is the class's own.
    """

    public_default = "the site could not do its part; its own log says why"
    rule_default = "failed"

    def __init__(self, message: str, *, public: str | None = None, rule: str | None = None) -> None:
        super().__init__(message)
        self.public = public or self.public_default
        self.rule = rule or self.rule_default

    @property
    def for_good(self) -> bool:
        """Whether whoever asks again in this run is refused again; a spent budget has a way of its own to end a run."""
        return self.rule in LASTING and self.public != BUDGET_SPENT


class ConfigError(FedMRIError):
    """A run or site configuration that is refused: unknown key, wrong type, value out of range."""

    public_default = "the configuration was refused at the site"
    rule_default = "configuration"


class DataError(FedMRIError):
    """A site folder, participants table or NIfTI file that cannot be used."""

    public_default = "the site's data were refused; `fedmri-site check` there says which file"
    rule_default = "data"


class WeightsError(FedMRIError):
    """Backbone weights that are missing, of another architecture, or not the ones that were agreed."""

    public_default = "the backbone weights at the site are missing or are not the agreed ones"
    rule_default = "weights"


class FederationError(FedMRIError):
    """A federation that cannot go on: too few sites, no valid reply, another code version."""

    public_default = "the federation could not go on"
    rule_default = "federation"


BUDGET_SPENT = "the site's privacy budget is spent"  # the coordinator tells by it that training may end in good order


class PrivacyError(FedMRIError):
    """A privacy budget that would be exceeded, or a ledger that cannot be trusted."""

    public_default = "the site's privacy budget or its ledger does not allow this round"
    rule_default = "ledger"


class PolicyError(FedMRIError):
    """Something that the hospital's own policy does not let run, or leave."""

    public_default = "the site's policy does not allow it"
    rule_default = "policy"


class AuditLogError(FedMRIError):
    """The hospital's audit log is damaged, or cannot be written: nothing may leave then."""

    public_default = "the site's audit log cannot be written"
    rule_default = "audit-log"
