"""Which vectors may be answers: tags, ages and predicted classes as SQL conditions."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, or_, true

from cbmir_node.catalog import schema
from cbmir_node.catalog.keys import KEY_BY_KEYWORD
from cbmir_node.catalog.query.conditions import conditions

_age = schema.studies.c.age_years


@dataclass(frozen=True)
class CandidateConditions:
    """What an image must fulfil to be a candidate; the defaults ask nothing.

    Attributes
    ----------
    filters : mapping of str to str
        Catalogue keys as in C-FIND.
    minimum_age, maximum_age : float or None
        Patient's age at the study, years, both included.
    same_tags : mapping of str to collection of str
        Key to the values that pass, regardless of case; an empty value always passes.
    near_ages : collection of float
        Ages that pass, years, give or take `age_difference`; an unknown one always passes.
    predicted_class : str or None
        The model must take the image for this.
    trusted_classes : collection of str or None
        With a probability of at least `trusted_probability` the model must not take the image for
        anything else.
    """

    filters: Mapping[str, str] = field(default_factory=dict)
    minimum_age: float | None = None
    maximum_age: float | None = None
    same_tags: Mapping[str, Collection[str]] = field(default_factory=dict)
    near_ages: Collection[float] = ()
    age_difference: float = 0.0
    predicted_class: str | None = None
    trusted_classes: Collection[str] | None = None
    trusted_probability: float = 0.0

    @property
    def restrict(self) -> bool:
        """Whether anything is asked at all."""
        return self.concern_tags or self.concern_class

    @property
    def concern_tags(self) -> bool:
        """Whether what the headers say matters, and not the predicted class alone."""
        limits = (self.minimum_age, self.maximum_age)
        return bool(self.filters or self.same_tags or self.near_ages) or limits != (None, None)

    @property
    def concern_class(self) -> bool:
        """Whether the image's predicted class matters."""
        return self.predicted_class is not None or self.trusted_classes is not None

    def on_tags(self) -> ColumnElement[bool]:
        """Return the condition on patients, studies, series and instances.

        Raises
        ------
        QueryError
            A filter's value does not fit its VR.
        """
        wanted = conditions(self.filters)
        if self.minimum_age is not None:
            wanted &= _age >= self.minimum_age
        if self.maximum_age is not None:
            wanted &= _not_older(self.maximum_age)
        for keyword, values in self.same_tags.items():
            wanted &= _one_of(keyword, values)
        if self.near_ages:
            near = (_near(age, self.age_difference) for age in self.near_ages)
            wanted &= or_(_age.is_(None), *near)
        return wanted

    def on_prediction(self, vectors: Any) -> ColumnElement[bool]:
        """Return the condition on the row of `vectors` that holds the predicted class."""
        label, probability = vectors.c.label, vectors.c.probability
        wanted: ColumnElement[bool] = true()
        if self.predicted_class is not None:
            wanted &= label == self.predicted_class
        if self.trusted_classes is not None:
            wanted &= or_(
                label.is_(None),
                label.in_(list(self.trusted_classes)),
                probability.is_(None),
                probability < self.trusted_probability,
            )
        return wanted


def _not_older(age: float) -> ColumnElement[bool]:
    """Count as people do: 45 years means until the 46th birthday, half a year means just that."""
    return _age < age + 1 if float(age).is_integer() else _age <= age


def _near(age: float, difference: float) -> ColumnElement[bool]:
    """Compare completed years where `difference` is whole, as people count, else exact ages."""
    if float(difference).is_integer():
        completed = math.floor(age)
        return (_age >= completed - difference) & (_age < completed + difference + 1)
    return (_age >= age - difference) & (_age <= age + difference)


def _one_of(keyword: str, values: Collection[str]) -> ColumnElement[bool]:
    key = KEY_BY_KEYWORD[keyword]
    column = schema.TABLE_OF_LEVEL[key.level].c[key.column]
    # the database folds both sides: SQLite knows the case of ASCII letters only
    same = func.upper(column).in_([func.upper(value) for value in values])
    return or_(column == "", same)
