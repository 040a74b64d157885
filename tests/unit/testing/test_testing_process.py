"""The model server as a process, and what importing the package costs."""

import signal
import subprocess
import sys

import pytest
from openai import OpenAI

MODULE = [sys.executable, "-m", "pgrun.testing"]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_a_signal_comes(ending: signal.Signals) -> None:
    with subprocess.Popen(
        [*MODULE, "--delay", "0.01"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        base_url = process.stdout.readline().strip()
        with OpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
            assert client.responses.create(model="m", input="Hi").output_text == "A made-up answer to: Hi"
        process.send_signal(ending)
        assert process.wait(5) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""


def test_a_taken_port_is_a_usage_error() -> None:
    with subprocess.Popen(MODULE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        port = first.stdout.readline().strip().split(":")[2].removesuffix("/v1")
        second = subprocess.run([*MODULE, "--port", port], capture_output=True, text=True, check=False)
        first.terminate()
        assert first.wait(5) == 0
    assert (second.returncode, second.stdout) == (2, "")
    assert "in use" in second.stderr


def test_importing_the_package_imports_no_server() -> None:
    code = "import sys, pgrun.testing; print({'uvicorn', 'starlette'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
