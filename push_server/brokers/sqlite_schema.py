"""What stands in the database file: the tables, and how a row proves that it is what was written.

SQLite keeps no checksums of its pages, so our rows carry their own.

Imported by what opens the file, reads it and writes it.
"""

import re
from zlib import crc32

SCHEMA_VERSION = 1
APPLICATION_ID = 0x70757368
"""Marks the file as ours ("push"), so that no other program's database is ever changed."""

SCHEMA = """
-- One epoch for the whole log.
CREATE TABLE epoch (epoch INTEGER PRIMARY KEY);
-- The head of every channel ever published to; never deleted, or offsets would start again.
-- bytes: of all publications the channel ever had. checksum: here and below, of the whole row.
CREATE TABLE channels (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    offset INTEGER NOT NULL, tag TEXT NOT NULL, bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL);
-- The history, and before it at least one publication more, whose tag proves the oldest
-- position that can still be resumed from. before: the channel's bytes before this one.
CREATE TABLE publications (channel INTEGER NOT NULL, offset INTEGER NOT NULL,
    time REAL NOT NULL, before INTEGER NOT NULL, id TEXT NOT NULL, exclude TEXT,
    json BLOB NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (channel, offset)) WITHOUT ROWID;
-- Publication ids in force, numbered in the order in which they can be forgotten.
CREATE TABLE ids (number INTEGER PRIMARY KEY, channel INTEGER NOT NULL, id TEXT NOT NULL,
    offset INTEGER NOT NULL, digest BLOB NOT NULL, expires REAL NOT NULL,
    checksum INTEGER NOT NULL, UNIQUE (id, channel));
CREATE TABLE revocations (kind TEXT NOT NULL, value TEXT NOT NULL, before REAL NOT NULL,
    expires REAL NOT NULL, PRIMARY KEY (kind, value)) WITHOUT ROWID;
CREATE TABLE claims (key TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
"""
TABLES = dict(re.findall(r"^(?=CREATE TABLE (\w+))(.*?);\n", SCHEMA, re.DOTALL | re.MULTILINE))
"""The statement that made each table; SQLite keeps them word for word."""


class Damaged(Exception):
    """What stands in the file cannot have been written by us."""


UNREADABLE = (Damaged, UnicodeDecodeError)
"""Errors of our own and of Python about what is in the file. Python decodes SQLite's messages,
which may quote it."""


def checksum(*fields: object, data: bytes = b"") -> int:
    """The checksum of a row: of the fields in their order, and of its payload."""
    return crc32(data, crc32(repr(fields).encode()))
