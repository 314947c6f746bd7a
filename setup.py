"""The compiled part, for which pyproject.toml has no lasting words yet. Python does its work where it is missing."""

import sysconfig

from setuptools import Extension, setup

if sysconfig.get_config_var("Py_GIL_DISABLED"):  # up to 3.14 it has no limited interface, and no wheel may claim one
    setup()
else:
    setup(
        ext_modules=[
            Extension(
                "bellwire.transports._writes",
                ["src/bellwire/transports/_writes.c"],
                py_limited_api=True,  # one wheel for Python 3.11 and all that follow
                optional=True,
            )
        ],
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
