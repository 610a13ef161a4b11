"""What pyproject.toml cannot say: folders that stand beside the package in a checkout go into it when it is built.

:mod:`harness.util.resources` finds them in either place.
"""

from setuptools import find_packages, setup

BESIDE = {
    "harness.vm_images": "vm_images",
    "harness.testcases": "testcases",
    "harness.testcases.examples": "testcases/examples",
    "harness.testcases.lab": "testcases/lab",
    "harness.testcases.matrices": "testcases/matrices",
}

setup(
    packages=[*find_packages(include=["harness", "harness.*"]), *BESIDE],
    package_dir=BESIDE,
    package_data={
        "harness": ["py.typed"],
        "harness.doctor": ["*.txt"],
        "harness.lab.hardware": ["programs/*.py"],
        "harness.report": ["*.j2", "costs.json"],
        "harness.workloads": ["guest_programs/*.py", "guest_programs/*.cs", "jobs/*.fio"],
        "harness.testcases": ["claims.toml"],
        "harness.testcases.examples": ["*.sh"],
        "harness.testcases.matrices": ["*.toml"],
        "harness.vm_images": ["**/*"],
    },
    # An editor's backups and a compiler's leavings are no part of it, as for the digest of a recipe.
    exclude_package_data={"": ["*~", "__pycache__/*", "*.pyc"]},
    include_package_data=False,
)
