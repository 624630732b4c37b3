"""Every test prepares its data in a place of its own."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache; nothing from the environment."""
    monkeypatch.delenv("CAMRI_DATA_DIR", raising=False)
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"
