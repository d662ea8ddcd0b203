"""A real baresip as a phone: it plays a tone, records what it hears, and is told what to do over its control port."""

import json
import math
import socket
import subprocess
import time
import wave
from array import array
from pathlib import Path
from typing import Self

from tests.integration.proxy import free_port

MODULES = Path("/usr/lib/baresip/modules")


class Baresip:
    """One user agent on loopback, registered over the proxy at `proxy_port`."""

    def __init__(
        self, folder: Path, user: str, proxy_port: int, tone: int, *, encryption: str = "", host: str = "127.0.0.1", flows: str = ""
    ) -> None:
        self.user, self.folder = user, folder / user
        self.heard = self.folder / "heard"
        self.heard.mkdir(parents=True)
        self._control = free_port()
        lines = [
            "poll_method epoll",
            f"sip_listen {host}:{free_port(host)}",
            "call_local_timeout 120",
            f"audio_source ausine,{tone}",
            "audio_player aubridge,nothing",
            "audio_alert aubridge,nothing",
            "audio_level no",
            # All that it makes tones of.
            "ausrc_srate 48000",
            "auplay_srate 48000",
            "ausrc_channels 2",
            "auplay_channels 2",
            f"snd_path {self.heard}",
            f"ctrl_tcp_listen 127.0.0.1:{self._control}",
            f"module_path {MODULES}",
            *(f"module {name}.so" for name in ("g711", "ausine", "aubridge", "sndfile", "ctrl_tcp", *(["srtp"] if encryption else []))),
            "module_tmp uuid.so",
            "module_app account.so",
            "module_app menu.so",
        ]
        (self.folder / "config").write_text("\n".join(lines) + "\n")
        secure = f";mediaenc={encryption}" if encryption else ""
        account = (
            f'<sip:{user}@edge.example>;auth_pass=secret;outbound="sip:127.0.0.1:{proxy_port}";regint=600;answermode=auto{secure}{flows}\n'
        )
        (self.folder / "accounts").write_text(account)
        (self.folder / "contacts").write_text("")
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(["baresip", "-f", str(self.folder)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def tell(self, command: str, params: str = "") -> None:
        """Give a command, as its menu has them."""
        text = json.dumps({"command": command, "params": params, "token": "t"}).encode()
        for _ in range(50):
            try:
                with socket.create_connection(("127.0.0.1", self._control), timeout=2) as control:
                    control.sendall(b"%d:%s," % (len(text), text))
                    control.recv(4_096)
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"baresip of {self.user} takes no commands: {self.log}")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def says(self, text: str, seconds: float = 10) -> bool:
        """Whether its log says `text` in time."""
        end = time.monotonic() + seconds
        while text not in self.log:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def tones(self) -> list[int]:
        """Return the frequency of each whole second that it heard, 0 for silence; the files are whole once it has ended."""
        found = []
        for file in sorted(self.heard.glob("*dec*.wav")):
            with wave.open(str(file)) as sound:
                rate = sound.getframerate()
                samples = array("h", sound.readframes(sound.getnframes()))[:: sound.getnchannels()]
            found += [_tone(samples[start : start + rate], rate) for start in range(0, len(samples) - rate + 1, rate)]
        return found

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _tone(samples: "array[int]", rate: int) -> int:
    """Return the strongest of the tones that tests use, or 0 where none stands out."""
    strengths = {}
    total = sum(sample * sample for sample in samples) / len(samples)
    for tone in (440, 600, 800, 1_000):
        step = 2 * math.pi * tone / rate
        real = sum(sample * math.cos(step * index) for index, sample in enumerate(samples))
        imaginary = sum(sample * math.sin(step * index) for index, sample in enumerate(samples))
        strengths[tone] = 2 * (real * real + imaginary * imaginary) / len(samples) ** 2
    best = max(strengths, key=lambda tone: strengths[tone])
    return best if total > 1_000 and strengths[best] > 0.5 * total else 0
