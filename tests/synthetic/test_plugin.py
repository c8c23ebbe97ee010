"""The pytest plug-in gives other people's tests what it promises."""

from __future__ import annotations

import pytest

from ospor_batch.synthetic.faults import FAULTS

pytest_plugins = ["pytester"]

OTHERS_TESTS = """
import pydicom
import pytest
from ospor_batch.synthetic.pytest_plugin import VENDORS, fault_names

@pytest.mark.parametrize("vendor", VENDORS)
def test_each_vendor(ospor_series, vendor):
    made = ospor_series(vendor)
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for f in made.files if not f.name.endswith(".nii.gz")]
    assert {h.Modality for h in headers} == {"CT"}
    assert made.person.vendor == vendor
    assert ospor_series(vendor) is made

def test_a_fault(ospor_series):
    made = ospor_series("siemens", fault="truncated_header")
    assert [why for why in made.expected.values() if why not in (None, "nifti")] == ["truncated"]

def test_unknown_words(ospor_series):
    with pytest.raises(pytest.UsageError, match="no vendor"):
        ospor_series("acme")
    with pytest.raises(pytest.UsageError, match="no fault"):
        ospor_series("ge", fault="gremlin")
    assert len(fault_names()) == %d

def test_the_study(ospor_study, ospor_archive):
    assert ospor_study.name == "study.toml"
    assert sorted(p.name for p in ospor_archive.iterdir()) == ["east", "north", "south", "west"]
    assert (ospor_study.parent / "truth_file.parquet").is_file()
"""


def test_fixtures_serve_a_stranger(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OTHERS_TESTS % len(FAULTS))
    plugin = () if _is_installed() else ("-p", "ospor_batch.synthetic.pytest_plugin")
    pytester.runpytest("-q", "-p", "no:cacheprovider", *plugin).assert_outcomes(passed=7)


def _is_installed() -> bool:
    """Whether pytest loads the plug-in by its entry point."""
    from importlib.metadata import entry_points

    return any(found.value == "ospor_batch.synthetic.pytest_plugin" for found in entry_points(group="pytest11"))
