"""The stock clients of the tests of interoperation."""

from tests.interop.conftest import node_modules as node_modules
