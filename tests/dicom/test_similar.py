"""Similar studies over C-FIND: the view for any viewer, and the private SOP class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cbmir_node.answers.private_elements import (
    ANSWERED,
    CLASS_RESTRICTION,
    ELEMENT_OF_FIELD,
    ELEMENTS,
    MAXIMUM_AGE,
    MAXIMUM_RESULTS,
    MINIMUM_AGE,
    MINIMUM_SIMILARITY,
    NEGATIVE_EXAMPLE_UIDS,
    POSITIVE_EXAMPLE_UIDS,
    PREDICTED_CLASS,
    PRIVATE_CREATOR,
    PRIVATE_GROUP,
    RANK,
    RE_RANK,
    RETRIEVAL_METHOD,
    RETRIEVAL_MODEL,
    SAME_TAGS,
    SIMILARITY,
    VECTOR_SPACE,
    PrivateElement,
)
from cbmir_node.catalog.models import InstalledModel
from cbmir_node.config import SearchSettings
from cbmir_node.dicom.similarity_sop_class import SIMILARITY_FIND
from cbmir_node.errors import ModelError, NotEmbeddedError, QueryError
from cbmir_node.search.choices import choose
from cbmir_node.search.query import Example, SimilarityQuery
from tests.conftest import needs_program
from tests.dicom.conftest import Node
from tests.dicom.peers import findscu
from tests.dicom.test_find import PATIENT_ROOT, STUDY_ROOT, Responses, ask_with
from tests.objects import make_object


@pytest.fixture
def studies(node: Node) -> list[Dataset]:
    """Put four studies into the node, newest first."""
    return keep_studies(node)


def keep_studies(node: Node) -> list[Dataset]:
    datasets = [
        make_object(
            PatientID=f"P{number}",
            AccessionNumber=f"A{number}",
            StudyDate=f"2024010{9 - number}",
            StudyDescription=f"Study {number}",
            BodyPartExamined="HEAD" if number < 2 else "KNEE",
        )
        for number in range(4)
    ]
    node.keep(*datasets)
    return datasets


def request(
    level: str = "STUDY", private: dict[PrivateElement, Any] | None = None, **keys: Any
) -> Dataset:
    """Return a request identifier, with our private block where `private` is given."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    if private is not None:
        block = identifier.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
        for element, value in private.items():
            block.add_new(element.offset, element.vr, value)
    return identifier


def in_view(node: Node, identifier: Dataset, **how: Any) -> Responses:
    return ask_with(node, identifier, STUDY_ROOT, called="CBMIR_SIM", **how)


def private_value(answer: Dataset | None, element: PrivateElement) -> Any:
    assert answer is not None
    return answer.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)[element.offset].value


def test_findscu_gets_similar_studies(node: Node, studies: list[Dataset], tmp_path: Path) -> None:
    needs_program("findscu", package="dcmtk")
    answers = findscu(
        *(node.port, tmp_path / "answers", "QueryRetrieveLevel=STUDY"),
        *(f"StudyInstanceUID={studies[0].StudyInstanceUID}", "StudyDescription", "PatientID"),
        called="CBMIR_SIM",
    )
    assert [answer.StudyInstanceUID for answer in answers] == [
        study.StudyInstanceUID for study in studies[1:]
    ]
    assert [answer.StudyDescription for answer in answers] == ["Study 1", "Study 2", "Study 3"]
    assert all(answer.RetrieveAETitle == "CBMIR" for answer in answers)
    assert not [element for element in answers[0] if element.tag.is_private]
    (query,) = node.search.queries
    assert query.examples == [Example("STUDY", studies[0].StudyInstanceUID)]
    assert query.filters == {}
    assert node.server.statistics.finds == {("similarity", 0): 1}


def test_several_examples(node: Node, studies: list[Dataset]) -> None:
    uids = [study.StudyInstanceUID for study in studies[:2]]
    *pending, _ = in_view(node, request(StudyInstanceUID=uids))
    assert len(pending) == 2
    assert node.search.queries[0].examples == [Example("STUDY", uid) for uid in uids]


@pytest.mark.parametrize(
    ("keys", "example"),
    [
        ({"AccessionNumber": "A2"}, 2),
        ({"PatientID": "P1"}, 1),
        ({"PatientID": "P3", "AccessionNumber": "A3"}, 3),
        ({"PatientID": "P1", "StudyInstanceUID": "*", "AccessionNumber": "*"}, 1),
    ],
)
def test_example_named_otherwise(
    node: Node, studies: list[Dataset], keys: dict[str, Any], example: int
) -> None:
    in_view(node, request(**keys))
    (query,) = node.search.queries
    assert query.examples == [Example("STUDY", studies[example].StudyInstanceUID)]
    assert query.filters == {}


def test_newest_study_of_a_patient_is_the_example(node: Node) -> None:
    old, new = (make_object(PatientID="P", StudyDate=date) for date in ("20010101", "20240101"))
    node.keep(old, new, make_object())
    in_view(node, request(PatientID="P"))
    assert node.search.queries[0].examples == [Example("STUDY", new.StudyInstanceUID)]


def test_other_keys_filter(node: Node, studies: list[Dataset]) -> None:
    uid = studies[0].StudyInstanceUID
    identifier = request(
        StudyInstanceUID=uid,
        StudyDate="20240101-20241231",
        PatientSex="F",
        ModalitiesInStudy="CT",
        Modality="CT",
        BodyPartExamined="KNEE",
        StudyDescription="Stu*",
        PatientID="P*",
        AccessionNumber="A0",
        PatientName="",
    )
    (status, answer), *_ = in_view(node, identifier)
    assert node.search.queries[0].filters == {
        "StudyDate": "20240101-20241231",
        "PatientSex": "F",
        "ModalitiesInStudy": "CT",
        "Modality": "CT",
        "BodyPartExamined": "KNEE",
        "StudyDescription": "Stu*",
        "PatientID": "P*",  # a pattern names no example
    }
    assert status.Status == 0xFF00  # Modality and BodyPartExamined count as supported here
    assert answer is not None
    assert (answer.Modality, answer.BodyPartExamined) == ("CT", "HEAD")  # of the matched image


@pytest.mark.parametrize(
    ("keys", "status", "comment"),
    [
        ({}, 0xA900, "name an example: StudyInstanceUID, AccessionNumber or PatientID"),
        ({"PatientID": "P*"}, 0xA900, "name an example"),
        ({"StudyInstanceUID": "1.2.3"}, 0xC101, "the node has no"),
        ({"AccessionNumber": "unknown"}, 0xC101, "AccessionNumber"),
        ({"PatientID": "nobody"}, 0xC101, "PatientID"),
    ],
)
def test_no_usable_example(
    node: Node, studies: list[Dataset], keys: dict[str, Any], status: int, comment: str
) -> None:
    ((answer, _),) = in_view(node, request(PatientName="", **keys))
    assert answer.Status == status
    assert comment in answer.ErrorComment


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotEmbeddedError("study 1.2 has no vector: it is pending"), 0xC102),
        (QueryError("StudyDate: 'x' is not a date"), 0xA900),
        (ModelError("no model is active; run 'cbmir-node model use'"), 0xC000),
        (MemoryError("no memory"), 0xA700),
        (KeyError("bug"), 0xC000),
    ],
)
def test_errors_of_the_search(
    node: Node, studies: list[Dataset], error: Exception, status: int
) -> None:
    node.search.error = error
    ((answer, _),) = in_view(node, request(StudyInstanceUID=studies[0].StudyInstanceUID))
    assert answer.Status == status
    assert answer.ErrorComment
    assert ("internal" in answer.ErrorComment) == isinstance(error, KeyError)


def test_a_choice_the_model_refuses_is_named_and_its_remedy_fits(
    node: Node, studies: list[Dataset]
) -> None:
    for field, element in ELEMENT_OF_FIELD.items():
        assert field in SimilarityQuery.__dataclass_fields__
        node.search.error = QueryError("choose cosine", field)
        ((answer, _),) = in_view(node, request(StudyInstanceUID=studies[0].StudyInstanceUID))
        assert (answer.OffendingElement, answer.ErrorComment) == (element.tag, "choose cosine")
    model = InstalledModel(1, "0" * 64, "a" * 60, "1", "active", {"embedding": 2})
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"method": "hamming"}, "choose cosine or euclidean: the model in use has no hash code"),
        (
            {"predicted_class": "A"},
            "leave out the predicted class: the model in use has no classes",
        ),
        ({"by_class": True}, "turn class restriction off: the model in use has no classes"),
        ({"rerank": True}, "choose hamming: only hash codes are re-ranked"),
    ]
    for wish, comment in wishes:
        with pytest.raises(QueryError) as refused:
            choose(SimilarityQuery([], **wish), SearchSettings(), model)
        assert (refused.value.field, str(refused.value)) == (*wish, comment)
        assert len(comment) <= 64


def test_a_class_of_any_language_is_answered_as_it_is(node: Node, studies: list[Dataset]) -> None:
    node.search.label = "Schädel-CT"
    identifier = request(
        private={PREDICTED_CLASS: None}, StudyInstanceUID=studies[0].StudyInstanceUID
    )
    (_, answer), *_ = in_view(node, identifier)
    assert answer is not None
    assert answer.SpecificCharacterSet == "ISO_IR 192"
    assert private_value(answer, PREDICTED_CLASS) == "Schädel-CT"


def test_private_elements_in_the_view_only_when_asked_for(
    node: Node, studies: list[Dataset]
) -> None:
    uid = studies[0].StudyInstanceUID
    private = {SIMILARITY: None, RANK: None, MAXIMUM_RESULTS: 2}
    *pending, _ = in_view(node, request(private=private, StudyInstanceUID=uid))
    assert [private_value(answer, RANK) for _, answer in pending] == [1, 2]
    assert [private_value(answer, SIMILARITY) for _, answer in pending] == [0.99, 0.98]
    block = pending[0][1].private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
    assert [element.offset in block for element in ANSWERED] == [True, True, *[False] * 6]
    other = request(StudyInstanceUID=uid)
    other.private_block(PRIVATE_GROUP, "SOMEBODY ELSE", create=True).add_new(0x01, "FD", None)
    (_, answer), *_ = in_view(node, other)
    assert not [element for element in answer or () if element.tag.is_private]


@pytest.mark.parametrize("called", ["CBMIR", "CBMIR_SIM"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("level", "key"),
    [("STUDY", "StudyInstanceUID"), ("SERIES", "SeriesInstanceUID"), ("IMAGE", "SOPInstanceUID")],
)
def test_private_class(
    node: Node, studies: list[Dataset], called: str, syntax: str, level: str, key: str
) -> None:
    identifier = request(
        level,
        {
            MAXIMUM_RESULTS: 5,
            MINIMUM_SIMILARITY: 0.25,
            RETRIEVAL_METHOD: "EUCLIDEAN",
            POSITIVE_EXAMPLE_UIDS: [studies[2][key].value],
            NEGATIVE_EXAMPLE_UIDS: ["1.2.3", "1.2.4", "1.2.3"],
            MINIMUM_AGE: 18.5,
            MAXIMUM_AGE: 90.0,
        },
        **{key: studies[0][key].value},
        Modality="CT",
    )
    *pending, (final, _) = ask_with(node, identifier, SIMILARITY_FIND, called, syntax)
    assert final.Status == 0x0000
    (query,) = node.search.queries
    assert query.level == level
    assert query.examples == [Example(level, studies[n][key].value) for n in (0, 2)]
    assert query.negative_examples == [Example(level, uid) for uid in ("1.2.3", "1.2.4")]
    assert (query.k, query.minimum_similarity, query.method) == (5, 0.25, "euclidean")
    assert (query.minimum_age, query.maximum_age) == (18.5, 90)
    assert query.filters == {"Modality": "CT"}
    assert [answer[key].value for _, answer in pending] == [studies[n][key].value for n in (1, 3)]
    values = [private_value(pending[0][1], element) for element in ANSWERED]
    image = studies[1].SOPInstanceUID
    assert values == [0.99, 1, image, 1, "EUCLIDEAN", "tiny:1", "CT_HEAD", 0.75]


REFUSED: tuple[tuple[dict[PrivateElement, Any], int, PrivateElement], ...] = (
    ({MAXIMUM_RESULTS: 0}, 0xA900, MAXIMUM_RESULTS),
    ({MINIMUM_SIMILARITY: 1.5}, 0xA900, MINIMUM_SIMILARITY),
    ({MINIMUM_SIMILARITY: [0.1, 0.2]}, 0xA900, MINIMUM_SIMILARITY),
    ({RETRIEVAL_METHOD: "GUESS"}, 0xA900, RETRIEVAL_METHOD),
    ({MINIMUM_AGE: -1.0}, 0xA900, MINIMUM_AGE),
    ({PREDICTED_CLASS: ["CT_HEAD", "CT_CHEST"]}, 0xA900, PREDICTED_CLASS),
    ({CLASS_RESTRICTION: "PERHAPS"}, 0xA900, CLASS_RESTRICTION),
    ({RE_RANK: ["YES", "NO"]}, 0xA900, RE_RANK),
    ({SAME_TAGS: ["SEX", "HAIR"]}, 0xA900, SAME_TAGS),
    ({SAME_TAGS: ["SEX", "NONE"]}, 0xA900, SAME_TAGS),
    ({RETRIEVAL_MODEL: "other"}, 0xC103, RETRIEVAL_MODEL),
)


def test_private_request_out_of_range(node: Node, studies: list[Dataset]) -> None:
    for private, status, offending in REFUSED:
        identifier = request(private=private, StudyInstanceUID=studies[0].StudyInstanceUID)
        ((answer, _),) = ask_with(node, identifier, SIMILARITY_FIND)
        assert answer.Status == status, private
        assert answer.OffendingElement == offending.tag, private
        assert offending.name in answer.ErrorComment, private
    assert not node.search.queries


CHOICES = (RETRIEVAL_METHOD, RE_RANK, VECTOR_SPACE, CLASS_RESTRICTION, PREDICTED_CLASS, SAME_TAGS)
AS_CONFIGURED = (None,) * 6
WISHES: tuple[tuple[dict[PrivateElement, Any], tuple[Any, ...]], ...] = (
    ({RANK: None}, AS_CONFIGURED),
    (dict.fromkeys(CHOICES), AS_CONFIGURED),
    (
        {
            RETRIEVAL_METHOD: "HAMMING",
            RE_RANK: "YES",
            VECTOR_SPACE: "embedding.fc7",
            CLASS_RESTRICTION: "YES",
            PREDICTED_CLASS: "CT_HEAD",
            SAME_TAGS: ["AGE", "BODY_PART", "AGE"],
        },
        (
            *("hamming", True, "embedding.fc7", True, "CT_HEAD"),
            ("PatientAge", "BodyPartExamined"),
        ),
    ),
    (
        {RANK: None, RE_RANK: "NO", CLASS_RESTRICTION: "NO", SAME_TAGS: "NONE"},
        (None, False, None, False, None, ()),
    ),
)


@pytest.mark.parametrize("model", [STUDY_ROOT, SIMILARITY_FIND])
def test_choices_of_the_retrieval(node: Node, studies: list[Dataset], model: str) -> None:
    for private, wished in WISHES:
        identifier = request(private=private, StudyInstanceUID=studies[0].StudyInstanceUID)
        (_, answer), *_, (final, _) = ask_with(node, identifier, model, called="CBMIR_SIM")
        assert final.Status == 0x0000, final.get("ErrorComment")
        query = node.search.queries[-1]
        assert wished == (
            *(query.method, query.rerank, query.space),
            *(query.by_class, query.predicted_class, query.same_tags),
        )
        assert answer is not None
        block = answer.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
        # these are answered where they were asked for, and never what only a request has
        for element in (RE_RANK, VECTOR_SPACE):
            assert (element.offset in block) == (element in private)
        assert not [e for e in (CLASS_RESTRICTION, SAME_TAGS) if e.offset in block]
        if VECTOR_SPACE in private:
            assert private_value(answer, VECTOR_SPACE) == (query.space or "embedding")
        if RE_RANK in private:
            assert private_value(answer, RE_RANK) == ("YES" if query.rerank else "NO")


def test_private_class_has_no_patient_level(node: Node) -> None:
    ((answer, _),) = ask_with(node, request("PATIENT", PatientID="P"), SIMILARITY_FIND)
    assert answer.Status == 0xA900


def test_main_view_answers_study_root_as_ever(node: Node, studies: list[Dataset]) -> None:
    *pending, _ = ask_with(node, request(StudyInstanceUID=studies[0].StudyInstanceUID), STUDY_ROOT)
    assert len(pending) == 1
    *pending, _ = ask_with(node, request("PATIENT", PatientID="P0"), PATIENT_ROOT)
    assert len(pending) == 1
    assert not node.search.queries


@pytest.mark.parametrize(
    ("rank_in", "asked", "text"),
    [
        ("StudyDescription", True, "#1 0.99 Study 1"),
        ("StudyDescription", False, None),
        ("StudyID", True, "#1 0.99 1"),
        ("SeriesDescription", True, None),  # no key of the STUDY level
    ],
)
def test_rank_in_a_text_key(
    start_node: Callable[..., Node], rank_in: str, asked: bool, text: str | None
) -> None:
    node = start_node(rank_in=rank_in)
    studies = keep_studies(node)
    keys = {"StudyInstanceUID": studies[0].StudyInstanceUID, **({rank_in: ""} if asked else {})}
    (_, answer), *_ = in_view(node, request(**keys))
    assert answer is not None
    assert answer.get(rank_in) == text


def test_match_removed_meanwhile_is_left_out(
    node: Node, studies: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = node.search.answer

    def with_a_ghost(query: Any) -> Any:
        ranking = answer(query)
        ghost = type(ranking.matches[0])(9, 4711, 0.5, 0.5, "1.2.3", 1, None, None)
        ranking.matches.insert(1, ghost)
        return ranking

    monkeypatch.setattr(node.search, "answer", with_a_ghost)
    uid = studies[0].StudyInstanceUID
    *pending, (final, _) = in_view(node, request(StudyInstanceUID=uid, Modality=""))
    assert final.Status == 0
    assert len(pending) == 3


def test_element_numbers_are_unique() -> None:
    assert len({element.offset for element in ELEMENTS}) == len(ELEMENTS)
    assert PRIVATE_GROUP % 2 == 1
