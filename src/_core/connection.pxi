# Connection is what Python code talks to: one Handle, and the statements it has prepared.

cdef enum: CACHED_STATEMENTS = 128

_READS = re.compile(r"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*(?:SELECT|VALUES|WITH)\b", re.I | re.S)


@cython.final
cdef class Connection:
    """One connection to one SQLite file, through the engine compiled into this module.

    It belongs to one thread at a time: a second thread inside raises ConcurrentUseError. It sets no
    pragmas; ``resonance.factory.connect`` gives a hardened one.

    Args:
        path: the file, or ``":memory:"``. Never a URI.
        create: make the file if it is missing.

    Raises:
        CannotOpenError: the file is missing, a directory, or not to be had.
    """
    cdef Handle handle
    cdef object cache       # SQL -> Statement, least recently used first
    cdef object __weakref__

    def __init__(self, path, *, bint create=True):
        cdef int flags = SQLITE_OPEN_READWRITE | (SQLITE_OPEN_CREATE if create else 0)
        cdef Handle handle = Handle()
        handle.open(os.fspath(path), flags)
        # Until a file is known to be ours, closing it must not write to it.
        sqlite3_db_config(handle.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, <int> 1, NULL)
        sqlite3_db_config(handle.db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, <int> 0, NULL)
        sqlite3_db_config(handle.db, SQLITE_DBCONFIG_DEFENSIVE, <int> 1, NULL)
        sqlite3_db_config(handle.db, SQLITE_DBCONFIG_DQS_DML, <int> 0, NULL)
        sqlite3_db_config(handle.db, SQLITE_DBCONFIG_DQS_DDL, <int> 0, NULL)
        self.handle = handle
        self.cache = OrderedDict()

    cdef Handle entered(self, str operation):
        if self.handle is None:
            raise ClosedError(f"{operation}: the connection was never opened")
        self.handle.enter(operation)
        return self.handle

    cdef Statement cached(self, str sql):
        """A statement at rest for `sql`; the handle has been entered."""
        cdef Statement statement = self.cache.get(sql)
        if statement is None or statement.stmt == NULL or statement.active:
            statement = Statement.__new__(Statement)
            statement.prepare(self.handle, sql, SQLITE_PREPARE_PERSISTENT)
            self.cache[sql] = statement
            if len(self.cache) > CACHED_STATEMENTS:
                self.cache.popitem(last=False)
        else:
            self.cache.move_to_end(sql)
        return statement

    @property
    def path(self):
        """The path it was opened with."""
        return None if self.handle is None else self.handle.path

    @property
    def closed(self):
        """True once ``close`` has run."""
        return self.handle is None or self.handle.db == NULL

    @property
    def in_transaction(self):
        """True between BEGIN and COMMIT or ROLLBACK."""
        cdef Handle handle = self.entered("in_transaction")
        cdef bint inside = sqlite3_get_autocommit(handle.db) == 0
        handle.leave()
        return inside

    @property
    def changes(self):
        """Rows changed by the statement that finished last."""
        cdef Handle handle = self.entered("changes")
        cdef int64_t count = sqlite3_changes64(handle.db)
        handle.leave()
        return count

    @property
    def total_changes(self):
        """Rows changed since the connection was opened, foreign key actions included."""
        cdef Handle handle = self.entered("total_changes")
        cdef int64_t count = sqlite3_total_changes64(handle.db)
        handle.leave()
        return count

    def prepare(self, str sql not None):
        """A :class:`Statement` of one's own, outside the cache."""
        cdef Handle handle = self.entered("prepare")
        cdef Statement statement = Statement.__new__(Statement)
        try:
            statement.prepare(handle, sql, 0)
        finally:
            handle.leave()
        return statement

    def execute(self, str sql not None, parameters=()):
        """Run one statement and return its rows as a list of tuples.

        Args:
            parameters: a sequence for ``?``, a mapping for ``:name``. Values are None, int, float,
                str, or a buffer of bytes.
        """
        cdef Handle handle = self.entered("execute")
        try:
            return self.cached(sql).run(parameters)
        finally:
            handle.leave()

    def query(self, str sql not None, parameters=()):
        """As ``execute``, but only for SELECT, VALUES or WITH, and only where it leaves all as it is.

        Raises:
            ReadOnlyError: anything else, such as BEGIN, ATTACH, PRAGMA, or a WITH that writes.
        """
        cdef Handle handle = self.entered("query")
        cdef Statement statement
        try:
            # The words first: a PRAGMA may have done its work when it is only compiled.
            statement = self.cached(sql) if _READS.match(sql) else None
            if statement is None or not sqlite3_stmt_readonly(statement.stmt):
                raise ReadOnlyError(f"{handle.path}: query: {sql[:60]!r} is not a statement that only "
                                    f"reads", code=SQLITE_READONLY, name="SQLITE_READONLY",
                                    path=handle.path, operation="query", sql=sql, data="unchanged")
            return statement.run(parameters)
        finally:
            handle.leave()

    def executemany(self, str sql not None, rows):
        """Run one statement for each row of parameters; returns how many rows it changed.

        ``rows`` is read to its end before anything is written. There is no implied transaction.
        """
        cdef Handle handle
        cdef Statement statement
        cdef int64_t before
        cdef list held = list(rows)
        handle = self.entered("executemany")
        try:
            before = sqlite3_total_changes64(handle.db)
            statement = self.cached(sql)
            for row in held:
                statement.run(row)
            return sqlite3_total_changes64(handle.db) - before
        finally:
            handle.leave()

    def executescript(self, str sql not None):
        """Run several statements, one after the other, without parameters and without a transaction."""
        cdef Handle handle = self.entered("executescript")
        cdef const char* rest
        cdef sqlite3_stmt* stmt
        cdef Py_ssize_t size
        cdef int rc
        try:
            rest = sql_text(handle, sql, &size)
            while rest[0] != 0:
                with nogil:
                    rc = sqlite3_prepare_v3(handle.db, rest, -1, 0, &stmt, &rest)
                    if rc == SQLITE_OK and stmt != NULL:
                        rc = sqlite3_step(stmt)
                        while rc == SQLITE_ROW:
                            rc = sqlite3_step(stmt)
                        if rc == SQLITE_DONE:
                            rc = SQLITE_OK
                if rc != SQLITE_OK:
                    try:
                        handle.fail(rc, "executescript", sql)
                    finally:
                        sqlite3_finalize(stmt)
                sqlite3_finalize(stmt)
        finally:
            handle.leave()

    def interrupt(self):
        """Make whatever is running fail with InterruptedStorageError. Any thread may call it."""
        if not self.closed and self.handle.generation == _fork_generation:
            sqlite3_interrupt(self.handle.db)

    def set_busy_timeout(self, int milliseconds):
        """How long SQLite waits for another connection's lock."""
        cdef Handle handle = self.entered("busy_timeout")
        sqlite3_busy_timeout(handle.db, milliseconds)
        handle.leave()

    def set_triggers(self, bint on):
        """Whether triggers fire for what this connection writes."""
        cdef Handle handle = self.entered("enable_trigger")
        sqlite3_db_config(handle.db, SQLITE_DBCONFIG_ENABLE_TRIGGER, <int> on, <int*> NULL)
        handle.leave()

    def watch_wal(self):
        """Keep count of the frames in the WAL; call it after setting wal_autocheckpoint, which ends it."""
        cdef Handle handle = self.entered("watch_wal")
        sqlite3_wal_hook(handle.db, _on_commit, <void*> handle)
        handle.leave()

    @property
    def wal_frames(self):
        """Frames in the WAL after this connection's last commit."""
        return 0 if self.handle is None else self.handle.wal_frames

    def checkpoint_on_close(self, bint enabled):
        """Let the last connection to close write the WAL back into the file (off when opened)."""
        cdef Handle handle = self.entered("checkpoint_on_close")
        sqlite3_db_config(handle.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, <int> (not enabled), NULL)
        handle.leave()

    def checkpoint(self, *, bint truncate=False):
        """Copy the WAL into the file, PASSIVE or TRUNCATE; returns (busy, frames, frames copied)."""
        cdef Handle handle = self.entered("checkpoint")
        cdef int mode = SQLITE_CHECKPOINT_TRUNCATE if truncate else SQLITE_CHECKPOINT_PASSIVE
        cdef int frames = -1, copied = -1, rc
        try:
            with nogil:
                rc = sqlite3_wal_checkpoint_v2(handle.db, "main", mode, &frames, &copied)
            if (rc & 0xFF) != SQLITE_BUSY:
                handle.check(rc, "checkpoint")
            return (rc & 0xFF) == SQLITE_BUSY, frames, copied
        finally:
            handle.leave()

    def backup_to(self, Connection target not None, agree=None):
        """Copy this whole database over ``target``'s, as one transaction there; returns pages copied.

        Readers of the target keep their snapshot until it is done. https://sqlite.org/backup.html

        Args:
            agree: called without arguments before the last page is copied, and so before anything is
                committed: if it raises, the target stays as it was.
        """
        cdef Handle source = self.entered("backup")
        cdef Handle sink
        cdef sqlite3_backup* backup
        cdef int rc, pages
        try:
            sink = target.entered("backup")
            try:
                backup = sqlite3_backup_init(sink.db, "main", source.db, "main")
                if backup == NULL:
                    sink.fail(sqlite3_extended_errcode(sink.db), "backup", None)
                try:
                    rc = SQLITE_OK
                    if agree is not None:
                        with nogil:
                            rc = sqlite3_backup_step(backup, 0)  # which counts the pages
                            pages = sqlite3_backup_pagecount(backup)
                            if rc == SQLITE_OK and pages > 1:
                                rc = sqlite3_backup_step(backup, pages - 1)
                        if rc == SQLITE_OK:
                            agree()
                    if rc == SQLITE_OK:
                        with nogil:
                            rc = sqlite3_backup_step(backup, -1)
                    pages = sqlite3_backup_pagecount(backup)
                finally:
                    sqlite3_backup_finish(backup)
                if rc != SQLITE_DONE:
                    sink.fail(rc, "backup", None)
                return pages
            finally:
                sink.leave()
        finally:
            source.leave()

    def close(self):
        """Finalize all statements and close; a second call does nothing.

        Raises:
            ConcurrentUseError: another thread is inside; the connection stays open.
        """
        if self.handle is not None:
            self.handle.close()
            self.cache.clear()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        return f"<Connection {self.path!r}{' closed' if self.closed else ''}>"


def engine():
    """Facts of the SQLite engine: version, source id, how it got here, compile options."""
    options = []
    cdef int index = 0
    while sqlite3_compileoption_get(index) != NULL:
        options.append(sqlite3_compileoption_get(index).decode())
        index += 1
    return {
        "version": sqlite3_libversion().decode(),
        "source_id": sqlite3_sourceid().decode(),
        "bundled": bool(RESONANCE_ENGINE_BUNDLED),
        "origin": RESONANCE_ENGINE_ORIGIN.decode(),
        "header_version": SQLITE_VERSION_NUMBER,
        "options": options,
    }
