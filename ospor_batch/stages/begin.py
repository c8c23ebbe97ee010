"""Write a commented study file and a label template to fill in."""

from __future__ import annotations

import os
from pathlib import Path

from ospor_batch.errors import StudyError
from ospor_batch.labels.proposal import propose
from ospor_batch.store import write_text

STUDY = """\
# A study of ospor_batch. Fill in the lines marked <-, then:
#   ospor-batch check study.toml     says what each line will do, before any work
#   ospor-batch run study.toml       does it; run it again after an interruption
[study]
name = "my-study"                              # <- stands in every table
workspace = "workspace"                        # catalog and runs; its private/ is closed to others
pseudonym_key = { env = "OSPOR_KEY" }          # or { file = "PATH" }; python -c "import secrets; print(secrets.token_hex(32))"
seed = 20220101

[[centers]]
name = "north"                                 # <- one block a contributing hospital
archives = ["archives/north"]                  # <- folders, zips, tars, s3://BUCKET/PREFIX, dicomweb+https://HOST/PATH
# calibration_phantom = "in_view"              # in every CT of this center; or "absent"; descriptions that name one need no line
[[centers.exports]]
path = "exports/north_dxa.csv"                 # <- CSV or XLSX; the template beside this file shows a layout that needs no change
kind = "dxa"                                   # dxa | qct | body
layout = "wide"                                # wide: a row per exam; long: a row per site
t_reference = "unknown"                        # reference population of the T-scores; unknown is a stratum of its own
date_format = "%Y-%m-%d"                       # "excel" for the day numbers of a spreadsheet
# header_rows = [3]                            # where a title stands above; also sheet, encoding, delimiter, decimal, thousands
[centers.exports.columns]                      # ours = "theirs"; a unit where theirs differs: { column = "Height", unit = "cm" }
patient_id = "patient_id"
exam_date = "exam_date"
sex = "sex"
birth_date = "birth_date"
lumbar_spine_t = "lumbar_spine_t"
femoral_neck_t = "femoral_neck_t"
total_hip_t = "total_hip_t"
lumbar_spine_bmd_g_cm2 = "lumbar_spine_bmd"
height_m = { column = "height_cm", unit = "cm" }

[analysis]                                     # the estimand, printed first in every report
target = "osteoporosis"                        # osteoporosis | low_bone_mass
# image_dates = [2022-01-01, 2022-12-31]
# label_dates = [2022-01-01, 2022-12-31]

[[references]]                                 # how an exam becomes a label; a recipe names one
id = "dxa_any_site"
standard = "dxa_who"                           # dxa_who | dxa_z | qct | tbs | smi
sites = ["lumbar_spine", "femoral_neck", "total_hip"]
t_source = "reported"                          # reported | computed (then t_reference is needed)

[match]
before_days = 180                              # label at most so many days before the image ...
after_days = 180                               # ... or after it
index_series = "nearest"                       # nearest | first | last | random | all
prevalence_index = "first"                     # label-blind: first | random
# label_reuse = "forbid"                       # under index_series = "all": a label stands for one series only

[[criteria]]                                   # in this order; each is a step of the flow
name = "age 50 or older"
keep = "age_at_image >= 50"                    # SQL over columns of `ospor-batch contract series`
[[criteria]]
name = "unenhanced"
rule = "unenhanced"                            # also adult, thin_slices, no_implant, without_findings, label_present ...
[[criteria]]
name = "120 kV"
rule = "kvp_120"                               # fixed HU cut-offs hold at 120 kV only

[[recipes]]
name = "mean_hu"                               # mean HU of the L1-L4 bodies
reference = "dxa_any_site"
threshold = { fixed = 110 }                    # HU; or { rule = "youden" } with a [split] that has tuning people
masks = { source = "beside", pattern = "*.nii*", labels = { L1 = 20, L2 = 21, L3 = 22, L4 = 23 } }

# A published protocol, trained here (docs/recipes.md); it needs the section [split].
# [split]
# train = 0.7
# tuning = 0.1                                 # early stopping and threshold
# internal_test = 0.2
# external = { center = ["CENTER"] }           # seen by neither
# site_tuning = { CENTER = 0.3 }               # of these: a recalibration is fitted on them, and told beside the original
# [[recipes]]
# name = "cxr_osteoporosis"                    # or ct_cnn_smi, ct_bmd_tbs, ct_qct_bmd, ldct_internal_calibration
# reference = "dxa_any_site"
# threshold = { rule = "youden" }
# model = "models/FOLDER"                      # loads a model in place of training; then threshold = { rule = "as_trained" }
# [recipes.parameters]                         # ospor-batch check prints all of them
# image_pixels = 512

# What a site may have to tell; take away the # of a section and of the lines that are needed.
# [vocabulary]                                 # its own words; regular expressions, without regard to case
# vendors = [{ name = "neusoft", patterns = ["^nsoft"] }]
# kernels = [{ vendor = "neusoft", name = "sharp", patterns = ["^f40"] }]      # soft | standard | sharp
# body_parts = [{ name = "abdomen", patterns = ["\\\\bbuik"] }]
# contrast = [{ name = "without", patterns = ["\\\\bblanco"] }]                # without | with | both | tag_plain
# [grading]
# smallest_stack = 3                           # fewer slices give no volume to measure in
# [linkage]                                    # how written patient numbers become persons
# leading_zeros = "strip"                      # keep | strip
# issuer = "key"                               # ignore | key: IssuerOfPatientID is part of the key ...
# own_issuers = ["NORTH HIS"]                  # ... save of these, whose numbers are the center's own
# crosswalk = "crosswalk.csv"                  # columns center, patient_id, person; the only thing that joins numbers

[tables]
strata = ["center", "scanner_vendor", "center*scanner_vendor", "sex", "age_band"]

[compute.cpu]
cluster = "local"                              # in_line | local | cuda | tcp://scheduler:8786
"""
TEMPLATE = """\
patient_id,exam_date,sex,birth_date,lumbar_spine_t,femoral_neck_t,total_hip_t,lumbar_spine_bmd,height_cm
EXAMPLE-1,2022-03-01,F,1955-06-30,-2.6,-1.9,-1.4,0.761,158
"""


def begin_from(export: Path, *, folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Write a study file whose export block is proposed from an export; the files written and what to look at.

    The export is named by its path from the folder; nothing of it is copied.
    """
    named = os.path.relpath(export.resolve(), folder.resolve())
    found = propose(export, name=named)
    first, last = STUDY.index("[[centers.exports]]"), STUDY.index("[analysis]")
    text = STUDY[:first] + found.toml + "\n" + STUDY[last:]
    target = folder / "study.toml"
    if target.exists():
        raise StudyError(f"{folder}: study.toml is already there; nothing was written")
    write_text(text, target=target)
    return [target], found.look_at


def begin(folder: Path) -> list[Path]:
    """Write study.toml and label_template.csv; StudyError rather than overwrite."""
    written = {folder / "study.toml": STUDY, folder / "label_template.csv": TEMPLATE}
    if there := [path.name for path in written if path.exists()]:
        raise StudyError(f"{folder}: {', '.join(there)} is already there; nothing was written")
    for path, text in written.items():
        write_text(text, target=path)
    return list(written)
