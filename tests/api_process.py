"""`trainer api` as a process of its own: one that can be killed, and whose memory can be looked at."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

KEY = "a-key-for-tests"
BOUNDARY = "the-boundary-of-the-tests"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="train.jsonl"\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()


class ApiProcess:
    """A server that answers."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process, self.address = process, address
        self.port = int(address.rpartition(":")[2].partition("/")[0])

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()

    def memory(self, what: str) -> int:
        """Bytes by a line of /proc/PID/status: VmRSS is now, VmHWM the most since `forget_peak`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{what}:")).split()[1]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def upload(self, num_bytes: int, piece: bytes) -> tuple[int, bytes]:
        """Send a file that repeats `piece`, without holding it; the status and body of the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.putrequest("POST", "/v1/files")
        connection.putheader("Authorization", f"Bearer {KEY}")
        connection.putheader("Content-Type", FORM)
        connection.putheader("Content-Length", str(len(HEAD) + num_bytes + len(TAIL)))
        connection.endheaders(HEAD)
        for at in range(0, num_bytes, len(piece)):
            connection.send(piece[: num_bytes - at])
        connection.send(TAIL)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body


@contextmanager
def api_process(root: Path, *command: str) -> Iterator[ApiProcess]:
    """Start `trainer api`, or another command, for a folder of runs on a free port; it ends with the block."""
    command = (sys.executable, "-m", "trainer", *(command or ("api",)), "--port", "0", "--root", str(root))
    environment = os.environ | {"TRAINER_API_KEY": KEY}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.wait(5)
        yield ApiProcess(process, address)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        process.stdout.close()
