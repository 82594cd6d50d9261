"""Requests become prompts in a process of its own, which is started anew when a template kills it."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trainer
from trainer.errors import ConfigError
from trainer.inference.serve.refusals import Refusal
from trainer.inference.serve.render_worker import MAX_SECONDS
from trainer.inference.tool_calls import CallForm

ANSWER_BYTES = 64 * 1024**2  # of one line: the ids of a prompt
OWN_ROOT = str(Path(trainer.__file__).parents[1])
SECRETS = ("TRAINER_API_KEY", "HF_TOKEN")  # a template has no use for them


class PromptRenderer:
    """Renders with the template of the tokenizer in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stops: list[int] = []
        self.call_form: CallForm | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Raises: ConfigError, when the tokenizer cannot be read or its template is too slow."""
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        # This package may lie beside a scoring script and not be installed: the new process has to find it too.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [OWN_ROOT, environment.get("PYTHONPATH")]))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # not what lies in the current folder
            "-m",
            "trainer.inference.serve.render_worker",
            str(self.folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            limit=ANSWER_BYTES,
        )
        hello = await self._read()
        if "error" in hello:
            await self.stop()
            raise ConfigError(f"{self.folder}: the chat template cannot be used: {hello['error']}")
        self.stops = hello["stops"]
        self.call_form = CallForm.from_json(hello["call_form"]) if hello["call_form"] else None

    async def prompt(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> list[int]:
        """The ids that the model gets. Raises: Refusal, when the template refuses, or takes too long."""
        request = json.dumps({"messages": list(messages), "tools": list(tools) if tools else None})
        async with self._turn:
            if self._process is None or self._process.returncode is not None:
                await self.start()
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(request.encode() + b"\n")
            answer = await self._read()
        if "error" in answer:
            raise Refusal(400, answer["error"], "invalid_messages", "messages")
        ids: list[int] = answer["ids"]
        return ids

    async def _read(self) -> dict[str, Any]:
        """The next line; a process that ended, as it does when the time is up, has none."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
        except BaseException:
            process.kill()  # else the next request would get this one's answer
            self._process = None
            raise
        if not line:
            code = await process.wait()
            if code > 0:  # it ended by itself: nothing was rendered
                return {"error": f"the process that renders it ended with exit code {code}"}
            return {"error": f"the chat template did not finish these messages within {MAX_SECONDS:g} seconds"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
