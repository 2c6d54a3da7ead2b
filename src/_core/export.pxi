# Rows -> the buffers of Arrow columns: no Python object for a row.

@cython.final
cdef class OutColumn:
    cdef Arena data         # text bytes; or float64, or width * float32, one for each row
    cdef Arena offsets      # int64: where the text of each row ends
    cdef Arena valid        # one byte a row


def read_columns(Connection connection not None, str sql not None, parameters, str kinds not None,
                 Py_ssize_t width=0):
    """Run a query and return its columns as buffers.

    Args:
        kinds: for each column ``t`` (text), ``r`` (a number) or ``v`` (a vector of ``width`` float32).

    Returns:
        for each column (data, offsets, valid): uint8 bytes; int64, n + 1 of them for text; bool (n,).
        A missing number or vector takes its room in ``data`` all the same.

    Raises:
        CorruptRowError: a vector has another width; the first column names the node. Or a text is not UTF-8.
    """
    cdef Handle handle
    cdef Statement statement
    cdef sqlite3_stmt* stmt
    cdef list columns = []
    cdef OutColumn column
    cdef void** out
    cdef char* kind = NULL
    cdef bytes kind_bytes = kinds.encode()
    cdef int count = len(kind_bytes), index, rc, failed = 0
    cdef int64_t zero = 0
    cdef bytes blank = bytes(width * sizeof(float))
    cdef const char* nothing = blank
    kind = kind_bytes
    for letter in kinds:
        column = OutColumn.__new__(OutColumn)
        column.data, column.offsets, column.valid = Arena(), Arena(), Arena()
        if letter == "t" and column.offsets.append(&zero, sizeof(int64_t)) < 0:
            raise MemoryError()
        columns.append(column)
    out = <void**> PyMem_RawMalloc(max(count, 1) * sizeof(void*))
    if out == NULL:
        raise MemoryError()
    for index in range(count):
        out[index] = <void*> columns[index]
    try:
        handle = connection.entered("export")
        try:
            statement = connection.cached(sql)
            try:
                statement.bind(parameters)
                stmt = statement.stmt
                with nogil:
                    rc = sqlite3_step(stmt)
                    while rc == SQLITE_ROW and not failed:
                        for index in range(count):
                            failed = append_value(<OutColumn> out[index], stmt, index, kind[index],
                                                  <int> (width * sizeof(float)), nothing)
                            if failed:
                                break
                        else:
                            rc = sqlite3_step(stmt)
                if failed == 1:
                    raise wrong_width(column_value(stmt, 0), sqlite3_column_bytes(stmt, index), width)
                if failed == 2:
                    raise MemoryError()
                if failed == 3:
                    column_value(stmt, index)   # which raises, and names the column
                handle.check(rc, "export", sql)
            finally:
                statement.rewind()
        finally:
            handle.leave()
    finally:
        PyMem_RawFree(out)
    return [((<OutColumn> each).data.array(numpy.uint8), (<OutColumn> each).offsets.array(numpy.int64),
             (<OutColumn> each).valid.array(numpy.bool_)) for each in columns]


cdef int append_value(OutColumn column, sqlite3_stmt* stmt, int index, char kind, int vector_size,
                      const char* nothing) noexcept nogil:
    """0, or 1 for a vector of another size, 2 without memory, 3 for text that is not UTF-8."""
    cdef uint8_t valid = sqlite3_column_type(stmt, index) != SQLITE_NULL
    cdef const void* data
    cdef double number
    cdef int64_t end
    cdef int size
    if column.valid.append(&valid, 1) < 0:
        return 2
    if kind == b"t":
        data = sqlite3_column_text(stmt, index)
        size = sqlite3_column_bytes(stmt, index)
        if size and (data == NULL or column.data.append(data, size) < 0):
            return 2
        if not valid_utf8(<const char*> data, size):
            return 3
        end = column.data.size
        return 2 if column.offsets.append(&end, sizeof(int64_t)) < 0 else 0
    if kind == b"r":
        number = sqlite3_column_double(stmt, index)
        return 2 if column.data.append(&number, sizeof(double)) < 0 else 0
    data = sqlite3_column_blob(stmt, index)
    if valid and sqlite3_column_bytes(stmt, index) != vector_size:
        return 1
    return 2 if vector_size and column.data.append(data if valid else nothing, vector_size) < 0 else 0
