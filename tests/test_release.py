"""A tag finds what the release workflow asks for: one version everywhere, and notes for it in the changelog."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import cast_sdk

ROOT = Path(__file__).parent.parent
VERSION = cast_sdk.__version__


def test_the_version_is_the_same_everywhere():
    assert f'"{VERSION}"' in (ROOT / "cast_sdk" / "_version.py").read_text()
    assert re.search(rf"^version: {re.escape(VERSION)}$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert re.search(rf"^## \[{re.escape(VERSION)}\]", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_the_workflow_finds_notes_of_this_version():
    workflow = ROOT / ".github" / "workflows" / "release.yml"
    command = re.search(r"run: (awk .*) > notes\.md", workflow.read_text()).group(1)
    environment = {"GITHUB_REF_NAME": f"v{VERSION}", "PATH": "/usr/bin:/bin"}
    shell = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert shell.returncode == 0 and "### Added" in shell.stdout
    assert not re.search(r"^## ", shell.stdout, re.M), "one version's notes alone"
