"""A command as it is, its output passed on byte by byte and copied on the way.

The command keeps our standard input, terminal, process group and working directory. Where our output is a terminal it
gets a terminal, where it is a pipe a pipe, and where it is a file the very same file, which is read behind its back. A
signal that somebody sends to us goes on to the command; those that the terminal sends reach it by themselves.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import selectors
import signal
import stat
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Sequence

CHUNK = 64 << 10
DRAIN_SECONDS = 2.0
"""How long what other processes of the command still print is waited for, once the command itself has ended."""
POLL_SECONDS = 0.05
FORWARDED = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
                       signal.SIGWINCH))
BY_TERMINAL = 128
"""si_code of a signal that the kernel sent, and thus to the whole process group."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""What a shell exits with for such a command."""
Hear = Callable[[int, bytes], None]
"""Gets the stream (1 or 2) and bytes of it; must not raise."""


class Channel:
    """Where the command writes one of our streams, or both where they are the same."""

    def __init__(self, streams: Sequence[int], hear: Hear) -> None:
        self.streams, self._hear = streams, hear
        self.ours = streams[0]
        self.theirs = self.ours
        """Descriptor that the command gets."""
        self.source = -1
        """Descriptor that we read; -1 where there is none."""
        self.watched = False
        """Whether the command writes a file by itself, and we read along."""
        self._at = 0
        kind = os.fstat(self.ours).st_mode
        if stat.S_ISREG(kind):
            self._watch()
        elif os.isatty(self.ours):
            self._open_terminal()
        else:
            self.source, self.theirs = os.pipe()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            self.source = os.open(f"/proc/self/fd/{self.ours}", os.O_RDONLY | os.O_CLOEXEC)
            appends = fcntl.fcntl(self.ours, fcntl.F_GETFL) & os.O_APPEND
            self._at = os.fstat(self.ours).st_size if appends else os.lseek(self.ours, 0, os.SEEK_CUR)
            self.watched = True

    def _open_terminal(self) -> None:
        self.source, self.theirs = os.openpty()
        settings = termios.tcgetattr(self.ours)
        # Our terminal turns a newline into what it needs; twice would be once too often.
        settings[1] &= ~termios.OPOST
        termios.tcsetattr(self.theirs, termios.TCSANOW, settings)
        self.resize()

    def resize(self) -> None:
        """Give the command's terminal the size of ours."""
        if os.isatty(self.theirs) and self.theirs != self.ours:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, fcntl.ioctl(self.ours, termios.TIOCGWINSZ, b"\0" * 8))

    def pass_on(self) -> bool:
        """Pass on what is there; False at the end."""
        try:
            data = os.read(self.source, CHUNK)
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says when the last writer is gone
                raise
            data = b""
        rest = data
        while rest:
            try:
                rest = rest[os.write(self.ours, rest) :]
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                # Nobody reads us: the command is to learn that as it would without us, by the end of its pipe.
                return False
        self._hear(self.ours, data)
        return bool(data)

    def look(self) -> None:
        """Hear what the command wrote into its file."""
        with contextlib.suppress(OSError):
            while data := os.pread(self.source, CHUNK, self._at):
                self._at += len(data)
                self._hear(self.ours, data)

    def let_go(self) -> None:
        """Close our copy of what the command writes to, so that its end is seen."""
        if self.theirs != self.ours:
            os.close(self.theirs)
            self.theirs = self.ours

    def close(self) -> None:
        """Close what is ours alone."""
        self.let_go()
        if self.source >= 0:
            os.close(self.source)
            self.source = -1


def run(command: Sequence[str], environment: dict[str, str], hear: Hear) -> int:
    """Run a command to its end.

    Args:
        command: the program and its arguments, for no shell.
        environment: of the command.
        hear: gets all that it prints.

    Returns:
        Its exit code; minus the number of the signal that ended it. 127 and 126 where it cannot be started.

    Raises:
        OSError: it cannot be started, with the reason.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    channels = _channels(hear)
    try:
        outputs: dict[int, int | None] = {1: None, 2: None}
        outputs |= {stream: channel.theirs for channel in channels for stream in channel.streams}
        # The mask is set between fork and exec, where no thread of ours runs yet.
        process = subprocess.Popen(command, env=environment, stdout=outputs[1], stderr=outputs[2], close_fds=False,
                                   preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before))
        for channel in channels:
            # A pipe ends when its last writer does; a terminal that nobody has open loses what it holds.
            if not os.isatty(channel.theirs):
                channel.let_go()
        threading.Thread(target=_forward_signals, args=(process, channels), daemon=True).start()
        _pump(process, channels)
        return process.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for channel in channels:
            channel.close()


def end_like(code: int) -> int:
    """The exit code for ours; a signal that ended the command ends us, too, so that a shell sees the same."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.Signals(-code)})
        os.kill(os.getpid(), -code)
        return 128 - code
    return code


def _channels(hear: Hear) -> list[Channel]:
    """One for each stream that is open, or one for both where they are the same."""
    files: dict[tuple[int, int, int], list[int]] = {}
    for stream in (1, 2):
        with contextlib.suppress(OSError):
            about = os.fstat(stream)
            files.setdefault((about.st_dev, about.st_ino, about.st_rdev), []).append(stream)
    return [Channel(streams, hear) for streams in files.values()]


def _pump(process: subprocess.Popen[bytes], channels: Sequence[Channel]) -> None:
    """Pass on and hear until the command has ended and its output, too."""
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            if channel.source >= 0 and not channel.watched:
                selector.register(channel.source, selectors.EVENT_READ, channel)
        ended = 0.0
        while True:
            if not ended and process.poll() is not None:
                ended = time.monotonic()
                for channel in channels:
                    channel.let_go()
            for channel in channels:
                if channel.watched:
                    channel.look()
            if ended and (not selector.get_map() or time.monotonic() - ended > DRAIN_SECONDS):
                return
            for key, _ in selector.select(POLL_SECONDS) if selector.get_map() else ():
                if not key.data.pass_on():
                    selector.unregister(key.fd)
                    key.data.close()
            if not selector.get_map():
                time.sleep(POLL_SECONDS)


def _forward_signals(process: subprocess.Popen[bytes], channels: Sequence[Channel]) -> None:
    while process.returncode is None:
        got = signal.sigtimedwait(FORWARDED, 1.0)
        if got is None:
            continue
        if got.si_signo == signal.SIGWINCH:
            for channel in channels:
                channel.resize()
        elif got.si_code != BY_TERMINAL:
            with contextlib.suppress(OSError):
                process.send_signal(got.si_signo)
