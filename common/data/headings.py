"""Columns by the names that hospitals give them: never read under these, but told, so that somebody can rename them."""

import re
from collections.abc import Sequence

_NUMBER = r"(?:en|in|inn?en)?(?:id|nr|no|number|nummer|code)?"
ALSO = {  # wanted -> others, in lower case, letters and digits alone
    "participant_id": rf"(?:patient|participant|subject|proband|case|pat|subj?){_NUMBER}|id|pseudonym|fallnummer|fallnr|bidsid",
    "age": r"(?:age|alter|edad|eta)(?:y|yrs?|years?|jahre|inyears|injahren|atscan|atdiagnosis|atmri)?|lebensalter",
    "sex": r"gender|geschlecht|sexe|sexo|sesso|sex(?:mf|fm)?",
    "subtype": r"(?:sub|tumou?r|glioma?)?(?:typ|type|typus|diagnosis|diagnose|entity|entität)|histolog(?:y|ie)|label|class|"
    r"klasse|molecularsubtype|who(?:type|diagnosis|diagnose)?",
}


def looks_like(wanted: str, header: Sequence[str]) -> str:
    """The column that may be the wanted one under another name; "": none, or several."""
    pattern = ALSO.get(wanted, re.escape(re.sub(r"[\W_]", "", wanted.lower())))
    found = [name for name in header if name != wanted and re.fullmatch(pattern, re.sub(r"[\W_]", "", name.lower()))]
    return found[0] if len(found) == 1 else ""


def hint(wanted: str, header: Sequence[str]) -> str:
    """As a sentence with a space before it; "": there is nothing to say."""
    like = looks_like(wanted, header)
    return f" Is it {like!r}? Then rename that column to {wanted}." if like else ""
