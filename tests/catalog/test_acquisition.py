"""What the header says of person and acquisition, in the words that hospitals write."""

from __future__ import annotations

from datetime import date

import pytest

from ospor_batch.catalog.acquisition import (
    age,
    image_date,
    sex,
    tube_voltage,
    view,
    within,
    years_between,
)
from ospor_batch.catalog.contrast import ContrastTags, Told, contrast_evidence
from ospor_batch.catalog.region import body_region
from ospor_batch.catalog.vendor import kernel_class, vendor_of


def evidence(agent: str | None = None, route: str | None = None, *, has_volume: bool = False, **text: str) -> str:
    tags = ContrastTags(frozenset({agent}), frozenset({route}), has_volume)
    return contrast_evidence(tags, Told(**text))


@pytest.mark.parametrize(
    ("agent", "route", "verdict"),
    [
        ("GASTRO & OMNI", "Oral & IV", "given"),
        ("APPLIED", None, "given"),
        ("Iomeron 300", None, "given"),
        (None, "IV", "given"),
        (None, None, "tag_absent"),
        ("", None, "tag_empty"),
        (None, "", "tag_empty"),
        ("NONE", None, "declared_plain"),
        ("No contrast", None, "declared_plain"),
        ("nativ", "", "declared_plain"),
        ("None", "IV", "conflicting"),
        # several values, and what is written where nobody knows
        ("NONE\\NONE", None, "declared_plain"),
        ("NO\\ORAL", None, "conflicting"),
        ("0 ml", None, "declared_plain"),
        ("sin medio de contraste", None, "declared_plain"),
        ("造影剤なし", None, "declared_plain"),
        ("N/A", "-", "tag_empty"),
        ("Unknown", None, "tag_empty"),
        ("不明", "", "tag_empty"),
        ("Non-ionic contrast", None, "given"),
        ("Nonionic", None, "given"),
    ],
)
def test_contrast_by_tags(agent: str | None, route: str | None, verdict: str) -> None:
    assert evidence(agent, route) == verdict


def test_a_volume_is_contrast() -> None:
    assert evidence("", has_volume=True) == "given"


@pytest.mark.parametrize(
    "text",
    [
        "without contrast",
        "Abdomen w/o contrast", "CT BRAIN WO IVCON", "Abd NATIVE", "Abdomen nativ", "non-contrast chest", "NECT",
        "unenhanced", "C- thorax", "plain CT", "ohne KM", "senza mdc", "sans injection", "sin contraste", "腹部平扫",
        "비조영 CT",
        "non contrast", "THORAX W/O", "pre contrast", "no contrast", "without intravenous contrast",
        "without administration of contrast", "without oral or IV contrast", "not enhanced", "Contrast: none", "PRECON",
        "no CE", "CE-", "CE(-)", "C(-)", "Abdomen -C", "sans IV", "TAP IV-", "sans produit de contraste",
        "avant injection", "TDM sans injection de produit de contraste",
        "ohne intravenöses Kontrastmittel", "vor KM", "senza mezzo di contrasto",
        "senza m.d.c.", "fase basale", "sin medio de contraste", "TC TORAX SIMPLE", "sem contraste", "s/ contraste",
        "zonder contrast", "blanco", "uten kontrast", "utan kontrast", "bez kontrastu", "kontrastsız", "без контраста",
        "нативное исследование", "胸部平掃", "增强前", "未增强", "非增强", "無顯影", "造影なし", "造影前", "無造影", "造影(-)",
        "조영제 없음", "조영전",
    ],
)  # fmt: skip
def test_words_for_a_plain_series(text: str) -> None:
    assert evidence(series=text) == "declared_plain"
    assert evidence("", series=text) == "declared_plain"
    assert evidence("Ultravist", series=text) == "conflicting"


@pytest.mark.parametrize(
    "text",
    [
        "with contrast",
        "Chest C+", "CECT abdomen", "portal venous", "arterial phase", "FDG_TK_KM", "mit KM", "con mdc", "enhanced",
        "avec injection", "腹部增强", "조영", "造影CT", "Head 0.5 CE Axial", "CT PULM ANGIO", "CT W/ CONTRAST", "CHEST W CON",
        "ABD/PEL W/ IV", "avec IV", "TAP IV+", "CE(+)", "C(+)", "post con", "с контрастом", "增強", "动脉期", "静脉期",
        "延迟扫描", "動脈相", "門脈相", "Phase arterielle", "portalvenös", "veineux", "contrast enhancement", "CT-Angio",
    ],
)  # fmt: skip
def test_words_for_an_enhanced_series(text: str) -> None:
    assert evidence(series=text) == "given"
    assert evidence("none", series=text) == "conflicting"
    # the study may hold a plain phase too: its word against silent tags settles nothing
    assert evidence(study=text) == "conflicting"


@pytest.mark.parametrize(
    "text",
    [
        "CT abdomen w/wo contrast",
        "with and without contrast",
        "COLLO CRANIO TOTBODY SENZA E CON",
        "ohne und mit KM",
        "C-/C+",
        "C(-/+)",
        "C+/-",
        "w/o & w/",
        "CT HEAD W/O AND W",
        "W WO",
        "ohne/mit KM",
        "nativ + KM",
        "sans puis avec IV",
        "senza/con mdc",
        "平扫+增强",
        "平扫、增强",
        "单纯 単純・造影",
        "조영 전후",
    ],
)
def test_words_for_both_phases_say_nothing(text: str) -> None:
    assert evidence(series=text) == "tag_absent"
    assert evidence("CE", protocol=text) == "given"


@pytest.mark.parametrize(
    "text",
    [
        "Abdomen 5.0", "Chest", "CT Body 3.0 Br38f", "Lung", "Thorax low dose", None, "conventional", "SILICONE",
        # words that only hold a word for or against
        "niece", "since 2019", "Notice", "Vorgabe", "no injury", "cholangiocarcinoma", "angiomyolipoma", "control", "arms up",
        "FOV 30 cm- B30f", "10 cm + 5", "segment IV- liver", "basale Abschnitte", "edge enhancement",
        # a denial of another route or kind
        "no oral contrast", "non-ionic",
    ],
)  # fmt: skip
def test_other_words_are_no_evidence(text: str | None) -> None:
    assert evidence(series=text or "") == "tag_absent"


def test_the_series_is_heard_before_the_study() -> None:
    assert evidence(series="native", study="CT abdomen with contrast") == "declared_plain"
    assert evidence(series="portal venous", study="CT without contrast") == "given"


def test_contrast_in_some_slices_is_contrast() -> None:
    tags = ContrastTags(frozenset({None, "Iomeron"}), frozenset({None}), has_volume=False)
    assert contrast_evidence(tags, Told()) == "given"


@pytest.mark.parametrize(
    ("tag", "texts", "region"),
    [
        ("CHEST", (), ("chest", "tag")),
        ("THORAX", (), ("chest", "tag")),
        ("TORACE", (), ("chest", "tag")),
        ("BACINO", (), ("pelvis", "tag")),
        ("LSPINE", (), ("lumbar_spine", "tag")),
        ("TOTAL B", (), ("whole_body", "tag")),
        ("PANCREAS", (), ("abdomen", "tag")),
        ("CHESTABDPELVIS", (), ("chest_abdomen_pelvis", "tag")),
        ("", ("CT CH/AB/PEL",), ("chest_abdomen_pelvis", "description")),
        (None, (None, "Abdomen^Pelvis"), ("abdomen_pelvis", "description")),
        ("PARTIALBODY", ("흉부 CT",), ("chest", "description")),
        ("", ("", "5.0"), ("unknown", "none")),
        ("BREAST", (), ("other", "tag")),
        (None, ("XR C Spine Comp Min 4 Views",), ("neck", "description")),
        ("CERVICAL SPINE", (), ("neck", "tag")),
        ("LUMBAR SPINE", (), ("lumbar_spine", "tag")),
        ("SPINE", (), ("other", "tag")),
        ("TOTAL BODY", (), ("whole_body", "tag")),
        # other languages
        *[(text, (), ("chest", "tag")) for text in ("TÓRAX", "Toraks", "Poumons", "polmoni", "肺", "폐 CT", "грудная клетка")],
        *[(text, (), ("abdomen", "tag")) for text in ("Leber", "Foie", "肝脏", "брюшная полость", "BUIK")],
        *[(text, (), ("abdomen_pelvis", "tag")) for text in ("ABD PEL", "腹部盆腔", "全腹", "KUB")],
        *[(text, (), ("chest_abdomen_pelvis", "tag")) for text in ("tórax abdomen pelvis", "胸腹盆", "C/A/P")],
        *[(text, (), ("head", "tag")) for text in ("Crâne", "tête", "颅脑", "脳", "Encéfalo")],
        *[(text, (), ("neck", "tag")) for text in ("HALS", "HWS", "頚部", "경추", "rachis cervical")],
        *[(text, (), ("lumbar_spine", "tag")) for text in ("Lendenwirbelsäule", "LS SPINE", "rachide lombare", "LWK 1")],
        *[(text, (), ("extremity", "tag")) for text in ("Hüfte", "Fuß", "épaule")],
        # a thoracic vertebra is no chest
        *[(text, (), ("other", "tag")) for text in ("THORACIC SPINE", "胸椎", "BWS", "흉추")],
        # words that only hold another
        *[(None, (text,), ("unknown", "none")) for text in ("Bestrahlungsplanung", "Abteilung 3", "Manchester", "delivery")],
        *[(None, (text,), ("unknown", "none")) for text in ("Head first supine", "arm up")],
    ],
)
def test_regions(tag: str | None, texts: tuple[str | None, ...], region: tuple[str, str]) -> None:
    assert body_region(tag, descriptions=texts) == (*region, [])


@pytest.mark.parametrize(
    ("tag", "texts", "expected"),
    [
        ("PA", (), "pa"), ("AP", (), "ap"), ("LL", (), "lateral"), ("LATERAL", (), "lateral"), ("LLO", (), "other"),
        ("", ("view: PA",), "pa"), (None, ("Chest pa",), "pa"), (None, ("CHEST PA LAT",), "unknown"), ("XYZ", (), "other"),
        ("P-A", (), "pa"), ("A->P", (), "ap"), (None, ("posterior to anterior",), "pa"), (None, ("Thorax seitl.",), "lateral"),
        ("LLAT", (), "lateral"), (None, ("胸部側位",), "lateral"),
        # a study of two views tells nothing of one
        (None, ("胸部正侧位",), "unknown"), (None, ("胸部正側位",), "unknown"),
    ],
)  # fmt: skip
def test_views(tag: str | None, texts: tuple[str, ...], expected: str) -> None:
    assert view("CR", tag=tag, orientation="L\\F", descriptions=texts).view == expected


@pytest.mark.parametrize(
    ("tag", "code", "expected"),
    [
        (None, "postero-anterior", "pa"), ("", "antero-posterior", "ap"), (None, "left lateral", "lateral"),
        ("PA", "lateral", "pa"), ("VIEW 7", "postero-anterior", "pa"), (None, "Donath", "other"), (None, "", "unknown"),
    ],
)  # fmt: skip
def test_the_meaning_of_a_view_code_stands_in_for_the_tag(tag: str | None, code: str, expected: str) -> None:
    assert view("DX", tag=tag, code=code, orientation=None, descriptions=()).view == expected


def test_rows_from_front_to_back_are_a_lateral_view() -> None:
    assert view("DX", tag=None, orientation="A\\F", descriptions=()).view == "lateral"
    assert view("CT", tag="PA", orientation=None, descriptions=()).view == "not_applicable"


def test_the_image_date_is_the_first_of_acquisition_series_study() -> None:
    days = {"acquisition_date": None, "series_date": date(2022, 1, 2), "study_date": date(2022, 1, 1)}
    assert image_date(days) == (date(2022, 1, 2), "series")
    assert image_date(dict.fromkeys(days)) == (None, "none")


def test_age_is_whole_on_a_birthday() -> None:
    assert years_between(date(1972, 6, 15), date(2022, 6, 15)) == 50.0
    assert years_between(date(1972, 6, 15), date(2022, 6, 14)) < 50
    assert years_between(date(1972, 2, 29), date(2022, 3, 1)) == 50.0
    assert years_between(date(1972, 2, 29), date(2022, 2, 28)) < 50


@pytest.mark.parametrize(
    ("born", "stated", "expected"),
    [
        (date(1960, 1, 1), None, (62.0, "birth_date", [])),
        (date(1960, 1, 1), "062Y", (62.0, "birth_date", [])),
        (date(1960, 1, 1), "075Y", (62.0, "birth_date", ["age_conflict"])),
        (None, "063Y", (63.0, "patient_age", [])),
        (None, "75Y", (75.0, "patient_age", [])),
        (None, "006M", (0.5, "patient_age", [])),
        (None, "62", (None, "none", ["age_unreadable"])),
        (None, "000Y", (None, "none", ["age_unreadable"])),
        (None, None, (None, "none", [])),
        (date(1789, 5, 5), None, (None, "none", ["age_implausible"])),
        (date(1905, 1, 1), "063Y", (63.0, "patient_age", ["age_implausible"])),
        (date(2030, 1, 1), "050Y", (50.0, "patient_age", ["age_implausible"])),
    ],
)
def test_age_comes_from_the_birth_date_else_from_the_tag_and_is_never_imputed(
    born: date | None, stated: str | None, expected: tuple[float | None, str, list[str]]
) -> None:
    assert age(born, at=date(2022, 1, 1), stated=stated) == expected


def test_sex_is_never_guessed() -> None:
    assert [sex(written) for written in ("F", "m ", "O", "", None, "X")] == ["female", "male", "other", *["unknown"] * 3]
    assert [sex(written) for written in ("Female", "MALE", "U")] == ["female", "male", "unknown"]


def test_height_in_centimeters_is_no_height() -> None:
    assert within(1.63, (1.2, 2.2)) == 1.63
    assert within(163.0, (1.2, 2.2)) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [([120.0], (120.0, "stated")), ([0.0], (None, "absent")), ([None], (None, "absent")), ([80.0, 140.0], (None, "mixed")),
     ([120.0, None], (None, "mixed"))],
)  # fmt: skip
def test_tube_voltage(values: list[float | None], expected: tuple[float | None, str]) -> None:
    assert tube_voltage(values, modality="CT", is_multi=False) == expected
    assert tube_voltage(values, modality="MR", is_multi=False) == (None, "not_applicable")


@pytest.mark.parametrize(
    ("written", "vendor"),
    [
        ("GE MEDICAL SYSTEMS", "ge"), ("GE Healthcare", "ge"), ("G.E. Medical Systems", "ge"), ("SIEMENS", "siemens"),
        ("Siemens Healthineers", "siemens"),
        ("Philips Medical Systems", "philips"), ("TOSHIBA", "canon"), ("Canon Inc.", "canon"),
        ("Canon Medical Systems", "canon"), ("TOSHIBA_MEC", "canon"), ("UIH", "united_imaging"), ("Hitachi, Ltd.", "fujifilm"),
        ("FUJI PHOTO FILM CO. LTD.", "fujifilm"), ("FUJIFILM Corporation", "fujifilm"), ("Neusoft Medical", "neusoft"),
        ("SHIMADZU CORPORATION", "shimadzu"), ("Samsung Electronics", "samsung"), ("Eastman Kodak Company", "carestream"),
        ("Konica Minolta, Inc.", "konica_minolta"), ("DRTECH Corporation", "drtech"),
        ("Agfa-Gevaert", "agfa"), ("GEHC", "ge"), ("Imatron", "ge"), ("PNMS", "philips"),
        ("爱克发", "agfa"), ("Acme", "other"), ("General Imaging", "other"), ("", "unknown"), (None, "unknown"),
    ],
)  # fmt: skip
def test_vendors(written: str | None, vendor: str) -> None:
    assert vendor_of(written)[0] == vendor


@pytest.mark.parametrize(
    ("kernel", "vendor", "expected"),
    [
        ("STANDARD", "ge", "standard"), ("SOFT", "ge", "soft"), ("BONEPLUS", "ge", "sharp"), ("LUNG", "ge", "sharp"),
        ("B20f", "siemens", "soft"), ("Br38f\\3", "siemens", "standard"), ("B70f", "siemens", "sharp"),
        ("H31s", "siemens", "standard"),
        ("FC03", "canon", "soft"), ("FC13", "canon", "standard"), ("FC52", "canon", "sharp"), ("FC30", "canon", "sharp"),
        ("B", "philips", "standard"), ("YA", "philips", "sharp"), ("B30f", "unknown", "unknown"), (None, "ge", "unknown"),
    ],
)  # fmt: skip
def test_kernels(kernel: str | None, vendor: str, expected: str) -> None:
    assert kernel_class(kernel, vendor=vendor) == expected
