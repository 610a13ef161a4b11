"""A database as a witness: transactions on SQLite, and whether what was acknowledged is there.  Runs where its file is.

    database.py make FILE wal|delete
    database.py work FILE wal|delete SECONDS SEED [CONSOLE]
    database.py check FILE AT-LEAST

make: the empty database.

work: one transaction after the other, each with some rows that are new, changed and deleted; every row has a checksum,
and each transaction keeps the sum of all rows' checksums and its own number. A commit is acknowledged when SQLite says
that it is durable: synchronous=FULL with a write-ahead log, EXTRA with a rollback journal, for FULL does not sync the
directory from which the journal was deleted. With CONSOLE each acknowledgement is a line on it at once, as
"sqlite-ack NUMBER CHECK", so that it is known outside when the machine dies. Ends with a JSON object of numbers.

check: PRAGMA integrity_check, every row's checksum, the sum, and whether the last transaction there is AT-LEAST as new
as what was acknowledged. Prints a JSON object; what is wrong is a line on standard error, also where the file cannot be
read as a database at all.

Ends with 3 where the file cannot have the journal that was asked for, with 1 where something else fails.
"""

import json
import os
import random
import sqlite3
import sys
import time
import zlib

CHECK_FACTOR, CHECK_MODULUS = 31, 9973
MOST_ROWS = 300
# A checkpoint after so many pages in the log: the database's own pages are written again and again.
CHECKPOINT_PAGES = 100
MOST_MESSAGES = 20
USAGE = "usage: database.py make FILE wal|delete | work FILE wal|delete SECONDS SEED [CONSOLE] | check FILE AT-LEAST"
SYNCHRONOUS = {"wal": "FULL", "delete": "EXTRA"}


def checksum(number: int, generation: int, payload: bytes) -> int:
    return zlib.crc32(payload, (number * 65537 + generation) & 0xFFFFFFFF)


def ack_line(number: int) -> str:
    """A line that a torn or mixed one is not taken for."""
    return f"sqlite-ack {number} {number * CHECK_FACTOR % CHECK_MODULUS}\n"


def opened(path: str, journal: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    (found,) = database.execute(f"PRAGMA journal_mode={journal}").fetchone()
    if found != journal:
        raise NotImplementedError(f"SQLite keeps journal_mode '{found}' here, not '{journal}'")
    database.execute(f"PRAGMA synchronous={SYNCHRONOUS[journal]}")
    database.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    return database


def make(path: str, journal: str) -> dict[str, float]:
    database = opened(path, journal)
    database.execute(
        "CREATE TABLE rows (number INTEGER PRIMARY KEY, generation INTEGER, payload BLOB, checksum INTEGER)"
    )
    database.execute("CREATE TABLE state (id INTEGER PRIMARY KEY, number INTEGER, total INTEGER)")
    database.execute("INSERT INTO state VALUES (1, 0, 0)")
    database.close()
    return {}


class Witness:
    """The transactions on one open database."""

    def __init__(self, path: str, journal: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.database = opened(path, journal)
        self.rows: dict[int, tuple[int, int]] = {}
        self.total = self.newest = self.number = 0
        self.written = 0

    def put(self, row: int, generation: int) -> None:
        payload = self.chance.randbytes(self.chance.randrange(100, 4000))
        checked = checksum(row, generation, payload)
        self.database.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", (row, generation, payload, checked))
        self.total += checked - self.rows.get(row, (0, 0))[1]
        self.rows[row] = generation, checked
        self.written += 1

    def transaction(self) -> int:
        """One, committed; its number."""
        self.database.execute("BEGIN IMMEDIATE")
        for _ in range(self.chance.randrange(1, 5)):
            self.newest += 1
            self.put(self.newest, 1)
        for row in self.chance.sample(sorted(self.rows), min(len(self.rows), 3)):
            self.put(row, self.rows[row][0] + 1)
        while len(self.rows) > MOST_ROWS:
            row = self.chance.choice(sorted(self.rows))
            self.database.execute("DELETE FROM rows WHERE number = ?", (row,))
            self.total -= self.rows.pop(row)[1]
        self.number += 1
        self.database.execute("UPDATE state SET number = ?, total = ? WHERE id = 1", (self.number, self.total))
        self.database.execute("COMMIT")
        return self.number


def work(path: str, journal: str, seconds: float, seed: int, console: str) -> dict[str, float]:
    witness = Witness(path, journal, seed)
    # Unbuffered, and no controlling terminal: each line is out when it is written.
    heard = os.open(console, os.O_WRONLY | os.O_NOCTTY) if console else None
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        number = witness.transaction()
        if heard is not None:
            os.write(heard, ack_line(number).encode())
    took = time.monotonic() - began
    witness.database.close()
    return {"seconds": round(took, 3), "transactions": witness.number, "rows_written": witness.written}


def check(path: str, at_least: int) -> tuple[dict[str, float], list[str]]:
    if not os.path.exists(path):
        # To SQLite a file that is not there is an empty database.
        wrong = [f"the database {path} is gone, and {at_least} transactions were acknowledged"]
        return {"transactions": 0, "rows": 0}, wrong if at_least else []
    messages: list[str] = []
    last = rows = 0
    try:
        database = sqlite3.connect(path, isolation_level=None)
        found = [text for (text,) in database.execute("PRAGMA integrity_check")]
        messages += [f"integrity_check: {text}" for text in found if text != "ok"]
        # First of all, so that it is known whatever the rows are like.
        last, summed = database.execute("SELECT number, total FROM state WHERE id = 1").fetchone()
        total = 0
        # Damage may make it a text of no encoding: to the checksum it is bytes.
        for number, generation, payload, kept in database.execute(
            "SELECT number, generation, CAST(payload AS BLOB), checksum FROM rows ORDER BY number"
        ):
            rows += 1
            total += kept
            if checksum(number, generation, payload) != kept:
                messages.append(f"row {number} has a wrong checksum")
        if summed != total:
            messages.append(f"the rows are not those of transaction {last}, the last that is there")
        database.close()
    except (sqlite3.DatabaseError, TypeError) as error:
        messages.append(f"the database cannot be read: {' '.join(str(error).split())}")
    if last < at_least:
        lost = at_least - last
        messages.append(f"{lost} of {at_least} acknowledged transactions are lost: the last that is there is {last}")
    return {"transactions": last, "rows": rows}, messages


def main(arguments: list[str]) -> int:
    counts: dict[str, float] = {}
    messages: list[str] = []
    try:
        if len(arguments) == 3 and arguments[0] == "make" and arguments[2] in SYNCHRONOUS:
            make(arguments[1], arguments[2])
        elif len(arguments) in (5, 6) and arguments[0] == "work" and arguments[2] in SYNCHRONOUS:
            path, journal, seconds, seed, *console = arguments[1:]
            counts = work(path, journal, float(seconds), int(seed), "".join(console))
        elif len(arguments) == 3 and arguments[0] == "check":
            counts, messages = check(arguments[1], int(arguments[2]))
            counts["wrong"] = len(messages)
        else:
            print(USAGE, file=sys.stderr)
            return 4
    except NotImplementedError as error:
        print(error, file=sys.stderr)
        return 3
    except (sqlite3.Error, OSError) as error:
        print(f"database.py: SQLite {sqlite3.sqlite_version}: {error}", file=sys.stderr)
        return 1
    for message in messages[:MOST_MESSAGES]:
        print(message, file=sys.stderr)
    print(json.dumps({**counts, "sqlite": sqlite3.sqlite_version}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
