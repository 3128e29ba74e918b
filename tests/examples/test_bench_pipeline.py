"""The benchmark of the input pipeline runs, and says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow  # a fresh interpreter; it binds itself to one core
def test_the_benchmark_measures_decoding_and_both_streams():
    small = ["--pictures", "8", "--batches", "2", "--batch-size", "8", "--image-size", "64", "--json"]
    command = [sys.executable, "examples/bench_pipeline.py", *small]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    rates = json.loads(result.stdout)
    assert len(rates) == 3
    assert all(rate > 0 for rate in rates.values())
