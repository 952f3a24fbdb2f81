"""What a similarity query asks and what it is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from cbmir_node.catalog.keys import StudyRootLevel

Method = Literal["cosine", "euclidean", "hamming"]
METHODS: tuple[Method, ...] = ("cosine", "euclidean", "hamming")
SameTag = Literal["Modality", "BodyPartExamined", "PatientSex", "PatientAge"]
SAME_TAGS: tuple[SameTag, ...] = ("Modality", "BodyPartExamined", "PatientSex", "PatientAge")
"""Tags in which candidates may be asked to be like the example."""
SimilarityLevel = StudyRootLevel
MAX_EXAMPLES = 100
"""Positive examples of a query, and negative ones."""

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """One thing to find the like of: something in the node, or a file's vectors.

    A file's is built by `cbmir_node.search.file_examples.example_from_frames`; what follows
    `vectors` describes a file and is not looked at otherwise.

    Attributes
    ----------
    level : {"STUDY", "SERIES", "IMAGE"}
        What `uid` names.
    uid : str
        Study, Series or SOP Instance UID; for a file whatever it is called in messages.
    vectors : float32 [N, D], optional
        The frames of a file in the space ``embedding``; `uid` is then not looked up.
    model_sha256 : str
        What it was embedded with.
    study_instance_uid, patient_identity : str
        Whose it is (`catalog.reception.records.patient_identity`). The node may have them too.
    layers : mapping of str to float32 [N, E]
        The frames in the spaces ``embedding.<layer>``.
    codes : uint8 [N, B / 8], optional
        Their hash codes, as `FrameVectors.code`.
    predictions : sequence of (str, float)
        Most probable class and its probability of each frame; empty without classes.
    tags : mapping of str to str
        Modality, BodyPartExamined and PatientSex as catalogue text, for `same_tags`.
    age_years : float or None
        Patient's age at the study, for `same_tags`.
    """

    level: SimilarityLevel
    uid: str
    vectors: Float32Array | None = None
    model_sha256: str = ""
    study_instance_uid: str = ""
    patient_identity: str = ""
    layers: Mapping[str, Float32Array] = field(default_factory=dict)
    codes: UInt8Array | None = None
    predictions: Sequence[tuple[str, float]] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    age_years: float | None = None


@dataclass(frozen=True)
class SimilarityQuery:
    """A question for similar studies, series or images.

    Attributes
    ----------
    examples : sequence of Example
        At least one and at most `MAX_EXAMPLES`; with several, a candidate's similarity is the mean
        over them. Of any level, whatever is ranked.
    level : {"STUDY", "SERIES", "IMAGE"}
        What is ranked.
    negative_examples : sequence of Example
        What the answers should not look like (relevance feedback), at most `MAX_EXAMPLES`; they
        turn the ranking (`cbmir_node.search.feedback`) and are themselves no answers.
    k : int or None
        Answers at most; ``None`` takes the configured number.
    method : {"cosine", "euclidean", "hamming"} or None
        ``None`` takes the configured one.
    rerank : bool or None
        With ``hamming``: order what is nearest by code by the cosine of `space`, and answer with
        that similarity. ``None`` as configured.
    space : str or None
        Which of the model's vectors are compared, ``embedding`` or ``embedding.<layer>``; ``None``
        as configured. Codes belong to the image and not to a space: ``hamming`` looks at it only
        to re-rank.
    by_class : bool or None
        Leave out candidates whose predicted class is none of the examples' (Qayyum et al. 2017).
        Only predictions of at least the configured probability are trusted, on either side: an
        example without a trusted class restricts nothing. ``None`` as configured.
    predicted_class : str or None
        Only candidates that the model takes for this class.
    same_tags : sequence of SameTag or None
        Only candidates that share these tags with an example (after Haripriya and Porkodi); a
        tag that is empty in an example or in a candidate restricts nothing. ``None`` as
        configured.
    filters : mapping of str to str
        Catalogue keys as in C-FIND (wildcards, date ranges, lists of UIDs); only instances whose
        tags match are candidates.
    minimum_age, maximum_age : float or None
        Patient's age at the study, years, both included.
    minimum_similarity : float
        To the positive examples alone, in [0, 1].
    exclude_same_patient : bool or None
        Leave out the examples' patients' other studies; ``None`` as configured. The examples'
        own studies are always left out.
    """

    examples: Sequence[Example]
    level: SimilarityLevel = "STUDY"
    negative_examples: Sequence[Example] = ()
    k: int | None = None
    method: Method | None = None
    rerank: bool | None = None
    space: str | None = None
    by_class: bool | None = None
    predicted_class: str | None = None
    same_tags: Sequence[SameTag] | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    minimum_age: float | None = None
    maximum_age: float | None = None
    minimum_similarity: float = 0.0
    exclude_same_patient: bool | None = None


@dataclass(frozen=True)
class Choices:
    """A query's choices, complete and possible with the model.

    Attributes
    ----------
    k : int
        Answers at most.
    method : {"cosine", "euclidean", "hamming"}
    rerank : bool
        Only ever true with ``hamming``.
    space : str
        Whose vectors are compared; ``embedding`` where none are.
    predicted_class : str or None
        The only class that candidates may have.
    trusted_probability : float
        From which on a predicted class counts, for `by_class`.
    same_age_years : float
        Difference that counts as the same age, for `same_tags`.
    """

    k: int
    method: Method
    rerank: bool
    space: str
    by_class: bool
    predicted_class: str | None
    trusted_probability: float
    same_tags: tuple[SameTag, ...]
    same_age_years: float
    exclude_same_patient: bool


@dataclass(frozen=True)
class SimilarMatch:
    """One answer, best first.

    Attributes
    ----------
    rank : int
        From 1.
    row : int
        Catalogue row number at the query's level.
    similarity : float
        In [0, 1], higher is more alike; comparable within one model, method, space and
        re-ranking only, and with negative examples within one query only.
    similarity_to_examples : float
        The same to the positive examples alone, comparable also where there are negative ones;
        without them it is `similarity`.
    matched_sop_instance_uid : str
        The candidate's image that is most like the examples.
    label, probability : str, float or None
        What the model takes that image for.
    """

    rank: int
    row: int
    similarity: float
    similarity_to_examples: float
    matched_sop_instance_uid: str
    matched_frame_number: int
    label: str | None
    probability: float | None


@dataclass(frozen=True)
class SimilarityAnswer:
    """A ranking and how it was made.

    Attributes
    ----------
    model : str
        ``name:version``.
    choices : Choices
        The query's, completed.
    """

    level: SimilarityLevel
    model: str
    matches: list[SimilarMatch]
    choices: Choices

    @property
    def method(self) -> Method:
        """What the candidates were found by."""
        return self.choices.method

    @property
    def space(self) -> str:
        """The vector space of the query, see `SimilarityQuery.space`."""
        return self.choices.space
