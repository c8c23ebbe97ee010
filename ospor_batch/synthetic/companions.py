"""What lies beside an axial series in the archive: coronal reformats, dose sheets and captured screens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from ospor_batch.synthetic.ct import Scan
from ospor_batch.synthetic.dose_report import Dose
from ospor_batch.synthetic.headers import Series, as_file, ct_header, decimal, patient_module
from ospor_batch.synthetic.instances import Instance, Placed, derived_pixels, templated
from ospor_batch.synthetic.lettering import page
from ospor_batch.synthetic.pixel_codecs import encode, put_pixels
from ospor_batch.synthetic.vendor import EXPLICIT

CORONAL_EVERY_MM = 10.0
SHEET = (128, 256)  # rows and columns of a dose sheet; real ones have 512 by 512


def coronal_reformats(series: Series, scan: Scan) -> Iterator[Instance]:
    """Write coronal slices through the volume from front to back, pixels as high as wide."""
    step = scan.grid.step
    length = (scan.grid.shape[0] - 1) * step[2]
    n_rows = round(length / step[0]) + 1
    at = length / step[2] - np.arange(n_rows) * step[0] / step[2]  # slice of each row, from the head
    below = np.clip(np.floor(at).astype(int), 0, max(scan.grid.shape[0] - 2, 0))
    share = np.clip(at - below, 0, 1)[:, None]
    rows = range(0, scan.grid.shape[1], max(1, round(CORONAL_EVERY_MM / step[1])))
    ds = ct_header(series, scan)
    ds.update({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"], "SeriesDescription": "COR MPR"})
    ds.update({"SliceThickness": CORONAL_EVERY_MM, "PixelSpacing": [decimal(step[0])] * 2})
    ds.update({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "Rows": n_rows, "Columns": scan.grid.shape[2]})
    if "PixelPaddingValue" in ds:
        del ds["PixelPaddingValue"]

    def placed(row: int) -> Placed:
        plane = scan.hu[:, row, :].astype(np.float64)
        reformatted = plane[below] * (1 - share) + plane[np.minimum(below + 1, len(plane) - 1)] * share
        corner = scan.grid.affine[:3] @ (0, row, len(scan.hu) - 1, 1)
        place = [decimal(round(float(v), 4)) for v in corner]
        return Placed(place, None, derived_pixels(reformatted, series.habit))

    yield from templated(series, ds, map(placed, rows))


def dose_sheet(series: Series, dose: Dose) -> Instance:
    """Write the dose page that the scanner sends as a picture."""
    lines = [series.habit.dose_name, f"CTDIVOL {dose.ctdivol_mgy:.2f} MGY", f"DLP {dose.dlp_mgy_cm:.1f} MGY-CM",
             f"{dose.kvp_kv} KV  {dose.tube_current_ma} MA", "PHANTOM BODY 32 CM"]  # fmt: skip
    ds = _capture_header(series, description=series.habit.dose_name)
    ds.BurnedInAnnotation = "YES"
    return _capture(ds, series, np.where(page(lines, shape=SHEET), 255, 0).astype(np.uint8))


def screen_capture(series: Series, scan: Scan) -> Instance:
    """Write a screen that someone saved: the middle slice in colour, with letters over it."""
    middle = scan.hu[scan.grid.shape[0] // 2].astype(np.float64)
    gray = np.clip((middle + 160) / 400 * 255, 0, 255).astype(np.uint8)
    picture = np.repeat(gray[:, :, None], 3, axis=2)
    picture[page(["L3", f"SE {series.number}"], shape=(gray.shape[0], gray.shape[1]))] = (255, 255, 0)
    ds = _capture_header(series, description="SAVED SCREEN")
    ds.BurnedInAnnotation = "YES"
    return _capture(ds, series, picture)


def _capture_header(series: Series, *, description: str) -> Dataset:
    ds = Dataset()
    ds.update(patient_module(series))
    day = f"{series.image_date:%Y%m%d}"
    ds.update({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "CT", "ConversionType": "WSD"})
    ds.update({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"], "SeriesDescription": description})
    ds.update({"Manufacturer": series.habit.manufacturer, "ManufacturerModelName": series.habit.model})
    ds.update(
        {
            "BodyPartExamined": series.habit.body_part,
            "StudyDescription": series.habit.protocol,
            "SeriesDate": day,
            "ContentDate": day,
        }
    )
    ds.update({"SeriesTime": "102200", "ContentTime": "102200", "PatientOrientation": ""})
    return ds


def _capture(ds: Dataset, series: Series, picture: NDArray[np.uint8]) -> Instance:
    is_colour = picture.ndim > 2
    ds.update({"SOPInstanceUID": series.sop_uid(1), "InstanceNumber": 1})
    ds.update({"SamplesPerPixel": 3 if is_colour else 1, "PhotometricInterpretation": "RGB" if is_colour else "MONOCHROME2"})
    if is_colour:
        ds.PlanarConfiguration = 0
    ds.update({"Rows": picture.shape[0], "Columns": picture.shape[1], "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7})
    ds.PixelRepresentation = 0
    put_pixels(ds, encode(picture, syntax=EXPLICIT, bits_stored=8), syntax=EXPLICIT)
    return Instance(1, ds.SOPInstanceUID, as_file(ds, syntax=EXPLICIT))
