"""The study file and the README of a generated study."""

from __future__ import annotations

from ospor_batch.synthetic.population import FIRST_IMAGE, LAST_IMAGE

README = """\
Generated data. Nothing in this folder is clinical: no image, examination, name or number here belongs to a person, and no
figure computed from it says anything about patients, scanners, densitometers or hospitals.

archives/<center>/   DICOM files of four invented hospitals, each in a folder layout of its own, with masks of L1-L4
exports/             their DXA and QCT exports, each in a layout of its own
truth.parquet        what is true of each person and what must become of them (ospor-batch contract truth)
study.toml           a study file that is ready to run: ospor-batch run study.toml
pseudonym.key        the key of this generated study; never use it for real people
generated.json       how this folder was made; the same words make the same bytes

CT numbers follow a declared line from true density, one line for each tube voltage, plus noise. Faults are planted on
named people: see the column `fault` of truth.parquet.
"""


def study_file(*, name: str, seed: int, tuning: float, cluster: str) -> str:
    """The text of study.toml."""
    compute = 'cluster = "local"\nworkers = 2' if cluster == "local" else f'cluster = "{cluster}"'
    return f"""\
# A generated study: nothing in it is clinical.
[study]
name = "{name}"
workspace = "workspace"
pseudonym_key = {{ file = "pseudonym.key" }}
seed = {seed}
is_generated = true
{_CENTERS}
[analysis]
target = "osteoporosis"
primary_metric = "auc"
image_dates = ["{FIRST_IMAGE.isoformat()}", "{LAST_IMAGE.isoformat()}"]

[[references]]
id = "dxa_any_site"
standard = "dxa_who"
sites = ["lumbar_spine", "femoral_neck", "total_hip"]
t_source = "reported"

[[references]]
id = "qct_spine"
standard = "qct"

[match]
before_days = 180
after_days = 180

[[criteria]]
name = "age 50 or older"
keep = "age_at_image >= 50"

[[criteria]]
name = "unenhanced"
rule = "unenhanced"

[[criteria]]
name = "120 kV"
rule = "kvp_120"

[split]
tuning = {tuning:g}
internal_test = {1 - tuning:g}
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

[tables]
strata = ["center", "scanner_vendor", "center*scanner_vendor", "sex", "age_band"]

[compute.cpu]
{compute}

[sweep]
settle_minutes = 0                         # generated files are never still arriving
"""


_CENTERS = """
[[centers]]
name = "north"
archives = ["archives/north"]
[[centers.exports]]
path = "exports/north_dxa.csv"
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

[[centers]]
name = "south"
archives = ["archives/south"]
[[centers.exports]]
path = "exports/south_dxa.xlsx"
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

[[centers]]
name = "east"
archives = ["archives/east"]
[[centers.exports]]
path = "exports/east_dxa.csv"
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

[[centers]]
name = "west"
archives = ["archives/west"]
[[centers.exports]]
path = "exports/west_qct.csv"
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
"""
