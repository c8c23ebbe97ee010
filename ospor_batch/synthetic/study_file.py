"""The study file and the README of a generated study."""

from __future__ import annotations

from ospor_batch.synthetic.cohorts import Cohort
from ospor_batch.synthetic.exports import file_name
from ospor_batch.synthetic.population import CENTERS, FIRST_IMAGE, LAST_IMAGE, CenterPlan
from ospor_batch.synthetic.recipe_texts import recipe_text

README = """\
Generated data. Nothing in this folder is clinical: no image, examination, name or number here belongs to a person, and no
figure computed from it says anything about patients, scanners, densitometers or hospitals.

archives/<center>/   DICOM files of invented hospitals, each in a folder layout of its own, with masks of L1-L4
exports/             their DXA and QCT exports, each in a layout of its own
truth.parquet        what is true of each person and what must become of them (ospor-batch contract truth)
truth_file.parquet   what must become of each file (contract truth_file); not of a study without pixels
truth_structure.parquet, truth_masks/   where each vertebra, muscle and fat truly lie (contract truth_structure), likewise
study.toml           a study file that is ready to run: ospor-batch run study.toml
recipes.toml         the same archives under the five published recipes; not in every generated study
pseudonym.key        the key of this generated study; never use it for real people
generated.json       how this folder was made; the same words make the same bytes

CT numbers follow a declared line from true density, one line for each tube voltage, plus noise. Faults are planted on
named people: see the column `fault` of truth.parquet.
"""


def four_center_study(*, name: str, seed: int, train: float, tuning: float, cluster: str, recipes: str = "") -> str:
    """The text of a study file for the four invented centers; recipes: further ones, which are trained on the share train."""
    centers = "".join(_center(plan) for plan in CENTERS)
    trained = f"train = {train:g}\n" if train else ""
    return f"""\
{_begin(name, seed)}{centers}
[analysis]
target = "osteoporosis"
primary_metric = "auc"
image_dates = ["{FIRST_IMAGE.isoformat()}", "{LAST_IMAGE.isoformat()}"]

{_DXA_REFERENCE}
{_QCT_REFERENCE}
[match]
before_days = 180
after_days = 180

{_AGE_AND_PLAIN}
[[criteria]]
name = "120 kV"
rule = "kvp_120"

[split]
{trained}tuning = {tuning:g}
internal_test = {1 - train - tuning:g}
external = {{ center = ["east"] }}

[[recipes]]
name = "mean_hu"
id = "mean_hu_dxa"
reference = "dxa_any_site"
threshold = {{ rule = "youden" }}

[[recipes]]
name = "mean_hu"
id = "mean_hu_qct"
reference = "qct_spine"
threshold = {{ fixed = 105 }}                # HU that the declared line of 120 kV gives to 80 mg/cm3

{recipes}{_end(cluster)}"""


def cohort_study(cohort: Cohort, *, name: str, seed: int, cluster: str, is_small: bool) -> str:
    """The text of study.toml for a published cohort with its recipe; is_small: networks of a size for a CPU."""
    first, last = cohort.image_dates
    centers = "".join(_center(member.plan) for member in cohort.members)
    outside = ", ".join(f'"{member.plan.name}"' for member in cohort.members if member.is_external)
    external = f"external = {{ center = [{outside}] }}\n" if outside else ""
    test = max(0.0, 1 - cohort.train - cohort.tuning)
    return f"""\
# The published cohort behind the recipe {cohort.recipe}, generated: sizes, centers and dates are its own.
{_begin(name, seed)}{centers}
[analysis]
target = "osteoporosis"
primary_metric = "auc"
image_dates = ["{first.isoformat()}", "{last.isoformat()}"]

{_DXA_REFERENCE if cohort.reference == "dxa" else _QCT_REFERENCE}
[match]
before_days = 180
after_days = 180

{_AGE_AND_PLAIN}
[split]
train = {cohort.train!r}
tuning = {cohort.tuning!r}
internal_test = {test!r}
{external}
{recipe_text(cohort.recipe, is_small=is_small)}
{_end(cluster)}"""


def _center(plan: CenterPlan) -> str:
    manner = plan.manner or plan.name
    return _CENTERS[manner].replace("@NAME", plan.name).replace("@FILE", file_name(manner, plan.name))


def _begin(name: str, seed: int) -> str:
    return f"""\
# A generated study: nothing in it is clinical.
[study]
name = "{name}"
workspace = "workspace"
pseudonym_key = {{ file = "pseudonym.key" }}
seed = {seed}
is_generated = true
"""


def _end(cluster: str) -> str:
    compute = 'cluster = "local"\nworkers = 2' if cluster == "local" else f'cluster = "{cluster}"'
    return f"""\
[tables]
strata = ["center", "scanner_vendor", "center*scanner_vendor", "sex", "age_band"]

[compute.cpu]
{compute}

[sweep]
settle_minutes = 0                         # generated files are never still arriving
"""


_DXA_REFERENCE = """\
[[references]]
id = "dxa_any_site"
standard = "dxa_who"
sites = ["lumbar_spine", "femoral_neck", "total_hip"]
t_source = "reported"
"""
_QCT_REFERENCE = """\
[[references]]
id = "qct_spine"
standard = "qct"
"""
_AGE_AND_PLAIN = """\
[[criteria]]
name = "age 50 or older"
keep = "age_at_image >= 50"

[[criteria]]
name = "unenhanced"
rule = "unenhanced"
"""
_CENTERS: dict[str, str] = {
    "north": """
[[centers]]
name = "@NAME"
archives = ["archives/@NAME"]
[[centers.exports]]
path = "exports/@FILE"
kind = "dxa"
t_reference = "nhanes3_white_female"
date_format = "%Y-%m-%d"
[centers.exports.columns]
patient_id = "MRN"
exam_date = "ExamDate"
birth_date = "DOB"
sex = "Sex"
height_m = { column = "Height", unit = "cm" }
weight_kg = { column = "Weight", unit = "kg" }
lumbar_spine_bmd_g_cm2 = "LS BMD"
lumbar_spine_t = "LS T-score"
femoral_neck_bmd_g_cm2 = "FN BMD"
femoral_neck_t = "FN T-score"
total_hip_bmd_g_cm2 = "TH BMD"
total_hip_t = "TH T-score"
tbs = "TBS"
densitometer_vendor = "Device"
""",
    "south": """
[[centers]]
name = "@NAME"
archives = ["archives/@NAME"]
[[centers.exports]]
path = "exports/@FILE"
kind = "dxa"
t_reference = "nhanes3_white_female"
sex_values = { female = ["여"], male = ["남"] }
[centers.exports.columns]
patient_id = "환자번호"
exam_date = "검사일"
birth_date = "생년월일"
sex = "성별"
height_m = { column = "키(cm)", unit = "cm" }
weight_kg = { column = "몸무게(kg)", unit = "kg" }
lumbar_spine_bmd_g_cm2 = { column = "L1-L4 BMD", unit = "mg/cm2" }
lumbar_spine_t = "L1-L4 T"
femoral_neck_bmd_g_cm2 = { column = "Neck BMD", unit = "mg/cm2" }
femoral_neck_t = "Neck T"
total_hip_bmd_g_cm2 = { column = "Total BMD", unit = "mg/cm2" }
total_hip_t = "Total T"
densitometer_vendor = { value = "lunar" }
""",
    "east": """
[[centers]]
name = "@NAME"
archives = ["archives/@NAME"]
[[centers.exports]]
path = "exports/@FILE"
kind = "dxa"
layout = "long"
t_reference = "unknown"
encoding = "cp949"
delimiter = ";"
decimal = ","
date_format = "%Y.%m.%d"
sites = { lumbar_spine = ["요추 L1-L4"], femoral_neck = ["대퇴경부"], total_hip = ["대퇴골 전체"] }
[centers.exports.columns]
patient_id = "등록번호"
exam_date = "검사일자"
age_at_label = "나이"
sex = "성별"
height_m = { column = "신장", unit = "cm" }
weight_kg = { column = "체중", unit = "kg" }
site = "부위"
bmd_g_cm2 = "골밀도"
t_score = "T점수"
densitometer_vendor = { value = "hologic" }
""",
    "west": """
[[centers]]
name = "@NAME"
archives = ["archives/@NAME"]
[[centers.exports]]
path = "exports/@FILE"
kind = "qct"
phantom_material = "k2hpo4"
encoding = "gb18030"
date_format = "%Y/%m/%d"
[centers.exports.columns]
patient_id = "住院号"
exam_date = "检查日期"
birth_date = "出生日期"
sex = "性别"
height_m = "身高"
weight_kg = { column = "体重", unit = "kg" }
n_vertebrae = "椎体数"
vbmd_mg_cm3 = "骨密度"
accession_number = "检查号"
densitometer_vendor = { value = "mindways" }
""",
}
