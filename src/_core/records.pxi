# A file beside the database: codes as they stand in memory, and rows with their names to be scored from.

cdef extern from "files.h" nogil:
    int read_whole(int fd, void* data, size_t size, int64_t at)
    int write_whole(int fd, const void* data, size_t size, int64_t at)
    uint64_t checksum_of(const void* data, size_t size, uint64_t seed)

cdef enum:
    CODE_COLUMNS = 4 + LABELS    # codes, scales, errors, rowids, labels
    RECORD_HEAD = 16             # bytes: a checksum of the rest; the sizes of id and title, -1 for NULL
    WRITTEN_AT_ONCE = 1 << 20    # bytes
    MOST_OF_A_RECORD = 0x7fffffff


def checksum(const uint8_t[::1] data not None):
    """A checksum of bytes: what differs within eight of them always gives another one."""
    return checksum_of(&data[0] if data.shape[0] else NULL, data.shape[0], 0)


cdef struct Stretch:
    void* data
    size_t each


cdef void columns_of(const Part* part, size_t stride, Stretch* columns) noexcept nogil:
    cdef int label
    columns[0] = Stretch(<void*> part.codes, stride)
    columns[1] = Stretch(<void*> part.scale, sizeof(float))
    columns[2] = Stretch(<void*> part.error, sizeof(float))
    columns[3] = Stretch(<void*> part.rowid, sizeof(int64_t))
    for label in range(LABELS):
        columns[4 + label] = Stretch(<void*> part.label[label], sizeof(uint32_t))


def write_codes(Codes codes not None, Py_ssize_t count, int fd, int64_t at):
    """Write the rows before a position to a file, block by block, column by column.

    Returns:
        where it ends, and a list of the columns' checksums.

    Raises:
        OSError: the disk is full, for one.
    """
    cdef Parts parts = parts_of(codes, count)
    cdef Stretch columns[CODE_COLUMNS]
    cdef Py_ssize_t i
    cdef int column, failed = 0
    cdef size_t size
    sums = numpy.empty((parts.count, CODE_COLUMNS), numpy.uint64)
    cdef uint64_t[:, ::1] found = sums
    with nogil:
        for i in range(parts.count):
            columns_of(&parts.parts[i], codes.stride, columns)
            for column in range(CODE_COLUMNS):
                size = columns[column].each * parts.parts[i].count
                found[i, column] = checksum_of(columns[column].data, size, 0)
                failed = write_whole(fd, columns[column].data, size, at)
                if failed:
                    break
                at += size
            if failed:
                break
    if failed:
        raise OSError(failed, os.strerror(failed))
    return at, sums.ravel().tolist()


def read_codes(Py_ssize_t width, Py_ssize_t count, float norm, int fd, int64_t at, list sums not None):
    """What :func:`write_codes` has written, without the texts of its labels.

    Returns:
        the :class:`Codes`; None if the file ends before, or a checksum is another.
    """
    cdef Codes codes = Codes(width)
    cdef Block block
    cdef Stretch columns[CODE_COLUMNS]
    cdef Parts parts
    cdef Py_ssize_t i, row
    cdef size_t size
    cdef int column, failed = 0
    if len(sums) != (count + codes.room - 1) // codes.room * CODE_COLUMNS:
        return None
    cdef uint64_t[::1] wanted = numpy.array(sums, numpy.uint64)
    while codes.count < count:
        block = codes.open_block()
        block.count = min(block.room, count - codes.count)
        codes.count += block.count
    parts = parts_of(codes, count)
    with nogil:
        for i in range(parts.count):
            columns_of(&parts.parts[i], codes.stride, columns)
            for column in range(CODE_COLUMNS):
                size = columns[column].each * parts.parts[i].count
                failed = failed or read_whole(fd, columns[column].data, size, at)
                # At once, while it is in the processor's cache.
                if not failed and checksum_of(columns[column].data, size, 0) != wanted[i * CODE_COLUMNS + column]:
                    failed = -1
                at += size
            if failed:
                break
            for row in range(1, parts.parts[i].count):
                if parts.parts[i].rowid[row] < parts.parts[i].rowid[row - 1]:
                    parts.parts[i].ascending = False
                    break
    if failed > 0:
        raise OSError(failed, os.strerror(failed))
    if failed:
        return None
    for i, block in enumerate(codes.blocks):
        block.ascending = parts.parts[i].ascending
    codes.norm = norm
    return codes


def label_texts(Codes codes not None):
    """For each label the texts that its numbers stand for, in their order."""
    cdef Texts texts
    cdef uint32_t number
    cdef Py_ssize_t size = 0
    cdef const char* text
    cdef list told = []
    for texts in codes.texts:
        each = []
        # Who adds one may move them.
        PyThread_acquire_lock(texts.lock, WAIT_LOCK)
        try:
            for number in range(1, texts.count + 1):
                text = texts.text(number, &size)
                each.append(text[:size])
        finally:
            PyThread_release_lock(texts.lock)
        told.append(each)
    return told


def set_label_texts(Codes codes not None, list told not None):
    """Give the numbers of the labels the texts that :func:`label_texts` told, to codes that have none."""
    cdef Texts texts
    cdef bytes text
    for texts, each in zip(codes.texts, told, strict=True):
        for text in each:
            if texts.number(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)) == 0:
                raise MemoryError()


def write_records(Connection connection not None, str sql not None, const int64_t[::1] rowids not None,
                  Py_ssize_t width, int fd, int64_t at):
    """Write the rows that a query of (embedding, id, title), with the rowid as its parameter, finds.

    Returns:
        (n + 1,) int64: where each record begins and the last ends; None if a row is not there, or has no
        vector of this width.

    Raises:
        OSError: the disk is full, for one.
    """
    cdef Handle handle = connection.entered("keep vectors")
    cdef Statement statement
    cdef sqlite3_stmt* stmt
    cdef Arena buffer = Arena.__new__(Arena)
    cdef Py_ssize_t i = 0, count = rowids.shape[0], start
    cdef int rc = SQLITE_DONE, failed = 0, missing = 0, wanted = <int> (width * sizeof(float))
    cdef const void* vector
    cdef uint64_t total
    result = numpy.empty(count + 1, numpy.int64)
    cdef int64_t[::1] ends = result
    try:
        statement = connection.cached(sql)
        try:
            statement.bind((0,))
            stmt = statement.stmt
            with nogil:
                for i in range(count):
                    ends[i] = at + buffer.size
                    sqlite3_reset(stmt)
                    rc = sqlite3_bind_int64(stmt, 1, rowids[i])
                    if rc == SQLITE_OK:
                        rc = sqlite3_step(stmt)
                    if rc != SQLITE_ROW:
                        break
                    vector = sqlite3_column_blob(stmt, 0)
                    if vector == NULL or sqlite3_column_bytes(stmt, 0) != wanted:
                        missing = 1
                        break
                    start = buffer.size
                    if append_record(buffer, stmt, vector, wanted) < 0:
                        failed = ENOMEM
                        break
                    total = checksum_of(buffer.data + start + 8, buffer.size - start - 8, <uint64_t> rowids[i])
                    memcpy(buffer.data + start, &total, 8)
                    if buffer.size >= WRITTEN_AT_ONCE:
                        failed = write_whole(fd, buffer.data, buffer.size, at)
                        if failed:
                            break
                        at += buffer.size
                        buffer.size = 0
                if not failed:
                    failed = write_whole(fd, buffer.data, buffer.size, at)
                    at += buffer.size
            if failed:
                raise OSError(failed, os.strerror(failed))
            if rc != SQLITE_ROW and rc != SQLITE_DONE:
                handle.check(rc, "keep vectors", sql)
        finally:
            statement.rewind()
    finally:
        handle.leave()
    if missing or (count and rc != SQLITE_ROW):
        return None
    ends[count] = at
    return result


cdef int append_record(Arena buffer, sqlite3_stmt* stmt, const void* vector, int size) noexcept nogil:
    """0, or -1 without memory."""
    cdef uint64_t nothing = 0
    cdef Py_ssize_t at = buffer.size
    cdef int sizes[TEXTS]
    cdef int column, failed = 0
    cdef const char* text
    # The vector first: SQLite may move it when it is asked for a text.
    failed |= buffer.append(&nothing, 8)
    failed |= buffer.append(&nothing, 8)
    failed |= buffer.append(vector, size)
    for column in range(TEXTS):
        text = <const char*> sqlite3_column_text(stmt, column + 1)
        sizes[column] = sqlite3_column_bytes(stmt, column + 1) if text != NULL else -1
        failed |= buffer.append(text, max(sizes[column], 0))
    if not failed:
        memcpy(buffer.data + at + 8, sizes, sizeof(sizes))
        failed |= buffer.append(&nothing, -buffer.size & 7)
    return failed


def read_records(int fd, const int64_t[::1] ends not None, const int64_t[::1] positions not None,
                 const int64_t[::1] rowids not None, const double[::1] query not None):
    """Score and name rows by what :func:`write_records` has written of them.

    Args:
        ends: what it returned.
        positions: of the rows in there; ``rowids`` is what they must be.

    Returns:
        :class:`Rows`; the score of a row whose record cannot be read, or is damaged, is NaN.
    """
    cdef Rows rows = Rows.__new__(Rows)
    cdef Arena buffer = Arena.__new__(Arena)
    cdef Py_ssize_t i, position, count = positions.shape[0], width = query.shape[0]
    cdef int64_t size
    cdef int failed = 0
    if rowids.shape[0] != count:
        raise ColumnError(f"{count} positions and {rowids.shape[0]} rowids")
    rows.scores = numpy.full(count, numpy.nan)
    rows.bytes = Arena.__new__(Arena)
    rows.sizes = Arena.__new__(Arena)
    cdef double[::1] scores = rows.scores
    with nogil:
        for i in range(count):
            position = positions[i]
            size = 0
            if 0 <= position < ends.shape[0] - 1:
                size = ends[position + 1] - ends[position]
            if size < RECORD_HEAD or size > MOST_OF_A_RECORD or buffer.reserve(size) < 0 \
                    or read_whole(fd, buffer.data, size, ends[position]) != 0:
                size = 0
            failed |= take_record(rows, buffer.data, size, <uint64_t> rowids[i], &query[0], width, &scores[i])
    if failed:
        raise MemoryError()
    return rows


cdef int take_record(Rows rows, const char* record, int64_t size, uint64_t seed, const double* query, Py_ssize_t width,
                     double* score) noexcept nogil:
    """0, or -1 without memory. Of what is no whole record there is no score, and no name."""
    cdef int sizes[TEXTS]
    cdef int64_t used = 0
    cdef uint64_t total = 0
    cdef const char* texts = record + RECORD_HEAD + width * <Py_ssize_t> sizeof(float)
    sizes[0] = sizes[1] = -1
    if size:
        memcpy(&total, record, 8)
        memcpy(sizes, record + 8, sizeof(sizes))
        used = RECORD_HEAD + width * <Py_ssize_t> sizeof(float) + max(sizes[0], 0) + max(sizes[1], 0)
        if used <= size and total == checksum_of(record + 8, size - 8, seed):
            score[0] = dot(<const float*> (record + RECORD_HEAD), query, width)
        else:
            sizes[0] = sizes[1] = -1
    if rows.sizes.append(sizes, sizeof(sizes)) < 0:
        return -1
    return rows.bytes.append(texts, max(sizes[0], 0) + max(sizes[1], 0))


def named_rows(type kind not None, list visits not None, const int64_t[::1] numbers not None,
               const double[::1] scores not None, tuple rest not None):
    """Make an object of each of some rows.

    Args:
        kind: a subclass of tuple, without a place for anything else.
        visits: :class:`Rows`, numbered through from the first row of the first one on.
        numbers, scores: (n,) which rows, in which order, and what they score.
        rest: what else each object holds; nothing that may ever refer to it.

    Returns:
        a list of ``kind``: (id, score, title, *rest).

    Raises:
        CorruptRowError: a text is not UTF-8.
    """
    cdef Py_ssize_t i, count = len(visits)
    cdef Rows rows
    cdef list found = [None] * numbers.shape[0]
    cdef int64_t[::1] firsts = numpy.zeros(count + 1, numpy.int64)
    cdef int64_t[::1] starts = numpy.empty(sum([len(rows.scores) for rows in visits]) + 1, numpy.int64)
    if not issubclass(kind, tuple) or scores.shape[0] != numbers.shape[0]:
        raise ColumnError(f"{kind!r} of {numbers.shape[0]} rows with {scores.shape[0]} scores")
    for i, rows in enumerate(visits):
        firsts[i + 1] = firsts[i] + rows.begin(&starts[firsts[i]])
    # Every few hundred of them the collector would look at all that is young, and find nothing.
    cdef bint collecting = PyGC_Disable()
    try:
        fill_named(found, kind, visits, numbers, scores, rest, firsts, starts)
    finally:
        if collecting:
            PyGC_Enable()
    return found


cdef int fill_named(list found, type kind, list visits, const int64_t[::1] numbers, const double[::1] scores,
                    tuple rest, const int64_t[::1] firsts, const int64_t[::1] starts) except -1:
    cdef Py_ssize_t i, at, item, count = len(visits), size = 3 + len(rest)
    cdef int64_t start
    cdef const int* sizes
    cdef Rows rows
    cdef object made, name, title
    for i in range(numbers.shape[0]):
        if not 0 <= numbers[i] < firsts[count]:
            raise IndexError(f"row {numbers[i]} of {firsts[count]}")
        at = last_at_most(&firsts[0], count, numbers[i])
        rows = visits[at]
        start = starts[numbers[i]]
        sizes = <const int*> rows.sizes.data + TEXTS * (numbers[i] - firsts[at])
        name = rows.text(start, sizes[0])
        title = rows.text(start + max(sizes[0], 0), sizes[1])
        if TUPLES_HAVE_MORE:
            found[i] = tuple.__new__(kind, (name, scores[i], title, *rest))
            continue
        made = PyType_GenericAlloc(kind, size)
        fill_tuple(made, 0, name)
        fill_tuple(made, 1, scores[i])
        fill_tuple(made, 2, title)
        for item in range(3, size):
            fill_tuple(made, item, rest[item - 3])
        # It is no part of a cycle, so the collector need not look at thousands of them.
        PyObject_GC_UnTrack(made)
        found[i] = made
    return 0


cdef inline int fill_tuple(object made, Py_ssize_t item, object value) except -1:
    Py_INCREF(value)
    PyTuple_SET_ITEM(made, item, value)
    return 0
