"""Who is the same person: all who share a mark, and all who are linked to them by others' marks."""

from collections.abc import Iterable

Marks = frozenset[str]


class People:
    """Persons, each the union of all marks that were ever seen together.

    Args:
        patients: the marks of every patient ever seen, one set each.
    """

    def __init__(self, patients: Iterable[Marks]) -> None:
        self._towards: dict[str, str] = {}
        for marks in patients:
            first, *others = sorted(marks) or [""]
            for mark in others:
                self._towards[self._end(mark)] = self._end(first)

    def person(self, marks: Marks) -> str:
        """A name for the person who has these marks, the same for all who are that person."""
        return self._end(min(marks, default=""))

    def _end(self, mark: str) -> str:
        """Where the links lead; they are shortened on the way."""
        passed = []
        while (following := self._towards.get(mark, mark)) != mark:
            passed.append(mark)
            mark = following
        for other in passed:
            self._towards[other] = mark
        return mark
