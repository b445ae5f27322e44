import os
import warnings

import matplotlib
import pytest
from hypothesis import settings

matplotlib.use("Agg")
settings.register_profile("reproducible", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("reproducible")
os.environ.pop("SPEECH_CORPUS", None)


@pytest.fixture(autouse=True)
def clean_state(monkeypatch):
    """No test sees the user's corpus, and none leaves figures or the command line's way to print warnings behind."""
    monkeypatch.delenv("SPEECH_CORPUS", raising=False)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
