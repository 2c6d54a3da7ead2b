# Statement owns a sqlite3_stmt*. It holds its Handle; the Handle knows it weakly and finalizes it first.

cdef const char* sql_text(Handle handle, str sql, Py_ssize_t* size) except NULL:
    """`sql` as SQLite wants it, in the memory of `sql`."""
    cdef const char* text
    try:
        text = PyUnicode_AsUTF8AndSize(sql, size)
    except UnicodeEncodeError as error:
        raise SQLError(f"{handle.path}: prepare: the SQL holds a lone surrogate",
                       path=handle.path, operation="prepare", sql=sql, data="unchanged") from error
    if size[0] >= 0x7FFFFFFF or memchr(text, 0, size[0]) != NULL:
        raise SQLError(f"{handle.path}: prepare: the SQL is too long or holds a NUL character",
                       path=handle.path, operation="prepare", sql=sql, data="unchanged")
    return text


cdef int bind_value(sqlite3_stmt* stmt, int index, object value) except -1:
    """Bind one Python value; SQLite copies it. Returns SQLite's result code."""
    cdef Py_ssize_t size
    cdef const char* text
    cdef Py_buffer view
    cdef int rc
    if value is None:
        return sqlite3_bind_null(stmt, index)
    # Nearly all are texts: to ask NumPy about each takes longer than to bind it.
    if type(value) is not str and isinstance(value, numpy.generic):
        value = plain_value(index, value)
    if isinstance(value, str):
        try:
            text = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError as error:
            raise ColumnError(f"parameter {index}: text with a lone surrogate cannot be stored: "
                              f"{value[:40]!r}") from error
        check_length(index, size)
        return sqlite3_bind_text(stmt, index, text, <int> size, SQLITE_TRANSIENT)
    if isinstance(value, float):
        if value != value:
            raise ColumnError(f"parameter {index}: NaN cannot be stored; SQLite would make it NULL")
        return sqlite3_bind_double(stmt, index, <double> value)
    if isinstance(value, int):
        try:
            return sqlite3_bind_int64(stmt, index, <sqlite3_int64> value)
        except OverflowError as error:
            raise ColumnError(f"parameter {index}: {value} does not fit 64 bits") from error
    if PyObject_CheckBuffer(value):
        try:
            PyObject_GetBuffer(value, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT)
        except (BufferError, ValueError) as error:
            raise ColumnError(f"parameter {index}: the memory of a {type(value).__name__} cannot be "
                              f"stored as it is ({error})") from error
        try:
            if view.format != NULL and holds_objects(view.format):
                raise ColumnError(f"parameter {index}: a {type(value).__name__} of Python objects "
                                  f"cannot be stored; their memory holds addresses")
            check_length(index, view.len)
            # A NULL pointer would bind NULL, not an empty blob.
            rc = sqlite3_bind_blob(stmt, index, view.buf if view.len else <const void*> b"",
                                   <int> view.len, SQLITE_TRANSIENT)
        finally:
            PyBuffer_Release(&view)
        return rc
    raise ColumnError(f"parameter {index}: {type(value).__name__} cannot be stored; give None, int, "
                      f"float, str or a buffer of bytes")


cdef object plain_value(int index, object value):
    """What a NumPy scalar holds, as Python's own type."""
    if isinstance(value, numpy.floating):
        return float(value)
    if isinstance(value, (numpy.datetime64, numpy.timedelta64)):
        raise ColumnError(f"parameter {index}: {type(value).__name__} cannot be stored; give text or "
                          f"an int")
    return value.item()


cdef bint holds_objects(const char* format):
    """Whether a buffer's format has Python objects in it; names of fields stand between colons."""
    return b"O" in b"".join((<bytes> format).split(b":")[::2])


cdef bint holds_statement(sqlite3* db, const char* rest) noexcept:
    """Whether anything but white space and comments is in `rest`."""
    cdef sqlite3_stmt* stmt = NULL
    while rest[0] != 0:
        if sqlite3_prepare_v3(db, rest, -1, 0, &stmt, &rest) != SQLITE_OK:
            return True
        if stmt != NULL:
            sqlite3_finalize(stmt)
            return True
    return False


cdef int check_length(int index, Py_ssize_t size) except -1:
    if size > 0x7FFFFFFF:
        raise ColumnError(f"parameter {index}: {size} bytes is more than SQLite holds in one value")
    return 0


cdef object column_value(sqlite3_stmt* stmt, int column):
    cdef int kind = sqlite3_column_type(stmt, column)
    cdef const char* data
    if kind == SQLITE_TEXT:
        data = <const char*> sqlite3_column_text(stmt, column)
        if data == NULL:
            raise MemoryError("sqlite3_column_text")
        try:
            return PyUnicode_DecodeUTF8(data, sqlite3_column_bytes(stmt, column), "strict")
        except UnicodeDecodeError as error:
            name = sqlite3_column_name(stmt, column).decode("utf-8", "replace")
            raise CorruptRowError(f"column {name!r} holds text that is not UTF-8") from error
    if kind == SQLITE_INTEGER:
        return sqlite3_column_int64(stmt, column)
    if kind == SQLITE_FLOAT:
        return sqlite3_column_double(stmt, column)
    if kind == SQLITE_BLOB:
        data = <const char*> sqlite3_column_blob(stmt, column)
        return PyBytes_FromStringAndSize(data, sqlite3_column_bytes(stmt, column))
    return None


cdef tuple row_values(sqlite3_stmt* stmt, int width):
    return tuple([column_value(stmt, column) for column in range(width)])


@cython.final
cdef class RowBlob:
    """The bytes of one column of a statement's current row, in SQLite's own memory.

    ``memoryview(blob)`` or ``numpy.frombuffer(blob, "f4")`` look at them without a copy. While such a
    view is alive the statement is pinned: step, reset and close raise BufferError. Once the statement
    has moved on, looking raises BufferError too.
    """
    cdef Statement statement
    cdef const void* data
    cdef Py_ssize_t size
    cdef uint64_t row

    def __getbuffer__(self, Py_buffer* view, int flags):
        if self.statement.stmt == NULL or self.statement.row != self.row:
            raise BufferError("the statement has moved on from the row of this blob")
        PyBuffer_FillInfo(view, self, <void*> self.data, self.size, 1, flags)
        self.statement.views += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.statement.views -= 1

    def __len__(self):
        return self.size


@cython.final
@cython.no_gc_clear
cdef class Statement:
    """One prepared SQL statement of a :class:`Connection`.

    Use ``Connection.execute`` unless the same statement runs many times over many rows, or its rows
    are to be read one by one: iterating over a statement steps it, until ``reset`` or ``bind_values``
    begins anew.
    """
    cdef Handle handle
    cdef sqlite3_stmt* stmt
    cdef readonly str sql
    cdef readonly bint active       # stepped, and not yet reset
    cdef bint exhausted             # at its end: iteration stays there until a reset
    cdef uint64_t row               # counts steps and resets: says which row a RowBlob belongs to
    cdef Py_ssize_t views           # buffers lent out of the current row
    cdef object __weakref__

    def __cinit__(self):
        self.stmt = NULL

    def __init__(self):
        raise TypeError("statements are made by Connection.prepare")

    cdef int prepare(self, Handle handle, str sql, unsigned int flags) except -1:
        """Compile `sql`; the handle has been entered."""
        global _open_statements
        cdef Py_ssize_t size
        cdef const char* text = sql_text(handle, sql, &size)
        cdef const char* tail
        cdef int rc
        self.handle = handle
        self.sql = sql
        with nogil:
            rc = sqlite3_prepare_v3(handle.db, text, <int> size, flags, &self.stmt, &tail)
        if rc != SQLITE_OK:
            handle.fail(rc, "prepare", sql)
        if self.stmt == NULL:
            raise SQLError(f"{handle.path}: prepare: there is no statement in {sql!r}",
                           path=handle.path, operation="prepare", sql=sql, data="unchanged")
        _open_statements += 1
        handle.statements.add(self)
        if tail[0] != 0 and holds_statement(handle.db, tail):
            self.finalize()
            raise SQLError(f"{handle.path}: prepare: more than one statement; use executescript",
                           path=handle.path, operation="prepare", sql=sql, data="unchanged",
                           offset=<int> (tail - text))
        return 0

    cdef int enter(self, str operation) except -1:
        if self.stmt == NULL:
            raise ClosedError(f"{operation}: the statement is closed")
        return self.handle.enter(operation)

    cdef int bind(self, object parameters) except -1:
        """Bind a sequence by position or a mapping by name; the handle has been entered."""
        cdef int wanted = sqlite3_bind_parameter_count(self.stmt)
        cdef int index
        cdef const char* name
        cdef tuple values
        if type(parameters) is not tuple and hasattr(parameters, "keys"):
            for index in range(1, wanted + 1):
                name = sqlite3_bind_parameter_name(self.stmt, index)
                key = name[1:].decode() if name != NULL else None
                if key is None or key not in parameters:
                    raise ColumnError(f"no value for parameter {key or index} of {self.sql!r}")
                self.bind_one(index, parameters[key])
            return 0
        if type(parameters) is not tuple \
                and (isinstance(parameters, (str, bytes)) or not hasattr(parameters, "__iter__")):
            raise ColumnError("parameters are a sequence of values; put a single one into a tuple")
        values = tuple(parameters)
        if len(values) != wanted:
            raise ColumnError(f"{len(values)} values for {wanted} parameters of {self.sql!r}")
        for index in range(wanted):
            self.bind_one(index + 1, values[index])
        return 0

    cdef int bind_one(self, int index, object value) except -1:
        cdef int rc = bind_value(self.stmt, index, value)
        if rc != SQLITE_OK:
            self.handle.fail(rc, "bind", self.sql)
        return 0

    cdef int step(self) except -1:
        """SQLITE_ROW or SQLITE_DONE; the handle has been entered."""
        cdef int rc
        self.refuse_views("step")
        self.row += 1
        with nogil:
            rc = sqlite3_step(self.stmt)
        if rc == SQLITE_ROW:
            self.active = True
            return rc
        self.active = False
        if rc == SQLITE_DONE:
            sqlite3_reset(self.stmt)
            return rc
        return self.step_failed(rc)

    cdef int step_failed(self, int rc) except -1:
        cdef str operation = "step"
        head = self.sql.lstrip()[:8].lower()
        for word in ("begin", "commit", "rollback"):
            if head.startswith(word):
                operation = word
        try:
            self.handle.fail(rc, operation, self.sql)
        finally:
            sqlite3_reset(self.stmt)

    cdef int refuse_views(self, str operation) except -1:
        if self.views:
            raise BufferError(f"{operation}: {self.views} views of the current row are still alive; "
                              f"release them first")
        return 0

    cdef void rewind(self) noexcept:
        """Reset and forget the bound values; nothing is lent out."""
        self.active = self.exhausted = False
        self.row += 1
        if self.stmt != NULL:
            sqlite3_reset(self.stmt)
            sqlite3_clear_bindings(self.stmt)

    cdef list run(self, object parameters):
        """Bind, step to the end, return all rows; the handle has been entered."""
        cdef list rows = []
        cdef int width = -1
        self.refuse_views("execute")
        self.rewind()
        try:
            self.bind(parameters)
            while self.step() == SQLITE_ROW:
                if width < 0:   # the first step compiles it again if the schema has changed
                    width = sqlite3_column_count(self.stmt)
                rows.append(row_values(self.stmt, width))
        finally:
            self.rewind()
        return rows

    def execute(self, parameters=()):
        """Bind ``parameters``, run to the end and return all rows as tuples."""
        self.enter("execute")
        try:
            return self.run(parameters)
        finally:
            self.handle.leave()

    def bind_values(self, parameters=()):
        """Reset, then bind ``parameters``; iterate over the statement to read its rows."""
        self.enter("bind")
        try:
            self.refuse_views("bind")
            self.rewind()
            self.bind(parameters)
        finally:
            self.handle.leave()

    def reset(self):
        """Stop reading: lets go of the read snapshot and of the bound values."""
        self.enter("reset")
        try:
            self.refuse_views("reset")
            self.rewind()
        finally:
            self.handle.leave()

    def __iter__(self):
        return self

    def __next__(self):
        self.enter("step")
        try:
            if not self.exhausted:
                if self.step() == SQLITE_ROW:
                    return row_values(self.stmt, sqlite3_column_count(self.stmt))
                self.exhausted = True
        finally:
            self.handle.leave()
        raise StopIteration

    def blob(self, int column):
        """The current row's value of a column as a :class:`RowBlob`, without a copy; None if it is NULL.

        Raises:
            ColumnError: there is no current row, no such column, or its value is not a BLOB.
        """
        cdef RowBlob blob
        cdef int kind
        self.enter("blob")
        try:
            if not self.active or not 0 <= column < sqlite3_column_count(self.stmt):
                raise ColumnError(f"no column {column} in a current row; step first")
            kind = sqlite3_column_type(self.stmt, column)
            if kind == SQLITE_NULL:
                return None
            if kind != SQLITE_BLOB:
                raise ColumnError(f"column {column} is not a BLOB in this row")
            blob = RowBlob.__new__(RowBlob)
            blob.statement = self
            blob.data = sqlite3_column_blob(self.stmt, column)
            blob.size = sqlite3_column_bytes(self.stmt, column)
            blob.row = self.row
            return blob
        finally:
            self.handle.leave()

    @property
    def columns(self):
        """Names of the result columns."""
        self.enter("columns")
        try:
            return tuple([sqlite3_column_name(self.stmt, column).decode()
                          for column in range(sqlite3_column_count(self.stmt))])
        finally:
            self.handle.leave()

    @property
    def readonly(self):
        """True when running the statement cannot write to the database file."""
        self.enter("readonly")
        try:
            return bool(sqlite3_stmt_readonly(self.stmt))
        finally:
            self.handle.leave()

    def close(self):
        """Finalize; a second call does nothing."""
        if self.stmt != NULL:
            self.handle.enter("close")
            try:
                self.refuse_views("close")
                self.finalize()
            finally:
                self.handle.leave()

    cdef void finalize(self) noexcept:
        """Let go of the sqlite3_stmt*; the handle is entered, or closing."""
        cdef sqlite3_stmt* stmt = self.forget()
        if stmt != NULL:
            sqlite3_finalize(stmt)

    cdef sqlite3_stmt* forget(self) noexcept:
        """What is to be finalized, or NULL in a forked child, whose parent owns it."""
        global _open_statements
        cdef sqlite3_stmt* stmt = self.stmt
        if stmt != NULL:
            self.stmt = NULL
            self.active = False
            _open_statements -= 1
            if self.handle.generation != _fork_generation:
                return NULL
        return stmt

    def __dealloc__(self):
        cdef sqlite3_stmt* stmt
        if self.stmt != NULL:
            stmt = self.forget()
            if stmt != NULL and self.handle.owner != 0:
                self.handle.doom(stmt)
            elif stmt != NULL:
                sqlite3_finalize(stmt)
