"""Make, append to, rewrite, truncate and delete files while their pages are being written.  Runs where the files are.

    file_storm.py append-delete|small-files|check [DIRECTORY [SECONDS [SEED]]]

What is left out comes from DRBD_DIRECTORY, DRBD_SECONDS and DRBD_SEED.  Python's own library only.

append-delete: two threads append records to files of some 120 KiB and have them written back after every few records,
so that a file's last page is changed while it is under way; then they truncate the file somewhere, append again, and
delete it at once.  Every fourth file stays, after all its records were read back; its older brothers are deleted.

small-files: two threads make, rewrite, read back and delete files of up to 12 KiB; what was written is being written
back when it is rewritten or deleted.

check: every record of every file that stayed, and the number of files.

Each ends with one JSON object of numbers; what was read wrong is a line on standard error.
"""

import ctypes
import json
import os
import random
import struct
import sys
import threading
import time
import zlib

# Magic, number, payload's length, checksum of the number and the payload.
HEADER = struct.Struct("<4sIII")
MAGIC = b"drbd"
THREADS = 2
FILE_BYTES = 128 * 1024
RECORDS_AT_ONCE = 4
KEPT_FILES = 4
LIVE_FILES = 200
SYNC_FILE_RANGE_WRITE = 2
MOST_MESSAGES = 20

_libc = ctypes.CDLL(None, use_errno=True)


def write_back(file: int) -> None:
    """Start writing what is dirty in the file, and wait for nothing."""
    if _libc.sync_file_range(file, ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WRITE):
        error = ctypes.get_errno()
        raise OSError(error, f"sync_file_range: {os.strerror(error)}")


def record(number: int, payload: bytes) -> bytes:
    checksum = zlib.crc32(payload, number)
    return HEADER.pack(MAGIC, number, len(payload), checksum) + payload


def wrong_record(data: bytes, at: int, number: int) -> str:
    """What is wrong with the record that begins at byte `at`; empty where nothing is."""
    if len(data) - at < HEADER.size:
        return f"{len(data) - at} bytes where record {number} should be"
    magic, found, length, checksum = HEADER.unpack_from(data, at)
    if magic != MAGIC or found != number:
        return f"no record {number} at byte {at}"
    payload = data[at + HEADER.size : at + HEADER.size + length]
    if len(payload) != length or zlib.crc32(payload, number) != checksum:
        return f"record {number} at byte {at} has a wrong checksum"
    return ""


def check_records(path: str, records: int) -> list[str]:
    """What is wrong with a file of so many records, counted from 1."""
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    for number in range(1, records + 1):
        wrong = wrong_record(data, at, number)
        if wrong:
            return [f"{path}: {wrong}"]
        at += HEADER.size + HEADER.unpack_from(data, at)[2]
    return [] if at == len(data) else [f"{path}: {len(data) - at} bytes behind its last record"]


class Storm(threading.Thread):
    """One thread; `counts` is what it did, `messages` what it read wrong."""

    def __init__(self, number: int, directory: str, end: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.number, self.directory, self.end = number, directory, end
        self.chance = random.Random(seed * 1009 + number)
        self.counts: dict[str, int] = {}
        self.messages: list[str] = []
        self.error: Exception | None = None

    def add(self, name: str, count: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + count

    def heard(self, messages: list[str]) -> None:
        self.add("files_checked")
        self.add("files_wrong", len(messages))
        self.messages += messages

    def run(self) -> None:
        try:
            while time.monotonic() < self.end:
                self.step()
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits for the thread
            self.error = error

    def step(self) -> None:
        raise NotImplementedError

    def left(self) -> int:
        """How many files are there when it is over."""
        raise NotImplementedError


class AppendDelete(Storm):
    """Appends, truncates, appends, deletes."""

    def __init__(self, number: int, directory: str, end: float, seed: int) -> None:
        super().__init__(number, directory, end, seed)
        self.made = 0
        self.kept: list[str] = []

    def left(self) -> int:
        return len(self.kept)

    def append(self, file: int, records: int, size: int) -> tuple[int, list[int]]:
        """Records until the file has grown by `size`; how many it has then, and where each of the new ones begins."""
        grown, begins = 0, []
        while grown < size:
            begins.append(os.lseek(file, 0, os.SEEK_END))
            records += 1
            data = record(records, self.chance.randbytes(self.chance.randrange(100, 4000)))
            written = os.write(file, data)
            while written < len(data):
                written += os.write(file, data[written:])
            grown += len(data)
            if records % RECORDS_AT_ONCE == 0:
                write_back(file)
        self.add("appended_bytes", grown)
        return records, begins

    def step(self) -> None:
        self.made += 1
        path = f"{self.directory}/log-{self.number}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            records, begins = self.append(file, 0, self.chance.randrange(FILE_BYTES // 2, FILE_BYTES))
            keep = self.chance.randrange(len(begins) // 2, len(begins))
            os.ftruncate(file, begins[keep])
            self.add("truncations")
            records, _ = self.append(file, keep, FILE_BYTES // 4)
        finally:
            os.close(file)
        if self.made % 4:
            os.unlink(path)
            self.add("files_deleted")
            return
        self.heard(check_records(path, records))
        kept = f"{self.directory}/kept-{self.number}-{self.made}-{records}"
        os.rename(path, kept)
        self.kept.append(kept)
        if len(self.kept) > KEPT_FILES:
            os.unlink(self.kept.pop(0))
            self.add("files_deleted")


class SmallFiles(Storm):
    """Makes, rewrites, reads back and deletes; each file is one record, whose number is its generation."""

    def __init__(self, number: int, directory: str, end: float, seed: int) -> None:
        super().__init__(number, directory, end, seed)
        self.home = f"{directory}/small-{number}"
        os.makedirs(self.home, exist_ok=True)
        # The generation and the size of each file that is there.
        self.live: dict[int, tuple[int, int]] = {}
        self.made = 0

    def left(self) -> int:
        return len(self.live)

    def path(self, name: int) -> str:
        return f"{self.home}/{name % 16:x}/{name}"

    def put(self, name: int, generation: int, size: int, flags: int) -> None:
        data = record(generation, self.chance.randbytes(size))
        file = os.open(self.path(name), flags, 0o600)
        try:
            if os.write(file, data) != len(data):
                raise OSError(28, os.strerror(28))
            write_back(file)
        finally:
            os.close(file)
        self.live[name] = generation, size
        self.add("written_bytes", len(data))

    def make(self) -> None:
        self.made += 1
        os.makedirs(os.path.dirname(self.path(self.made)), exist_ok=True)
        self.put(self.made, 1, self.chance.randrange(50, 12000), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self.add("files_made")

    def rewrite(self, name: int) -> None:
        generation, size = self.live[name]
        self.put(name, generation + 1, size, os.O_WRONLY)
        self.add("files_rewritten")

    def delete(self, name: int) -> None:
        os.unlink(self.path(name))
        del self.live[name]
        self.add("files_deleted")

    def check(self, name: int) -> None:
        with open(self.path(name), "rb") as file:
            wrong = wrong_record(file.read(), 0, self.live[name][0])
        self.heard([f"{self.path(name)}: {wrong}"] if wrong else [])

    def step(self) -> None:
        self.make()
        name = self.made
        for _ in range(self.chance.randrange(3)):
            self.rewrite(name)
        if self.chance.random() < 0.3:
            self.delete(name)
        if self.live and self.chance.random() < 0.3:
            self.check(self.chance.choice(list(self.live)))
        while len(self.live) > LIVE_FILES:
            victim = self.chance.choice(list(self.live))
            self.rewrite(victim)
            self.delete(victim)


def check(directory: str) -> tuple[dict[str, int], list[str]]:
    """Every file that the two storms leave behind."""
    found, messages = 0, []
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted(names):
            path = f"{folder}/{name}"
            if name.startswith("kept-"):
                messages += check_records(path, int(name.rsplit("-", 1)[1]))
            elif "/small-" in folder:
                with open(path, "rb") as file:
                    data = file.read()
                generation = HEADER.unpack_from(data)[1] if len(data) >= HEADER.size else 1
                wrong = wrong_record(data, 0, generation)
                messages += [f"{path}: {wrong}"] if wrong else []
            else:
                continue
            found += 1
    return {"files_found": found, "files_wrong": len(messages)}, messages


def storm(kind: type[Storm], directory: str, seconds: float, seed: int) -> tuple[dict[str, float], list[str]]:
    """Both threads, for so long."""
    began = time.monotonic()
    threads = [kind(number, directory, began + seconds, seed) for number in range(1, THREADS + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thread in threads:
        if thread.error is not None:
            raise thread.error
    counts: dict[str, float] = {"seconds": round(time.monotonic() - began, 3)}
    for thread in threads:
        for name, count in thread.counts.items():
            counts[name] = counts.get(name, 0) + count
    counts["files_left"] = sum(thread.left() for thread in threads)
    return counts, [message for thread in threads for message in thread.messages]


def main(arguments: list[str]) -> int:
    mode = arguments[0] if arguments else ""
    rest = dict(enumerate(arguments[1:]))
    directory = rest.get(0) or os.environ.get("DRBD_DIRECTORY", "")
    seconds = float(rest.get(1) or os.environ.get("DRBD_SECONDS", "10"))
    seed = int(rest.get(2) or os.environ.get("DRBD_SEED", "1"))
    kinds: dict[str, type[Storm]] = {"append-delete": AppendDelete, "small-files": SmallFiles}
    if mode not in (*kinds, "check") or not directory:
        print("usage: file_storm.py append-delete|small-files|check DIRECTORY [SECONDS [SEED]]", file=sys.stderr)
        return 4
    try:
        counts, messages = check(directory) if mode == "check" else storm(kinds[mode], directory, seconds, seed)
    except OSError as error:
        print(f"file_storm.py: {error.strerror or error}{f': {error.filename}' if error.filename else ''}",
              file=sys.stderr)  # fmt: skip
        return 1
    for message in messages[:MOST_MESSAGES]:
        print(message, file=sys.stderr)
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
