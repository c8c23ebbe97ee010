"""Words, linkage and grading of a study file reach the catalog and the labels; a crosswalk that is not usable is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ospor_batch.config import EventFile, Study, read_study
from ospor_batch.errors import StudyError
from ospor_batch.labels.events import read_events
from ospor_batch.pseudonym import Linkage
from ospor_batch.site_rules import LinkageSection, VocabularySection
from ospor_batch.stages.begin import begin
from ospor_batch.stages.catalog import catalog
from ospor_batch.stages.label import label
from ospor_batch.stages.site_rules import read_linkage, read_rules
from ospor_batch.store import Store
from tests.archive.made import uid, write_series

from .test_crawl import Center

SPLIT_KEY = b"split-key-0123456789"
STUDY = """
[study]
name = "s"
pseudonym_key = {{ env = "K" }}
[[centers]]
name = "north"
archives = ["archive"]
[[centers.exports]]
path = "north.csv"
kind = "dxa"
columns = {{ patient_id = "MRN", exam_date = "Date", lumbar_spine_t = "T" }}
[[references]]
id = "dxa"
standard = "dxa_who"
[[recipes]]
name = "mean_hu"
reference = "dxa"
threshold = {{ fixed = 110 }}
{more}
"""


def written(folder: Path, more: str, crosswalk: str | None = None) -> Study:
    (folder / "study.toml").write_text(STUDY.format(more=more), encoding="utf-8")
    if crosswalk is not None:
        (folder / "crosswalk.csv").write_text(crosswalk, encoding="utf-8")
    return read_study(folder / "study.toml")


def test_without_a_word_the_shipped_rules_hold(tmp_path: Path) -> None:
    rules = read_rules(written(tmp_path, ""))
    assert (rules.linkage, rules.smallest_stack) == (Linkage(), 3)
    assert rules.digest == read_rules(written(tmp_path, "[vocabulary]")).digest


def test_every_list_of_the_study_file_reaches_the_vocabulary(tmp_path: Path) -> None:
    rules = read_rules(
        written(
            tmp_path,
            """
[grading]
smallest_stack = 20
[vocabulary]
vendors = [{ name = "neusoft", patterns = ["^nsoft"] }]
models = [{ vendor = "neusoft", name = "NeuViz 64", patterns = ["^nv64"] }]
kernels = [{ vendor = "neusoft", name = "sharp", patterns = ["^F40"] }]
body_parts = [{ name = "abdomen", patterns = ["buik"] }]
contrast = [{ name = "without", patterns = ["blanco"] }]
phases = [{ name = "arterial", patterns = ["fase 1"] }]
views = [{ name = "pa", patterns = ["achter-voor"] }]
image_kinds = [{ name = "localizer", patterns = ["overzicht"] }, { name = "phantom", patterns = ["staafjes"] }]
""",
        )
    )
    words = rules.words
    assert rules.smallest_stack == 20
    assert words.first("vendors", "NSOFT Medical") == "neusoft"
    assert words.first("models/neusoft", "NV64e") == "NeuViz 64"
    assert words.first("kernels/neusoft", "F40") == "sharp"
    assert words.every("body_regions", "CT Buik") == {"abdomen"}
    assert words.says("CT blanco", "without", of="evidence")
    assert words.first("phases", "Fase 1") == "arterial"
    assert words.every("views", "achter-voor") == {"pa"}
    assert words.says("Overzicht", "localizer")
    assert words.says("LWK met staafjes", "phantom")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[vocabulary]\nvendors = [{ name = "acme", patterns = ["x"] }]', "vendors.name is 'acme', expected one of ge"),
        ('[vocabulary]\nvendors = [{ name = "ge", patterns = ["("] }]', "no regular expression"),
        ('[vocabulary]\nvendors = [{ name = "ge", patterns = ["x*"] }]', "fits every text"),
        ('[vocabulary]\nvendors = [{ name = "ge", patterns = ["."] }]', "fits every text"),
        ('[vocabulary]\nbody_parts = [{ name = "chest", patterns = ["lws_nativ"] }]', "fits no text: '_' is a blank"),
        ('[vocabulary]\nvendors = [{ name = "ge", patterns = [] }]', "vendors"),
        ('[vocabulary]\nkernels = [{ vendor = "ge", name = "hard", patterns = ["x"] }]', "kernels"),
        ('[vocabulary]\nvendor = []', "unknown key; did you mean 'vendors'"),
        ('[linkage]\nleading_zeros = "drop"', "leading_zeros"),
        ("[grading]\nsmallest_stack = 0", "smallest_stack"),
    ],
)  # fmt: skip
def test_a_faulty_section_is_refused(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(StudyError, match=r".*") as told:
        written(tmp_path, more)
    assert said in str(told.value)


def test_a_crosswalk_is_read_as_patient_numbers_are(tmp_path: Path) -> None:
    more = '[linkage]\nleading_zeros = "strip"\nissuer = "key"\nown_issuers = ["North "]\ncrosswalk = "crosswalk.csv"'
    linkage = read_linkage(written(tmp_path, more, "center,patient_id,person\nnorth, p-1 ,x\nnorth,0077,X\n"))
    assert dict(linkage.crosswalk) == {("north", "P-1"): "X", ("north", "77"): "X"}
    assert (linkage.strips_leading_zeros, linkage.is_issuer_key, linkage.own_issuers) == (True, True, frozenset({"NORTH"}))


@pytest.mark.parametrize(
    ("crosswalk", "said"),
    [
        (None, "crosswalk.csv cannot be read as CSV"),
        ("center,number,person\nnorth,SECRET,x\n", "has no column patient_id; expected center,patient_id,person, with commas"),
        ("center,patient_id,person\nnorth,,x\n", "row 2: patient_id and person must not be empty"),
        ("center,patient_id,person\nnowhere,SECRET,x\n", "row 2: its center is none of the study's, north"),
        ("center,patient_id,person\nnorth,SECRET,x\nnorth,secret ,y\n", "row 3: gives the number of row 2 to another person"),
        # old to new to newer, and in a circle
        ("center,patient_id,person\nnorth,old,SECRET\nnorth,SECRET,newer\n", "row 2: its person is a number that another row"),
        ("center,patient_id,person\nnorth,SECRET1,SECRET2\nnorth,SECRET2,SECRET1\n", "row 2: its person is a number that"),
    ],
)
def test_a_crosswalk_that_is_not_usable_is_refused_without_a_number(tmp_path: Path, crosswalk: str | None, said: str) -> None:
    study = written(tmp_path, '[linkage]\ncrosswalk = "crosswalk.csv"', crosswalk)
    with pytest.raises(StudyError) as told:
        read_linkage(study)
    assert said in str(told.value)
    assert "SECRET" not in str(told.value).upper()


def test_a_list_of_old_and_new_numbers_never_leaves_the_new_one_apart_silently(tmp_path: Path, key: bytes) -> None:
    """The person of a row may be named by a number: then that number needs a row, or nobody knows whose it is."""
    more = '[linkage]\nleading_zeros = "strip"\ncrosswalk = "crosswalk.csv"'
    linkage = read_linkage(written(tmp_path, more, "center,patient_id,person\nnorth,OLD-7,0NEW7\nnorth,GHOST,x\n"))
    assert linkage.key_of("stranger", center="north", key=key) != linkage.key_of("old-7", center="north", key=key)
    assert linkage.person("NEW7", center="south") is not None
    with pytest.raises(StudyError, match="the person of row 2 is named like a patient number of north") as told:
        linkage.key_of("new7", center="north", key=key)
    assert "NEW7" not in str(told.value).upper()
    told_all = "center,patient_id,person\nnorth,OLD-7,0NEW7\nnorth,new7,0NEW7\n"
    linkage = read_linkage(written(tmp_path, more, told_all))
    assert linkage.key_of("NEW7", center="north", key=key) == linkage.key_of("old-7", center="north", key=key)


def test_images_and_labels_meet_in_one_person_under_every_rule(tmp_path: Path, key: bytes) -> None:
    center = Center(tmp_path, key)
    write_series(center.archive / "a", n=3, PatientID="0042")
    write_series(center.archive / "b", n=3, series=2, PatientID="OLD-7", StudyInstanceUID=uid(200))
    (tmp_path / "north.csv").write_text("MRN,Date,T\n42,2022-06-01,-2.6\nNEW-7,2022-06-01,-1.0\n", encoding="utf-8")
    more = '[linkage]\nleading_zeros = "strip"\ncrosswalk = "crosswalk.csv"'
    crosswalk = "center,patient_id,person\nnorth,OLD-7,seven\nnorth,NEW-7,seven\n"
    plain = joined_people(center, written(tmp_path, "", crosswalk), key)
    linked = joined_people(center, written(tmp_path, more, crosswalk), key)
    assert (len(plain), len(linked)) == (0, 2)


def joined_people(center: Center, study: Study, key: bytes) -> set[str]:
    """Persons who have an image and a label."""
    store: Store = center.store
    center.crawl()
    catalog(study, "north", store=store, key=key, split_key=SPLIT_KEY)
    label(study, "north", store=store, key=key)
    imaged, labelled = store.current("series")["patient_key"], store.current("label")["patient_key"]
    return set(imaged) & set(labelled)


def test_events_follow_the_same_rules(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "events.csv").write_text("MRN,Code,From\n007,fracture,2022-01-01\n", encoding="utf-8")
    source = EventFile.model_validate({"path": "events.csv", "columns": {"patient_id": "MRN", "code": "Code", "start": "From"}})
    told: dict[str, Any] = {"center": "north", "key": key}
    linkage = Linkage(strips_leading_zeros=True)
    plain = read_events(tmp_path / "events.csv", source, **told)
    linked = read_events(tmp_path / "events.csv", source, **told, linkage=linkage)
    assert linked["patient_key"][0] == Linkage().key_of("7", **told)
    assert plain["patient_key"][0] == Linkage().key_of("007", **told)


def test_the_catalog_stage_writes_collisions_and_unlisted_values(tmp_path: Path, key: bytes) -> None:
    center = Center(tmp_path, key)
    write_series(center.archive / "a", n=3, Manufacturer="Acme")
    write_series(center.archive / "b", n=3, series=2, PatientSex="M")
    center.crawl()
    summary = catalog(center.study, "north", store=center.store, key=key, split_key=SPLIT_KEY)
    notes = dict(summary.notes)
    assert (notes["unlisted vendor"], notes["identity collisions"], notes["contrast tag_absent"]) == (1, 1, 2)
    assert center.store.current("collision")["kind"].to_list() == ["two_sexes"]
    assert center.store.current("unlisted").filter(pl.col("kind") == "vendor")["written"].to_list() == ["Acme"]
    assert center.store.current("series")["is_identity_collision"].all()


def test_sections_are_frozen() -> None:
    assert VocabularySection.model_config["frozen"]
    assert LinkageSection.model_config["extra"] == "forbid"


def test_the_sections_that_init_shows_are_read_when_their_mark_is_taken_away(tmp_path: Path) -> None:
    study = begin(tmp_path)[0]
    (tmp_path / "crosswalk.csv").write_text("center,patient_id,person\nnorth,1,a\n", encoding="utf-8")
    before, _, after = study.read_text(encoding="utf-8").partition("# [vocabulary]")
    hidden, _, rest = after.partition("[tables]")
    shown = "[vocabulary]" + "\n".join(line.removeprefix("# ") for line in hidden.splitlines())
    study.write_text(before + shown + "\n[tables]" + rest, encoding="utf-8")
    rules, plain = read_rules(read_study(study)), read_rules(written(tmp_path, ""))
    assert rules.digest != plain.digest
    assert (rules.linkage.strips_leading_zeros, rules.linkage.is_issuer_key) == (True, True)
    assert rules.linkage.crosswalk == {("north", "1"): "A"}
