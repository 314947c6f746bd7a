"""The directory of a private nats-server: locked, waited for, temporary, taken away."""

import asyncio
import os
import stat
import tempfile
from pathlib import Path

import pytest

from bellwire.brokers.nats_folder import TEMPORARY, Folder
from bellwire.core.errors import ConfigError

pytestmark = pytest.mark.bellwire(clock="real")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def exists(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)


async def test_a_named_one_is_made_locked_and_left_there(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "deep" / "data")
    await folder.take()
    assert folder.lock is not None
    with pytest.raises(ConfigError, match=f"the data directory {folder.path} is in use by process {os.getpid()}: stop"):
        await Folder(folder.path).take()
    await folder.release()
    await folder.release()
    assert await exists(folder.path)
    other = Folder(folder.path)
    await other.take()
    await other.release()


async def test_a_temporary_one_is_for_its_owner_only_and_goes_when_it_is_released(base: Path) -> None:
    folder = Folder(None)
    await folder.take()
    assert folder.path.parent == base
    assert stat.S_IMODE((await asyncio.to_thread(folder.path.stat)).st_mode) == 0o700
    await asyncio.to_thread((folder.path / "file").write_text, "x")
    await folder.release()
    assert not await exists(folder.path)


async def test_what_nobody_holds_is_removed_and_nothing_else(base: Path) -> None:
    held = Folder(None)
    await held.take()
    names = ("abandoned", "unlocked", "link")
    abandoned, unlocked, link = (base / f"{TEMPORARY}{name}" for name in names)

    def leave() -> None:
        for path in (abandoned, unlocked, base / "other"):
            path.mkdir()
        for path in (abandoned, base / "other"):
            (path / "lock").write_text("1\n")
        link.symlink_to(base / "other")

    await asyncio.to_thread(leave)
    folder = Folder(None)
    await folder.take()
    assert not await exists(abandoned)
    for path in (held.path, folder.path, unlocked, base / "other" / "lock"):
        assert await exists(path)
    await folder.release()
    await held.release()


async def test_many_made_at_the_same_time_do_not_take_each_other_for_abandoned(base: Path) -> None:
    folders = [Folder(None) for _ in range(40)]
    await asyncio.gather(*(folder.take() for folder in folders))
    assert len({folder.path for folder in folders}) == 40
    for folder in folders:
        assert await exists(folder.path / "lock")
    await asyncio.gather(*(folder.release() for folder in folders))
    assert not await asyncio.to_thread(lambda: [*base.iterdir()])
