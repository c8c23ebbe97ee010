"""The X-ray radiation dose report of a CT examination as a DICOM structured report (PS3.16 TID 10011)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sr.codedict import Code
from pydicom.uid import XRayRadiationDoseSRStorage

from ospor_batch.synthetic.ct import Scan
from ospor_batch.synthetic.headers import BODY_PHANTOM, Series, as_file, code_item, patient_module
from ospor_batch.synthetic.instances import Instance
from ospor_batch.synthetic.vendor import EXPLICIT

CT = Code("77477000", "SCT", "Computed Tomography X-Ray")
AUTOMATED = Code("113856", "DCM", "Automated Data Collection")
MGY_CM = Code("mGy.cm", "UCUM", "mGy.cm")
MGY, KV, MA = Code("mGy", "UCUM", "mGy"), Code("kV", "UCUM", "kV"), Code("mA", "UCUM", "mA")
ONE, MM, SECOND = Code("1", "UCUM", "no units"), Code("mm", "UCUM", "mm"), Code("s", "UCUM", "s")


@dataclass(frozen=True)
class Dose:
    """What the scanner says of one acquisition."""

    ctdivol_mgy: float
    dlp_mgy_cm: float
    kvp_kv: int
    tube_current_ma: int
    length_mm: float


def dose_of(series: Series, scan: Scan) -> Dose:
    """The protocol's CTDIvol, which follows weight and the 2.5th power of the voltage, and the dose-length product."""
    length = scan.grid.shape[0] * scan.grid.step[2]
    ctdi = scan.ctdivol_mgy * (series.person.weight_kg / 65) * (scan.kvp_kv / 120) ** 2.5
    return Dose(round(ctdi, 2), round(ctdi * length / 10, 1), scan.kvp_kv, 180, length)


def dose_report(series: Series, dose: Dose) -> Instance:
    """Write the structured report of one CT acquisition."""
    ds = Dataset()
    ds.update(patient_module(series))
    day = f"{series.image_date:%Y%m%d}"
    ds.update({"SOPClassUID": XRayRadiationDoseSRStorage, "SOPInstanceUID": series.sop_uid(1), "Modality": "SR"})
    ds.update({"InstanceNumber": 1, "SeriesDate": day, "SeriesTime": "102100", "ContentDate": day, "ContentTime": "102100"})
    ds.update({"Manufacturer": series.habit.manufacturer, "ManufacturerModelName": series.habit.model})
    ds.update({"DeviceSerialNumber": f"GEN-{series.person.center[0].upper()}1", "SoftwareVersions": series.habit.software})
    ds.update({"SeriesDescription": "Dose Record", "StudyDescription": series.habit.protocol})
    ds.update({"CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "ReferencedPerformedProcedureStepSequence": []})
    ds.PerformedProcedureCodeSequence = []
    ds.update(_report(series, dose))
    template = Dataset()
    template.update({"MappingResource": "DCMR", "TemplateIdentifier": "10011"})
    ds.ContentTemplateSequence = [template]
    return Instance(1, ds.SOPInstanceUID, as_file(ds, syntax=EXPLICIT))


def _report(series: Series, dose: Dose) -> Dataset:
    total = Code("113812", "DCM", "Total Number of Irradiation Events")
    accumulated = _container("113811", "CT Accumulated Dose Data", [
        _number(total, 1, ONE), _number(Code("113813", "DCM", "CT Dose Length Product Total"), dose.dlp_mgy_cm, MGY_CM),
    ])  # fmt: skip
    root = _container("113701", "X-Ray Radiation Dose Report", [
        _code("HAS CONCEPT MOD", Code("121058", "DCM", "Procedure reported"), CT),
        _code("HAS OBS CONTEXT", Code("121005", "DCM", "Observer Type"), Code("121007", "DCM", "Device")),
        _uid("HAS OBS CONTEXT", Code("121012", "DCM", "Device Observer UID"), series.uid_of("device")),
        _code("HAS OBS CONTEXT", Code("113705", "DCM", "Scope of Accumulation"), Code("113014", "DCM", "Study"), [
            _uid("HAS PROPERTIES", Code("110180", "DCM", "Study Instance UID"), series.study_uid)]),
        accumulated,
        _acquisition(series, dose),
        _code("CONTAINS", Code("113854", "DCM", "Source of Dose Information"), AUTOMATED),
    ])  # fmt: skip
    del root["RelationshipType"]
    return root


def _acquisition(series: Series, dose: Dose) -> Dataset:
    parameters = _container("113822", "CT Acquisition Parameters", [
        _number(Code("113824", "DCM", "Exposure Time"), 6.2, SECOND),
        _number(Code("113825", "DCM", "Scanning Length"), round(dose.length_mm, 1), MM),
        _number(Code("113826", "DCM", "Nominal Single Collimation Width"), 0.625, MM),
        _number(Code("113827", "DCM", "Nominal Total Collimation Width"), 40, MM),
        _number(Code("113823", "DCM", "Number of X-Ray Sources"), 1, ONE),
        _container("113831", "CT X-Ray Source Parameters", [
            _text(Code("113832", "DCM", "Identification of the X-Ray Source"), "1"),
            _number(Code("113733", "DCM", "KVP"), dose.kvp_kv, KV),
            _number(Code("113833", "DCM", "Maximum X-Ray Tube Current"), dose.tube_current_ma + 40, MA),
            _number(Code("113734", "DCM", "X-Ray Tube Current"), dose.tube_current_ma, MA),
        ]),
    ])  # fmt: skip
    told = _container("113829", "CT Dose", [
        _number(Code("113830", "DCM", "Mean CTDIvol"), dose.ctdivol_mgy, MGY),
        _code("CONTAINS", Code("113835", "DCM", "CTDIw Phantom Type"),
              BODY_PHANTOM),
        _number(Code("113838", "DCM", "DLP"), dose.dlp_mgy_cm, MGY_CM),
    ])  # fmt: skip
    return _container("113819", "CT Acquisition", [
        _text(Code("125203", "DCM", "Acquisition Protocol"), series.habit.protocol),
        _code("CONTAINS", Code("123014", "DCM", "Target Region"), Code("421060004", "SCT", "Spine")),
        _code("CONTAINS", Code("113820", "DCM", "CT Acquisition Type"), Code("116152004", "SCT", "Spiral Acquisition")),
        _uid("CONTAINS", Code("113769", "DCM", "Irradiation Event UID"), series.uid_of("irradiation event")),
        parameters, told,
    ])  # fmt: skip


def _item(value_type: str, relationship: str, concept: Code, content: Sequence[Dataset] = ()) -> Dataset:
    item = Dataset()
    item.update({"RelationshipType": relationship, "ValueType": value_type})
    item.ConceptNameCodeSequence = [code_item(concept)]
    if content:
        item.ContentSequence = list(content)
    return item


def _container(value: str, meaning: str, content: Sequence[Dataset]) -> Dataset:
    item = _item("CONTAINER", "CONTAINS", Code(value, "DCM", meaning), content)
    item.ContinuityOfContent = "SEPARATE"
    return item


def _code(relationship: str, concept: Code, value: Code, content: Sequence[Dataset] = ()) -> Dataset:
    item = _item("CODE", relationship, concept, content)
    item.ConceptCodeSequence = [code_item(value)]
    return item


def _uid(relationship: str, concept: Code, value: str) -> Dataset:
    item = _item("UIDREF", relationship, concept)
    item.UID = value
    return item


def _text(concept: Code, value: str) -> Dataset:
    item = _item("TEXT", "CONTAINS", concept)
    item.TextValue = value
    return item


def _number(concept: Code, value: float, unit: Code) -> Dataset:
    measured, item = Dataset(), _item("NUM", "CONTAINS", concept)
    measured.NumericValue = f"{value:g}"
    measured.MeasurementUnitsCodeSequence = [code_item(unit)]
    item.MeasuredValueSequence = [measured]
    return item
