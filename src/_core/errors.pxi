# Result code -> exception. https://sqlite.org/rescode.html

# Primary code: (name, class, advice). A code that is absent here is a plain StorageError.
_RESULTS = {
    SQLITE_ERROR: ("SQLITE_ERROR", SQLError, ""),
    SQLITE_INTERNAL: ("SQLITE_INTERNAL", StorageError, ""),
    SQLITE_PERM: ("SQLITE_PERM", CannotOpenError, "check the file's permissions"),
    SQLITE_ABORT: ("SQLITE_ABORT", StorageError, ""),
    SQLITE_BUSY: ("SQLITE_BUSY", BusyError, "another connection holds the lock; try again"),
    SQLITE_LOCKED: ("SQLITE_LOCKED", BusyError, "this connection is still reading; finish that first"),
    SQLITE_NOMEM: ("SQLITE_NOMEM", StorageMemoryError, ""),
    SQLITE_READONLY: ("SQLITE_READONLY", ReadOnlyError,
                      "open it for writing, or check the permissions of the file and its folder"),
    SQLITE_INTERRUPT: ("SQLITE_INTERRUPT", InterruptedStorageError, ""),
    SQLITE_IOERR: ("SQLITE_IOERR", StorageIOError, "check the disk and its free space"),
    SQLITE_CORRUPT: ("SQLITE_CORRUPT", CorruptDatabaseError,
                     "nothing was repaired: restore a backup or rebuild with `resonance init`"),
    SQLITE_NOTFOUND: ("SQLITE_NOTFOUND", StorageError, ""),
    SQLITE_FULL: ("SQLITE_FULL", DiskFullError, "free some space and repeat"),
    SQLITE_CANTOPEN: ("SQLITE_CANTOPEN", CannotOpenError,
                      "check that its folder exists and may be written"),
    SQLITE_PROTOCOL: ("SQLITE_PROTOCOL", BusyError, "locking failed; try again"),
    SQLITE_EMPTY: ("SQLITE_EMPTY", StorageError, ""),
    SQLITE_SCHEMA: ("SQLITE_SCHEMA", StorageError, "the schema changed; try again"),
    SQLITE_TOOBIG: ("SQLITE_TOOBIG", TooBigError, "store it in a file"),
    SQLITE_CONSTRAINT: ("SQLITE_CONSTRAINT", ConstraintError, ""),
    SQLITE_MISMATCH: ("SQLITE_MISMATCH", StorageError, ""),
    SQLITE_MISUSE: ("SQLITE_MISUSE", StorageError, ""),
    SQLITE_NOLFS: ("SQLITE_NOLFS", StorageIOError, ""),
    SQLITE_AUTH: ("SQLITE_AUTH", StorageError, ""),
    SQLITE_FORMAT: ("SQLITE_FORMAT", StorageError, ""),
    SQLITE_RANGE: ("SQLITE_RANGE", SQLError, ""),
    SQLITE_NOTADB: ("SQLITE_NOTADB", NotADatabaseError, "check the path"),
}

# Extended code: (name, class or None for the primary code's).
_EXTENDED = {
    261: ("SQLITE_BUSY_RECOVERY", None),
    517: ("SQLITE_BUSY_SNAPSHOT", None),
    773: ("SQLITE_BUSY_TIMEOUT", None),
    264: ("SQLITE_READONLY_RECOVERY", None),
    520: ("SQLITE_READONLY_CANTLOCK", None),
    776: ("SQLITE_READONLY_ROLLBACK", None),
    1032: ("SQLITE_READONLY_DBMOVED", None),
    1288: ("SQLITE_READONLY_CANTINIT", None),
    1544: ("SQLITE_READONLY_DIRECTORY", None),
    266: ("SQLITE_IOERR_READ", None),
    522: ("SQLITE_IOERR_SHORT_READ", None),
    778: ("SQLITE_IOERR_WRITE", None),
    1034: ("SQLITE_IOERR_FSYNC", None),
    1546: ("SQLITE_IOERR_TRUNCATE", None),
    1802: ("SQLITE_IOERR_FSTAT", None),
    3082: ("SQLITE_IOERR_NOMEM", StorageMemoryError),
    4618: ("SQLITE_IOERR_SHMOPEN", None),
    4874: ("SQLITE_IOERR_SHMSIZE", None),
    5386: ("SQLITE_IOERR_SHMMAP", None),
    3850: ("SQLITE_IOERR_LOCK", None),
    267: ("SQLITE_CORRUPT_VTAB", None),
    779: ("SQLITE_CORRUPT_INDEX", None),
    526: ("SQLITE_CANTOPEN_ISDIR", None),
    275: ("SQLITE_CONSTRAINT_CHECK", None),
    787: ("SQLITE_CONSTRAINT_FOREIGNKEY", ForeignKeyError),
    1299: ("SQLITE_CONSTRAINT_NOTNULL", None),
    1555: ("SQLITE_CONSTRAINT_PRIMARYKEY", None),
    2067: ("SQLITE_CONSTRAINT_UNIQUE", None),
    3091: ("SQLITE_CONSTRAINT_DATATYPE", None),
}


cdef object storage_error(int extended, str message, str path, str operation, str sql, int offset):
    """The exception for a result code, ready to be raised."""
    name, cls, advice = _RESULTS.get(extended & 0xFF, ("SQLITE_UNKNOWN", StorageError, ""))
    if extended != (extended & 0xFF):
        extended_name, extended_cls = _EXTENDED.get(extended, (f"{name} ({extended})", None))
        name, cls = extended_name, extended_cls or cls
    # SQLite rolls back what it could not finish; only a commit cut off by the device is in doubt.
    in_doubt = operation == "commit" and (extended & 0xFF) in (SQLITE_IOERR, SQLITE_CORRUPT)
    data = "unknown" if in_doubt else "unchanged"
    text = f"{path}: {operation}: {message} [{name}]; your data: {data}"
    if advice:
        text += f". {advice[0].upper()}{advice[1:]}"
    return cls(text, code=extended & 0xFF, extended_code=extended, name=name, path=path,
               operation=operation, sql=sql, offset=offset, data=data)
