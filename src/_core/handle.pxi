# Handle owns the sqlite3*. Every public method of the core enters it before it calls SQLite.

cdef int _fork_generation = 0
cdef unsigned long _main_thread = threading.main_thread().ident


cdef extern from * nogil:
    """
    #if RESONANCE_ENGINE_BUNDLED
    void resonance_before_fork(void);
    void resonance_after_fork(int in_child);
    #else
    #define resonance_before_fork() ((void) 0)
    #define resonance_after_fork(in_child) ((void) 0)
    #endif
    """
    void resonance_before_fork()
    void resonance_after_fork(bint in_child)


cdef void _before_fork() noexcept nogil:
    resonance_before_fork()


cdef void _after_fork() noexcept nogil:
    resonance_after_fork(False)


cdef void _in_child() noexcept nogil:
    global _fork_generation
    _fork_generation += 1
    resonance_after_fork(True)


if pthread_atfork(_before_fork, _after_fork, _in_child) != 0:
    raise MemoryError("pthread_atfork")

# How many objects are alive; tests assert that both return to zero.
cdef int _open_handles = 0
cdef int _open_statements = 0


def live_objects():
    """How many (connections, statements) are open in this process."""
    return _open_handles, _open_statements


# Signals are looked for once in this many virtual-machine steps (some tens of milliseconds):
# looking needs the GIL, which another thread may be busy with.
cdef enum: STEPS_BETWEEN_SIGNAL_CHECKS = 500_000


cdef int _on_progress(void* arg) noexcept nogil:
    if PyThread_get_thread_ident() != _main_thread:
        return 0
    with gil:
        return (<Handle> arg).signalled()


cdef int _on_commit(void* arg, sqlite3* db, const char* schema, int frames) noexcept nogil:
    (<Handle> arg).wal_frames = frames
    return SQLITE_OK


@cython.final
@cython.no_gc_clear
cdef class Handle:
    cdef sqlite3* db
    cdef readonly str path
    cdef unsigned long owner        # the thread that is inside, 0 when nobody is
    cdef int generation             # the fork generation it was opened in
    cdef int pid
    cdef int wal_frames             # in the WAL after the last commit
    cdef object pending             # raised by a signal handler while SQLite was running
    cdef object statements          # weak references to the open children
    cdef sqlite3_stmt** doomed      # collected while somebody was inside; finalized at the next entry
    cdef Py_ssize_t doomed_count
    cdef object __weakref__

    def __cinit__(self):
        self.db = NULL
        self.doomed = NULL
        self.doomed_count = 0
        self.owner = 0
        self.pending = None
        self.statements = weakref.WeakSet()

    cdef int open(self, str path, int flags) except -1:
        global _open_handles
        cdef bytes name = os.fsencode(path)
        cdef const char* c_name = PyBytes_AS_STRING(name)
        cdef int rc
        if b"\0" in name:
            raise CannotOpenError(f"{path!r}: a path cannot hold a NUL character", code=SQLITE_CANTOPEN,
                                  name="SQLITE_CANTOPEN", path=path, operation="open",
                                  data="unchanged")
        if name.startswith(b"file:"):
            # Some builds of SQLite take every such name for a URI.
            name = b"./" + name
            c_name = PyBytes_AS_STRING(name)
        self.path = path
        self.generation = _fork_generation
        self.pid = getpid()
        with nogil:
            rc = sqlite3_open_v2(c_name, &self.db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                                 NULL)
        if self.db == NULL:
            raise MemoryError("sqlite3_open_v2")
        _open_handles += 1
        if rc != SQLITE_OK:
            try:
                self.fail(rc, "open", None)
            finally:
                self.release()
        sqlite3_progress_handler(self.db, STEPS_BETWEEN_SIGNAL_CHECKS, _on_progress, <void*> self)
        return 0

    cdef int enter(self, str operation) except -1:
        """First line of every public method: raises unless this thread may use the handle now."""
        cdef unsigned long me = PyThread_get_thread_ident()
        if self.db == NULL:
            raise ClosedError(f"{operation}: the connection to {self.path} is closed")
        if self.generation != _fork_generation:
            raise ForkedConnectionError(
                f"{operation}: the connection to {self.path} was opened in process {self.pid} and is "
                f"used in process {getpid()}; open a new one after the fork")
        if self.owner == me:
            raise ReentrancyError(
                f"{operation}: a callback used the connection to {self.path} that is calling it")
        if self.owner != 0:
            raise ConcurrentUseError(
                f"{operation}: thread {me} used the connection to {self.path} while thread "
                f"{self.owner} is inside; give each thread its own, or share a ResonanceDB")
        if self.doomed_count:
            self.finalize_doomed()
        self.owner = me
        return 0

    cdef void leave(self) noexcept:
        self.owner = 0

    cdef void doom(self, sqlite3_stmt* stmt) noexcept:
        """Finalize `stmt` when nobody is inside. Without memory for the note it leaks instead."""
        cdef void* grown = PyMem_RawRealloc(
            self.doomed, (self.doomed_count + 1) * sizeof(sqlite3_stmt*))
        if grown != NULL:
            self.doomed = <sqlite3_stmt**> grown
            self.doomed[self.doomed_count] = stmt
            self.doomed_count += 1

    cdef void finalize_doomed(self) noexcept:
        while self.doomed_count:
            self.doomed_count -= 1
            sqlite3_finalize(self.doomed[self.doomed_count])

    cdef int check(self, int rc, str operation, str sql=None) except -1:
        if rc != SQLITE_OK and rc != SQLITE_ROW and rc != SQLITE_DONE:
            self.fail(rc, operation, sql)
        return 0

    cdef int fail(self, int rc, str operation, str sql) except -1:
        """Raise what `rc` means. The code in hand decides; the handle only adds the words."""
        cdef const char* words
        cdef int offset = -1
        pending, self.pending = self.pending, None
        if pending is not None:
            raise pending
        words = sqlite3_errmsg(self.db) if (sqlite3_errcode(self.db) & 0xFF) == (rc & 0xFF) \
            else sqlite3_errstr(rc)
        if sql is not None:
            offset = resonance_error_offset(self.db)
        raise storage_error(rc, words.decode("utf-8", "replace"), self.path, operation, sql, offset)

    cdef int signalled(self) noexcept:
        """Run Python's signal handlers; 1 when one raised, and the exception is kept for `fail`."""
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            self.pending = error
            return 1
        return 0

    cdef void release(self) noexcept:
        """The one way out. In a forked child the memory is left alone: its locks are the parent's."""
        global _open_handles
        if self.db != NULL:
            if self.generation == _fork_generation:
                self.finalize_doomed()
                # A statement in a garbage cycle is in no list any more; it takes the rest along.
                sqlite3_close_v2(self.db)
            self.db = NULL
            _open_handles -= 1

    cdef int close(self) except -1:
        if self.db == NULL:
            return 0
        if self.generation == _fork_generation:
            self.enter("close")
        # Still entered: listing the statements runs Python code, and so perhaps another thread.
        try:
            children = list(self.statements)
            for statement in children:
                (<Statement> statement).refuse_views("close")
            for statement in children:
                (<Statement> statement).finalize()
            self.release()
        finally:
            self.owner = 0
        return 0

    def __dealloc__(self):
        self.release()
        PyMem_RawFree(self.doomed)
