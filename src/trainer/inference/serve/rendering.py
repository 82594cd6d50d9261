"""Requests become prompts in a process of their own, which is started anew where it ends."""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.child_environment import harmless_environment
from trainer.errors import ConfigError
from trainer.inference.serve.refusals import Refusal
from trainer.inference.serve.render_worker import MAX_ANSWER_BYTES, ending
from trainer.inference.thoughts import THINK, ThoughtMarkers
from trainer.inference.tool_calls import CallForm


@dataclass(frozen=True, slots=True)
class Prompt:
    """The ids that the model gets, and whether it continues them within a thought."""

    ids: list[int]
    opens_thought: bool = False


class PromptRenderer:
    """Renders with the template of the tokenizer in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stops: list[int] = []
        self.call_form: CallForm | None = None
        self.thoughts: ThoughtMarkers = THINK
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._num_requests = 0

    async def start(self) -> None:
        """Raises: ConfigError, when the tokenizer cannot be read or its template is too slow."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # not what lies in the current folder
            "-m",
            "trainer.inference.serve.render_worker",
            str(self.folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process
            env=harmless_environment(),
            limit=MAX_ANSWER_BYTES,
        )
        try:
            hello = await self._read()
        except BaseException:
            await self.stop()
            raise
        if "error" in hello:
            await self.stop()
            raise ConfigError(f"{self.folder}: the chat template cannot be used: {hello['error']}")
        self.stops = hello["stops"]
        self.call_form = CallForm.from_json(hello["call_form"]) if hello["call_form"] else None
        self.thoughts = ThoughtMarkers.from_json(hello["thoughts"])

    async def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> Prompt:
        """The prompt that the model gets. Raises: Refusal, when the template refuses, or takes too long."""
        async with self._turn:
            if self._process is None or self._process.returncode is not None:
                await self.start()
            assert self._process is not None
            assert self._process.stdin is not None
            self._num_requests += 1
            request = {"id": self._num_requests, "messages": list(messages), "tools": list(tools) if tools else None}
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            answer = await self._read(self._num_requests)
        if "error" in answer:
            raise Refusal(400, answer["error"], "invalid_messages", "messages")
        return Prompt(answer["ids"], answer["opens_thought"])

    async def _read(self, request: int | None = None) -> dict[str, Any]:
        """The answer to a request. Those to earlier ones, which were given up, are left out."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        while line := await process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if answer.get("id") == request:
                return answer
        return {"error": ending(await process.wait())}

    async def stop(self) -> None:
        """End the process; its copy ends when it finds nobody to read from."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
