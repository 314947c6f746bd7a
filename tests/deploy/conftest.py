"""Certificates, and clients that trust them."""

from collections.abc import Iterator

import pytest

from tests.deploy.fronts import Authority
from tests.interop.conftest import node_modules as node_modules


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """An authority that Bellwire's client and Node trust while these tests run."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
            patch.setenv(variable, str(authority.pem))
        yield authority
