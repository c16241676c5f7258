"""An OpenAI-compatible server in a thread: answers chat completions as a model would, and misbehaves on demand."""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]  # status, headers, body
Behave = Callable[[int, dict[str, Any]], Reply | None]  # (number of the request, its body) -> None: answer as usual


@dataclass(slots=True)
class Chat:
    """What the server was asked; `behave` may answer in its place."""

    url: str = ""
    behave: Behave = lambda number, body: None
    requests: list[dict[str, Any]] = field(default_factory=list)  # bodies
    headers: list[Message] = field(default_factory=list)  # read by name in any case
    at_once: int = 0  # most requests in work at a time
    stop: Callable[[], None] = lambda: None  # the server goes away


def completion(text: str | None) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def answer(prompt: str) -> str:
    """What a model that reads the `full` prompts might write; a function of the prompt."""
    if "<query>" in prompt:
        return "<query>look for a mug</query>"
    if "<rank>" in prompt:
        return "<rank>2,1</rank>"
    actions = re.findall(r"'([^']+)'", prompt.rpartition("Admissible actions:")[2])
    return f"<think>Let me see.</think><action>{actions[zlib.crc32(prompt.encode()) % len(actions)]}</action>"


@contextmanager
def chat_server() -> Iterator[Chat]:
    chat, lock, busy = Chat(), threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                busy[0] += 1
                chat.at_once = max(chat.at_once, busy[0])
                chat.requests.append(body)
                chat.headers.append(self.headers)
                number = len(chat.requests)
            reply = chat.behave(number, body)
            if reply is None and self.path != "/v1/chat/completions":
                reply = (404, {}, b"no such page")
            status, headers, content = reply or (200, {}, completion(answer(body["messages"][0]["content"])))
            with lock:
                busy[0] -= 1
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *ignored: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64  # with 5, a burst would wait a second

    server = Server(("127.0.0.1", 0), Handler)
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    chat.stop = stop
    thread.start()
    try:
        yield chat
    finally:
        stop()
