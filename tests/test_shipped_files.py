"""The configs are in a wheel, can be found and copied, and plain pip is told where to read on."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError

from allennlp_metaner.configs import configs_directory, main

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "training_configs"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*sonnet"))


def test_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert configs_directory() == CONFIGS
    main([])
    main(["--copy", str(tmp_path / "mine")])
    assert capsys.readouterr().out.split() == [str(CONFIGS), str(tmp_path / "mine")]
    assert names(tmp_path / "mine") == names(CONFIGS)
    copied, own = (
        Params.from_file(str(folder / "small/meta_en.jsonnet")) for folder in (tmp_path / "mine", CONFIGS)
    )
    assert copied.as_dict(quiet=True) == own.as_dict(quiet=True)
    with pytest.raises(ConfigurationError, match="mine is there already"):
        main(["--copy", str(tmp_path / "mine")])


def test_wheel(tmp_path: Path) -> None:
    """What `pip wheel` and `uv build` would call, with what it writes outside of the clone."""
    code = (
        "import sys; out = sys.argv[1]; "
        "sys.argv = ['setup.py', '-q', 'egg_info', '-e', out, 'build', '-b', out, 'bdist_wheel', '-d', out]; "
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PIP_BUILD_TRACKER"}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    inside = zipfile.ZipFile(wheel).namelist()
    prefix = "allennlp_metaner/training_configs/"
    assert sorted(name.removeprefix(prefix) for name in inside if name.startswith(prefix)) == names(CONFIGS)
    assert {name.split("/")[0] for name in inside if ".dist-info" not in name} == {"allennlp_metaner"}


def test_plain_pip_is_told_how_to_install(tmp_path: Path) -> None:
    """pip says `ResolutionImpossible` after it has downloaded half a gigabyte; this says why before that."""
    code = (
        "import setuptools, site, sys, sysconfig; folder = sys.argv[1]; sys.argv = ['setup.py', '--name']; "
        "sysconfig.get_path = site.getusersitepackages = lambda *_: folder; "
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'))"
    )

    def run(**variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PIP_BUILD_TRACKER": str(tmp_path), **variables},
            capture_output=True,
            text=True,
        )

    refused = run()
    assert refused.returncode != 0
    assert "README.md" in refused.stderr and "requirements/pip.txt" in refused.stderr
    assert run(PIP_NO_DEPS="1").stdout.strip() == "allennlp-metaner"
    # After AllenNLP was installed without its requirements, as README.md says, it goes on.
    (tmp_path / "allennlp").mkdir()
    assert run().stdout.strip() == "allennlp-metaner"
