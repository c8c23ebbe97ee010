"""Scanner, region, view, contrast and dose of a series, harmonised, with what each verdict rests on."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ospor_batch.catalog.contrast import ContrastTags, Told, contrast_counts, contrast_phase, contrast_route
from ospor_batch.catalog.dose import dose_class
from ospor_batch.catalog.region import region_by_extent
from ospor_batch.catalog.rules import Rules
from ospor_batch.catalog.series import settle
from ospor_batch.catalog.vendor import model_of, vendor_of
from ospor_batch.catalog.vocabulary import Words, names_of, vocabulary
from ospor_batch.contracts import contract
from tests.archive.made import cr, uid

from .conftest import Catalogue
from .test_series import only, stack

SILENT = {"BodyPartExamined": None, "SeriesDescription": "5.0"}


def enum(column: str) -> set[str]:
    return set(dict(contract("series").field(column).constraints)["enum"])


def test_names_of_the_lists_are_values_of_the_contract() -> None:
    assert set(names_of("vendors")) | {"other", "unknown"} == enum("scanner_vendor")
    assert set(names_of("body_regions")) <= enum("body_region")
    assert set(vocabulary().regions.values()) <= enum("body_region")
    assert set(names_of("phases")) <= enum("contrast_phase")
    vendors = set(names_of("vendors"))
    for of in vocabulary().lists:
        if of.startswith("kernels/"):
            assert set(names_of(of)) <= enum("kernel_class")
        assert "/" not in of or of.split("/")[1] in vendors


@pytest.mark.parametrize(
    ("manufacturer", "model", "vendor", "source", "name"),
    [
        ("GE MEDICAL SYSTEMS", "LightSpeed16", "ge", "manufacturer", "LightSpeed 16"),
        ("GE MEDICAL SYSTEMS", "LightSpeed VCT", "ge", "manufacturer", "LightSpeed VCT"),
        ("SIEMENS", "SOMATOM Definition AS+", "siemens", "manufacturer", "SOMATOM Definition AS"),
        ("SIEMENS", "Biograph40_mCT 4R", "siemens", "manufacturer", "Biograph mCT"),
        ("Siemens Healthineers", "NAEOTOM Alpha", "siemens", "manufacturer", "NAEOTOM Alpha"),
        ("Philips", "Brilliance 64", "philips", "manufacturer", "Brilliance"),
        ("Philips", "iCT 256", "philips", "manufacturer", "iCT"),
        ("TOSHIBA", "Aquilion ONE", "canon", "manufacturer", "Aquilion ONE"),
        ("TOSHIBA", "Aquilion", "canon", "manufacturer", "Aquilion"),
        ("Canon Medical Systems", "Aquilion PRIME SP", "canon", "manufacturer", "Aquilion PRIME"),
        ("UIH", "uCT 760", "united_imaging", "manufacturer", "uCT 760"),
        ("Hitachi, Ltd.", "SCENARIA View", "fujifilm", "manufacturer", "SCENARIA"),
        ("Neusoft Medical Systems", "NeuViz 64 In", "neusoft", "manufacturer", "NeuViz 64"),
        ("Agfa-Gevaert AG", "ADC_5146", "agfa", "manufacturer", "ADC"),
        ("GE MEDICAL SYSTEMS", "RHAPSODE", "ge", "manufacturer", "other"),
        # no manufacturer: a trade name tells it, a bare number does not
        ("", "Supria", "fujifilm", "model", "Supria"),
        (None, "1094", "unknown", None, "other"),
        (None, None, "unknown", None, None),
        ("Anonymized", "SOMATOM Force", "siemens", "model", "SOMATOM Force"),
        ("UNKNOWN", "N/A", "unknown", None, None),
        # a manufacturer that is not known is not overruled by a model
        ("Acme", "LightSpeed VCT", "other", "manufacturer", "other"),
    ],
)
def test_vendor_and_model(
    manufacturer: str | None, model: str | None, vendor: str, source: str | None, name: str | None
) -> None:
    assert vendor_of(manufacturer, model=model) == (vendor, source)
    assert model_of(model, vendor=vendor) == name


def test_a_trade_name_belongs_to_one_vendor() -> None:
    lists = vocabulary().lists
    for of in lists:
        if of.startswith("models/"):
            for name, _ in lists[of]:
                told, _ = vendor_of(None, model=name)
                assert f"models/{told}" == of, name


def test_a_site_adds_words_that_win(catalogue: Catalogue) -> None:
    added = (
        Words("vendors", "canon", ("^acme imaging",)),
        Words("models/canon", "Aquilion ONE", ("^super dooper",)),
        Words("kernels/canon", "sharp", ("^acme7",)),
        Words("body_regions", "lumbar_spine", ("^wirbel 3",)),
        Words("evidence", "without", (r"\bprotokoll 7\b",)),
        Words("image_kinds", "low_dose", ("^vorsorge",)),
    )
    told = {"Manufacturer": "ACME Imaging", "ManufacturerModelName": "Super Dooper", "ConvolutionKernel": "ACME7"}
    images = stack(3, **told, BodyPartExamined="Wirbel 3", SeriesDescription="Protokoll 7")
    plain, site = only(catalogue(images)), only(catalogue(images, rules=Rules(words=vocabulary(added))))
    columns = ("scanner_vendor", "scanner_model", "kernel_class", "body_region", "contrast_evidence")
    assert [plain[c] for c in columns] == ["other", "other", "unknown", "unknown", "tag_absent"]
    assert [site[c] for c in columns] == ["canon", "Aquilion ONE", "sharp", "lumbar_spine", "declared_plain"]
    assert [site[c] for c in ("manufacturer_raw", "model_raw", "kernel_raw")] == list(told.values())
    assert Rules(words=vocabulary(added)).digest != Rules().digest


def test_a_site_overrules_a_word_and_keeps_those_beside_it(catalogue: Catalogue) -> None:
    added = (
        Words("evidence", "with", (r"\bnativ plus\b",)),
        Words("body_regions", "extremity", (r"\bbecken links\b",)),
        Words("body_regions", "chest_abdomen", (r"\btho-abd\b",)),
        Words("views", "lateral", (r"\bpa 2\b",)),
    )
    words = vocabulary(added)
    assert (words.says("Nativ plus", "with", of="evidence"), words.says("Nativ plus", "without", of="evidence")) == (
        True,
        False,
    )
    assert words.every("body_regions", "Becken links und Thorax") == {"extremity", "chest"}
    assert words.every("views", "PA 2") == {"lateral"}
    # a region of several parts is its parts
    row = only(catalogue(stack(3, BodyPartExamined="THO-ABD PELVIS"), rules=Rules(words=words)))
    assert row["body_region"] == "chest_abdomen_pelvis"


def test_no_shipped_pattern_seeks_what_folding_takes_away() -> None:
    sought = [fits.pattern for entries in vocabulary().lists.values() for _, fits in entries]
    assert not [pattern for pattern in sought if re.search("[_;]", re.sub(r"\\.", "", pattern))]


def test_values_without_a_place_are_listed_and_not_guessed(catalogue: Catalogue) -> None:
    odd = {"Manufacturer": "Acme", "ManufacturerModelName": "X1", "ConvolutionKernel": "Q9", "BodyPartExamined": "ZZZ"}
    images = stack(3, **odd) | stack(3, series=2, **odd) | {"r": cr(series=3, ViewPosition="XYZ")}
    listed = catalogue(images).unlisted
    assert listed.select("kind", "written", "n_series").rows() == [
        ("body_region", "ZZZ", 2),
        ("kernel", "Q9", 2),
        ("model", "X1", 2),
        ("vendor", "Acme", 2),
        ("view", "XYZ", 1),
    ]
    assert catalogue(stack(3)).unlisted.height == 0


@pytest.mark.parametrize(
    ("extent", "field", "region"),
    [
        (300.0, 400.0, None), (500.0, 400.0, None), (600.0, 400.0, "chest_abdomen_pelvis"), (1000.0, 500.0, "whole_body"),
        (600.0, 200.0, None), (None, 400.0, None), (600.0, None, None),
    ],
)  # fmt: skip
def test_only_a_long_stack_tells_its_region(extent: float | None, field: float | None, region: str | None) -> None:
    assert region_by_extent(orientation="axial", extent_mm=extent, field_mm=field) == region
    assert region_by_extent(orientation="coronal", extent_mm=extent, field_mm=field) is None


def test_a_long_stack_without_any_word_is_a_trunk(catalogue: Catalogue) -> None:
    row = only(catalogue(stack(6, **SILENT, ImagePositionPatient=lambda n: [0, 0, 120.0 * n])))
    assert (row["body_region"], row["body_region_source"]) == ("chest_abdomen_pelvis", "extent")


def test_a_stack_at_the_place_of_a_named_one_has_its_region(catalogue: Catalogue) -> None:
    named = stack(10, series=1, BodyPartExamined="CHEST")
    thin = stack(19, series=2, **SILENT, ImagePositionPatient=lambda n: [0, 0, 2.5 * n])
    part = stack(4, series=3, **SILENT)
    elsewhere = stack(10, series=4, **SILENT, FrameOfReferenceUID=uid(7))
    rows = {row["n_instances"]: row for row in catalogue(named | thin | part).series.iter_rows(named=True)}
    verdict = ("body_region", "body_region_source")
    assert [rows[19][c] for c in verdict] == ["chest", "position"]
    assert [rows[4][c] for c in verdict] == ["unknown", "none"]
    other = catalogue(named | elsewhere).series.filter(body_region="unknown")
    assert other.height == 1


def test_places_that_two_named_stacks_share_settle_nothing(catalogue: Catalogue) -> None:
    images = stack(8, series=1, BodyPartExamined="CHEST") | stack(8, series=2, BodyPartExamined="ABDOMEN")
    found = catalogue(images | stack(8, series=3, **SILENT)).series
    assert found.filter(body_region_source="none").height == 1
    # a neighbour that leaves takes its verdict with it
    alone = settle(catalogue(stack(8, series=1) | stack(8, series=3, **SILENT)).series.filter(body_region_source="position"))
    assert alone.series["body_region"].to_list() == ["unknown"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"region": "chest", "ctdivol_mgy": 1.8}, ("low", "ctdivol", [])),
        ({"region": "chest", "ctdivol_mgy": 3.0}, ("low", "ctdivol", [])),
        ({"region": "chest", "ctdivol_mgy": 3.01}, ("standard", "ctdivol", [])),
        ({"region": "chest", "ctdivol_mgy": 4.2, "text": "LDCT lung"}, ("low", "description", ["low_dose_above_limit"])),
        ({"region": "chest", "text": "Lung cancer screening"}, ("low", "description", [])),
        ({"region": "chest", "text": "胸部低剂量平扫"}, ("low", "description", [])),
        ({"region": "chest", "current_ma": 60.0}, ("low", "tube_current", [])),
        ({"region": "chest", "current_ma": 100.0}, ("unknown", None, [])),
        ({"region": "chest", "current_ma": 250.0}, ("standard", "tube_current", [])),
        ({"region": "chest"}, ("unknown", None, [])),
        ({"region": "chest", "ctdivol_mgy": 0.0}, ("unknown", None, [])),
        ({"region": "abdomen", "ctdivol_mgy": 1.8}, (None, None, [])),
    ],
)
def test_low_dose_chest(told: dict[str, Any], expected: tuple[str | None, str | None, list[str]]) -> None:
    values = {"ctdivol_mgy": None, "current_ma": None, "text": None} | told
    text = values.pop("text")
    assert dose_class(**values, descriptions=(text,)) == expected


def test_a_scout_has_no_dose_class(catalogue: Catalogue) -> None:
    scout = stack(1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], BodyPartExamined="CHEST", XRayTubeCurrent=30)
    assert only(catalogue(scout))["dose_class"] is None


@pytest.mark.parametrize(
    ("evidence", "text", "phase"),
    [
        ("given", "Abdomen portal venous", "portal_venous"),
        ("given", "Thorax art. Phase arteriell", "arterial"),
        ("given", "CT ANGIO chest", "arterial"),
        ("given", "nephrographic", "nephrographic"),
        ("given", "Delayed 5 min", "delayed"),
        ("given", "Perfusion", "perfusion"),
        ("given", "with contrast", "unspecified"),
        ("given", "arterial and portal venous", "unspecified"),
        ("declared_plain", "arterial", "plain"),
        ("tag_absent", "arterial", "unknown"),
        ("conflicting", "arterial", "unknown"),
    ],
)
def test_phases(evidence: str, text: str, phase: str) -> None:
    assert contrast_phase(evidence, Told(series=text)) == phase


@pytest.mark.parametrize(
    ("agent", "route", "expected"),
    [
        ("GASTRO & OMNI", "Oral & IV", "intravenous+oral"),
        ("Iomeron 300", None, "intravenous"),
        ("APPLIED", None, None),
        (None, "ORAL", "oral"),
        (None, None, None),
    ],
)
def test_routes(agent: str | None, route: str | None, expected: str | None) -> None:
    assert contrast_route(ContrastTags(frozenset({agent}), frozenset({route}), has_volume=False)) == expected


def test_kinds_of_evidence_are_counted_over_scans_alone(catalogue: Catalogue) -> None:
    scout = stack(1, series=5, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    plain = stack(3, series=1) | stack(3, series=2, SeriesDescription="native", StudyInstanceUID=uid(101))
    given = stack(3, series=3, ContrastBolusAgent="Iomeron") | stack(3, series=4, ContrastBolusAgent="Iomeron")
    counted = contrast_counts(catalogue(plain | given | scout | {"r": cr(series=6)}).series)
    assert counted.select("contrast_evidence", "n_series", "n_studies").rows() == [
        ("declared_plain", 1, 1),
        ("given", 2, 1),
        ("tag_absent", 1, 1),
    ]


@pytest.mark.parametrize(
    ("tag", "text", "view", "projection"),
    [
        ("PA", None, "pa", "frontal"), ("AP", None, "ap", "frontal"), ("LL", None, "lateral", "lateral"),
        ("LLO", None, "other", "oblique"), (None, "Thorax frontal", "unknown", "frontal"), (None, None, "unknown", "unknown"),
        (None, "胸部正位", "unknown", "frontal"), (None, "胸部侧位", "lateral", "lateral"), ("DECUB", None, "other", "other"),
    ],
)  # fmt: skip
def test_projections(catalogue: Catalogue, tag: str | None, text: str | None, view: str, projection: str) -> None:
    changes = {"ViewPosition": tag, "SeriesDescription": text, "SpecificCharacterSet": "ISO_IR 192"}
    row = only(catalogue({"r": cr(**changes)}))
    assert (row["view"], row["projection"]) == (view, projection)
    assert row["view_raw"] == tag


def test_raw_values_stand_beside(catalogue: Catalogue) -> None:
    row = only(catalogue(stack(3, BodyPartExamined="THORAX^PROTOKOLL")))
    assert (row["body_region"], row["body_part_raw"]) == ("chest", "THORAX^PROTOKOLL")
    assert row["frame_of_reference_uid"] is not None
    assert isinstance(row["stack_start_mm"], float)


def test_the_series_table_keeps_what_settling_reads() -> None:
    wanted = {"patient_key", "birth_date", "sex", "study_key", "frame_of_reference_uid", "stack_start_mm", "stack_end_mm"}
    assert wanted <= set(contract("series").columns)
    assert {f.access for f in contract("series").fields if f.name in {"birth_date", "frame_of_reference_uid"}} == {"private"}
