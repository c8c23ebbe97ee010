"""Enhanced multi-frame CT: a whole volume in one file, its geometry and rescale in functional groups (PS3.3 A.38)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import Code, codes
from pydicom.uid import EnhancedCTImageStorage

from ospor_batch.synthetic.ct import Scan
from ospor_batch.synthetic.headers import (
    BODY_PHANTOM,
    Series,
    as_file,
    code_item,
    matrix,
    orientation_of,
    shared_header,
    spacing_of,
)
from ospor_batch.synthetic.instances import Instance, slice_order, stored_values
from ospor_batch.synthetic.pixel_codecs import encode, put_pixels
from ospor_batch.synthetic.vendor import EXPLICIT

FRAME_TYPE = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
ROTATION_S = 0.5  # declared


def enhanced_ct(series: Series, scan: Scan) -> Instance:
    """Write a CT volume as one enhanced multi-frame object, frames in the order of the scanner."""
    habit, ds = series.habit, shared_header(series)
    order = slice_order(habit, scan.grid.shape[0])
    ds.update({"SOPClassUID": EnhancedCTImageStorage, "SOPInstanceUID": series.sop_uid(1), "InstanceNumber": 1})
    ds.update({"Modality": "CT", "PatientPosition": "HFS", "ImageType": FRAME_TYPE, "VolumetricProperties": "VOLUME"})
    ds.update({"Manufacturer": habit.manufacturer, "ManufacturerModelName": habit.model, "SoftwareVersions": habit.software})
    ds.update({"StudyDescription": habit.protocol, "ProtocolName": habit.protocol, "BodyPartExamined": habit.body_part})
    ds.update({"SeriesDescription": f"{habit.description} MF", "AcquisitionNumber": 1, "AcquisitionDuration": 6.2})
    ds.update({"AcquisitionDateTime": f"{series.image_date:%Y%m%d}101540", "VolumeBasedCalculationTechnique": "NONE"})
    ds.update({"PixelPresentation": "MONOCHROME", "ContentQualification": "PRODUCT", "BurnedInAnnotation": "NO"})
    ds.update({"LossyImageCompression": "00", "PresentationLUTShape": "IDENTITY", "AcquisitionContextSequence": []})
    ds.update({"FrameOfReferenceUID": series.frame_uid, "PositionReferenceIndicator": ""})
    del ds.AcquisitionDate, ds.AcquisitionTime  # AcquisitionDateTime stands in their place
    if series.is_contrast:
        ds.ContrastBolusAgentSequence = [_contrast_agent()]
    _dimensions(ds, series)
    matrix(ds, scan.grid.shape[1:], bits_stored=habit.bits_stored, is_signed=habit.is_signed)
    ds.NumberOfFrames = len(order)
    ds.SharedFunctionalGroupsSequence = [_shared(series, scan)]
    ds.PerFrameFunctionalGroupsSequence = [_frame(series, scan, k=k, number=n) for n, k in enumerate(order, start=1)]
    stored = stored_values(scan, habit)[np.array(order)]
    put_pixels(ds, encode(stored, syntax=EXPLICIT, bits_stored=habit.bits_stored), syntax=EXPLICIT)
    return Instance(1, ds.SOPInstanceUID, as_file(ds, syntax=EXPLICIT))


def _dimensions(ds: Dataset, series: Series) -> None:
    organization, index, stack = Dataset(), Dataset(), Dataset()
    organization.DimensionOrganizationUID = series.uid_of("dimensions", series.number)
    for item, pointer in ((stack, 0x00209056), (index, 0x00209057)):  # StackID, InStackPositionNumber in FrameContentSequence
        item.DimensionOrganizationUID = organization.DimensionOrganizationUID
        item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, 0x00209111
    ds.update({"DimensionOrganizationSequence": [organization], "DimensionIndexSequence": [stack, index]})


def _contrast_agent() -> Dataset:
    agent = code_item(Code("353962003", "SCT", "Iodinated contrast agent"))
    agent.update({"ContrastBolusAgentNumber": 1, "ContrastBolusVolume": "90"})
    agent.ContrastBolusIngredientCodeSequence = [code_item(Code("44588005", "SCT", "Iodine"))]
    agent.ContrastBolusAdministrationRouteSequence = [code_item(Code("47625008", "SCT", "Intravenous route"))]
    agent.ContrastBolusIngredientConcentration = 350.0
    return agent


def _item(**values: Any) -> Dataset:
    item = Dataset()
    item.update(values)
    return item


def _shared(series: Series, scan: Scan) -> Dataset:
    habit, groups = series.habit, Dataset()
    extent = scan.grid.shape[2] * scan.grid.step[0]
    anatomy = _item(FrameLaterality="U")
    anatomy.AnatomicRegionSequence = [code_item(codes.SCT.Abdomen)]
    groups.update(
        {
            "PixelMeasuresSequence": [
                _item(
                    PixelSpacing=spacing_of(scan.grid),
                    SliceThickness=scan.grid.thickness,
                    SpacingBetweenSlices=scan.grid.step[2],
                )
            ],
            "PlaneOrientationSequence": [_item(ImageOrientationPatient=orientation_of(scan.grid))],
            "FrameAnatomySequence": [anatomy],
            "FrameVOILUTSequence": [_item(WindowCenter="40", WindowWidth="400")],
            "PixelValueTransformationSequence": [
                _item(RescaleIntercept=str(habit.intercept), RescaleSlope="1", RescaleType="HU")
            ],
            "CTImageFrameTypeSequence": [
                _item(
                    FrameType=FRAME_TYPE,
                    PixelPresentation="MONOCHROME",
                    VolumetricProperties="VOLUME",
                    VolumeBasedCalculationTechnique="NONE",
                )
            ],
            "CTAcquisitionTypeSequence": [_item(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")],
            "CTAcquisitionDetailsSequence": [
                _item(
                    RotationDirection="CW",
                    RevolutionTime=ROTATION_S,
                    SingleCollimationWidth=0.625,
                    TotalCollimationWidth=40.0,
                    TableHeight=150.0,
                    GantryDetectorTilt=scan.grid.tilt_deg,
                    DataCollectionDiameter=500.0,
                )
            ],
            "CTTableDynamicsSequence": [_item(TableSpeed=78.7, TableFeedPerRotation=39.375, SpiralPitchFactor=0.984)],
            "CTGeometrySequence": [_item(DistanceSourceToDetector=950.0, DistanceSourceToDataCollectionCenter=541.0)],
            "CTReconstructionSequence": [
                _item(
                    ReconstructionAlgorithm="FILTER_BACK_PROJ",
                    ConvolutionKernel="STANDARD",
                    ConvolutionKernelGroup="SOFT_TISSUE",
                    ReconstructionDiameter=extent,
                    ReconstructionPixelSpacing=[scan.grid.step[1], scan.grid.step[0]],
                    ReconstructionAngle=360.0,
                    ImageFilter="NONE",
                )
            ],
            "IrradiationEventIdentificationSequence": [
                _item(IrradiationEventUID=series.uid_of("irradiation event", series.number))
            ],
            "CTExposureSequence": [_exposure()],
            "CTXRayDetailsSequence": [
                _item(
                    KVP=str(scan.kvp_kv),
                    FocalSpots=[1.2],
                    FilterType="WEDGE",
                    FilterMaterial="TEFLON",
                    CalciumScoringMassFactorDevice=[0.74, 0.79, 0.82],
                )
            ],
        }
    )
    if series.is_contrast:
        groups.ContrastBolusUsageSequence = [
            _item(
                ContrastBolusAgentNumber=1,
                ContrastBolusAgentAdministered="YES",
                ContrastBolusAgentDetected="YES",
                ContrastBolusAgentPhase="PORTAL_VENOUS",
            )
        ]
    return groups


def _exposure() -> Dataset:
    exposure = _item(
        ExposureTimeInms=500.0, XRayTubeCurrentInmA=180.0, ExposureInmAs=90.0, ExposureModulationType="NONE", CTDIvol=8.0
    )
    exposure.CTDIPhantomTypeCodeSequence = [code_item(BODY_PHANTOM)]
    return exposure


def _frame(series: Series, scan: Scan, *, k: int, number: int) -> Dataset:
    x, y, z = scan.grid.origin
    at = round(z + k * scan.grid.step[2], 4)
    moment = f"{series.image_date:%Y%m%d}101540"
    groups = Dataset()
    groups.FrameContentSequence = [
        _item(
            FrameAcquisitionNumber=1,
            FrameReferenceDateTime=moment,
            FrameAcquisitionDateTime=moment,
            FrameAcquisitionDuration=500.0,
            StackID="1",
            InStackPositionNumber=number,
            DimensionIndexValues=[1, number],
        )
    ]
    groups.PlanePositionSequence = [_item(ImagePositionPatient=[x, y, at])]
    groups.CTPositionSequence = [
        _item(TablePosition=at, ReconstructionTargetCenterPatient=[0.0, 0.0, at], DataCollectionCenterPatient=[0.0, 0.0, at])
    ]
    return groups
