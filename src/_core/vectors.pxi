# Rows -> matrices and scores. Vectors are unit float32, little-endian (FAFCAS): a dot product is a cosine.

@cython.final
cdef class Arena:
    """Memory that grows while rows arrive, then is lent out through the buffer protocol."""
    cdef char* data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    def __cinit__(self):
        self.data = NULL
        self.size = 0
        self.capacity = 0

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    cdef int append(self, const void* data, Py_ssize_t size) noexcept nogil:
        """Copy `size` bytes to the end; 0, or -1 without memory."""
        if self.size + size > self.capacity and self.reserve(self.size + size) < 0:
            return -1
        if size:
            memcpy(self.data + self.size, data, size)
        self.size += size
        return 0

    cdef int reserve(self, Py_ssize_t size) noexcept nogil:
        """Room for so many bytes in all; 0, or -1 without memory."""
        cdef Py_ssize_t capacity = max(size, self.capacity + self.capacity // 2, 4096)
        cdef void* grown
        if size <= self.capacity:
            return 0
        grown = PyMem_RawRealloc(self.data, capacity)
        if grown == NULL:
            return -1
        self.data = <char*> grown
        self.capacity = capacity
        return 0

    cdef object array(self, dtype):
        """What was appended, as a one-dimensional array that keeps this object alive."""
        return numpy.frombuffer(self, dtype=dtype) if self.size else numpy.empty(0, dtype)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 0, flags)

    def __releasebuffer__(self, Py_buffer* view):
        pass


cdef object wrong_width(object node_id, int bytes_found, Py_ssize_t width):
    return CorruptRowError(
        f"node {node_id!r}: its embedding is {bytes_found} bytes long, not {width} float32 "
        f"({width * 4} bytes); embed it again, or rebuild with `resonance init`", node_id)


cdef object named_row(sqlite3_stmt* stmt, int64_t rowid):
    return column_value(stmt, 2) if sqlite3_column_count(stmt) > 2 else f"rowid {rowid}"


def read_vectors(Connection connection not None, str sql not None, parameters,
                 float[:, ::1] out not None):
    """Run a query of (id, embedding) and copy each vector into the next row of ``out``.

    Args:
        sql: its rows must not outnumber those of ``out``; rows without a vector are left out.
        out: (capacity, width) float32, filled from row 0 on.

    Returns:
        the ids of the rows filled, as :class:`Names`.

    Raises:
        CorruptRowError: a blob has another length, or an id is not UTF-8, naming the node.
    """
    cdef Names names = Names.__new__(Names)
    cdef Handle handle = connection.entered("read embeddings")
    cdef Statement statement
    cdef sqlite3_stmt* stmt
    cdef const void* blob
    cdef const char* name
    cdef Py_ssize_t capacity = out.shape[0], width = out.shape[1], rows = 0
    cdef char* target = <char*> &out[0, 0] if capacity and width else NULL
    cdef int rc, size, blob_size = 0, wanted = <int> (width * sizeof(float)), failed = 0
    try:
        statement = connection.cached(sql)
        try:
            statement.bind(parameters)
            stmt = statement.stmt
            with nogil:
                rc = sqlite3_step(stmt)
                while rc == SQLITE_ROW:
                    name = <const char*> sqlite3_column_text(stmt, 0)
                    size = sqlite3_column_bytes(stmt, 0)
                    blob = sqlite3_column_blob(stmt, 1)
                    blob_size = sqlite3_column_bytes(stmt, 1)
                    if blob == NULL and sqlite3_column_type(stmt, 1) == SQLITE_NULL:
                        rc = sqlite3_step(stmt)
                        continue
                    if blob_size != wanted or blob == NULL or name == NULL:
                        failed = 1
                        break
                    if rows == capacity:
                        failed = 3
                        break
                    if not valid_utf8(name, size):
                        failed = 4
                        break
                    if names.append(name, size) < 0:
                        failed = 2
                        break
                    memcpy(target, blob, wanted)
                    target += wanted
                    rows += 1
                    rc = sqlite3_step(stmt)
            if failed == 1:
                raise wrong_width(column_value(stmt, 0), blob_size, width)
            if failed == 2:
                raise MemoryError()
            if failed == 3:
                raise ColumnError(f"more than {capacity} rows for a matrix of {capacity}")
            if failed == 4:
                raise CorruptRowError(f"the id {(<char*> name)[:size]!r} of a node is not UTF-8")
            handle.check(rc, "read embeddings", sql)
        finally:
            statement.rewind()
    finally:
        handle.leave()
    return names


@cython.final
cdef class Names:
    """Texts as UTF-8, which become ``str`` when asked for: that takes the GIL, and reading them did not."""
    cdef Arena bytes
    cdef Arena ends         # int64: 0, and where each text ends
    cdef list made

    def __cinit__(self):
        cdef int64_t zero = 0
        self.bytes = Arena.__new__(Arena)
        self.ends = Arena.__new__(Arena)
        if self.ends.append(&zero, sizeof(int64_t)) < 0:
            raise MemoryError()

    def __len__(self):
        return self.ends.size // <Py_ssize_t> sizeof(int64_t) - 1

    cdef int append(self, const char* text, Py_ssize_t size) noexcept nogil:
        """Add a text, which must be UTF-8; 0, or -1 without memory."""
        cdef int64_t end = self.bytes.size + size
        if self.bytes.append(text, size) < 0:
            return -1
        return self.ends.append(&end, sizeof(int64_t))

    def extend(self, Names other not None):
        """Add all texts of another one."""
        cdef int64_t start = self.bytes.size, end
        cdef Py_ssize_t row, count = len(other)
        # Room first: the other one may be this one.
        if self.bytes.reserve(self.bytes.size + other.bytes.size) < 0 \
                or self.ends.reserve(self.ends.size + other.ends.size) < 0:
            raise MemoryError()
        self.bytes.append(other.bytes.data, other.bytes.size)
        for row in range(1, count + 1):
            end = start + (<const int64_t*> other.ends.data)[row]
            self.ends.append(&end, sizeof(int64_t))
        self.made = None

    def to_list(self):
        """The texts as a list of ``str``, which is made once."""
        cdef const int64_t* ends = <const int64_t*> self.ends.data
        cdef Py_ssize_t row, count = len(self)
        cdef list made
        if self.made is None:
            made = [None] * count
            for row in range(count):
                made[row] = PyUnicode_DecodeUTF8(self.bytes.data + ends[row], ends[row + 1] - ends[row], "strict")
            self.made = made
        return self.made

    def buffers(self):
        """A copy of the bytes (uint8), and (n + 1,) int64 where each begins and the last ends, as Arrow has it."""
        return self.bytes.array(numpy.uint8).copy(), self.ends.array(numpy.int64).copy()


cdef object not_unit_row(object node_id):
    return CorruptRowError(
        f"node {node_id!r}: its embedding is not of unit norm, or not finite; embed it again, or rebuild "
        f"with `resonance init`", node_id)


cdef bint is_unit(const float* vector, Py_ssize_t width) noexcept nogil:
    """Whether it is what we store: of norm 1, as nearly as older writers' arithmetic made it."""
    return -1e-3 < norm(vector, width) - 1 < 1e-3


cdef extern from "kernels.h" nogil:
    double dot(const float* row, const double* query, size_t width)


def score_vectors(Connection connection not None, str sql not None, parameters,
                  const double[::1] query not None, Py_ssize_t k, double least=-INFINITY,
                  double most=INFINITY):
    """Run a query of (rowid, embedding), score every row in place, in SQLite's own memory, and keep the best.

    A third column is the id that errors name the row by.

    Args:
        query: (width,) float64, of unit norm for scores that are cosines.
        k: how many of the best to keep; all that tie with the k-th are kept too, and all that score
            ``most``, which are not counted.
        least, most: rows that score less or more are left out.

    Returns:
        rowids (n,) int64 and scores (n,) float64 of those kept, in no order; and how many rows there were.

    Raises:
        CorruptRowError: a blob has another width than the query, or is not of unit norm, naming the row.
    """
    cdef Best best = Best.__new__(Best, k, least, most)
    cdef Handle handle
    cdef Statement statement
    cdef sqlite3_stmt* stmt
    cdef const float* vector
    cdef int64_t rowid = 0
    cdef double score
    cdef Py_ssize_t width = query.shape[0], rows = 0
    cdef int rc, size = 0, wanted = <int> (width * sizeof(float)), failed = 0
    if width == 0:
        raise EmbeddingError("a query without dimensions", got=0)
    handle = connection.entered("search")
    try:
        statement = connection.cached(sql)
        try:
            statement.bind(parameters)
            stmt = statement.stmt
            with nogil:
                rc = sqlite3_step(stmt)
                while rc == SQLITE_ROW:
                    rows += 1
                    rowid = sqlite3_column_int64(stmt, 0)
                    vector = <const float*> sqlite3_column_blob(stmt, 1)
                    size = sqlite3_column_bytes(stmt, 1)
                    if size != wanted or vector == NULL:
                        failed = 1
                        break
                    if not is_unit(vector, width):
                        failed = 3
                        break
                    score = dot(vector, &query[0], width)
                    if best.offer(rowid, score) < 0:
                        failed = 2
                        break
                    rc = sqlite3_step(stmt)
            if failed == 1:
                raise wrong_width(named_row(stmt, rowid), size, width)
            if failed == 2:
                raise MemoryError()
            if failed == 3:
                raise not_unit_row(named_row(stmt, rowid))
            handle.check(rc, "search", sql)
        finally:
            statement.rewind()
    finally:
        handle.leave()
    return *best.rows(), rows


cdef void heap_offer(double* heap, Py_ssize_t* size, Py_ssize_t k, double value) noexcept nogil:
    """Keep the k largest values seen, the smallest of them first."""
    cdef Py_ssize_t at, child
    if size[0] < k:
        at = size[0]
        size[0] += 1
        while at > 0 and heap[(at - 1) // 2] > value:
            heap[at] = heap[(at - 1) // 2]
            at = (at - 1) // 2
        heap[at] = value
        return
    if k == 0 or value <= heap[0]:
        return
    at = 0
    while True:
        child = 2 * at + 1
        if child >= k:
            break
        if child + 1 < k and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value


cdef struct Scored:
    int64_t rowid
    double score


@cython.final
cdef class Best:
    """The k best of scores that come one by one, in memory for a few times k of them."""
    cdef Arena kept          # Scored
    cdef Arena heap          # the k best scores, the least of them first
    cdef Py_ssize_t k
    cdef Py_ssize_t size     # of the heap
    cdef Py_ssize_t crowded  # sweep out what cannot be among the best any more beyond so many rows
    cdef double least
    cdef double most

    def __cinit__(self, Py_ssize_t k, double least, double most):
        self.kept = Arena.__new__(Arena)
        self.heap = Arena.__new__(Arena)
        self.k, self.least, self.most = k, least, most
        self.size = 0
        self.crowded = 4096

    cdef int offer(self, int64_t rowid, double score) noexcept nogil:
        """0, or -1 without memory."""
        cdef Scored row
        cdef double* heap
        if score < self.least or score > self.most or self.k <= 0:
            return 0
        row.rowid, row.score = rowid, score
        if self.kept.append(&row, sizeof(Scored)) < 0:
            return -1
        if score < self.most:
            if self.size < self.k and self.heap.append(&score, sizeof(double)) < 0:
                return -1
            heap = <double*> self.heap.data
            heap_offer(heap, &self.size, self.k, score)
            if self.size == self.k and heap[0] > self.least:
                self.least = heap[0]
        if self.kept.size > self.crowded * <Py_ssize_t> sizeof(Scored):
            self.sweep()
            self.crowded = max(self.crowded, 2 * self.kept.size // <Py_ssize_t> sizeof(Scored))
        return 0

    cdef void sweep(self) noexcept nogil:
        cdef Scored* rows = <Scored*> self.kept.data
        cdef Py_ssize_t i, n = 0
        for i in range(self.kept.size // <Py_ssize_t> sizeof(Scored)):
            if rows[i].score >= self.least:
                rows[n] = rows[i]
                n += 1
        self.kept.size = n * sizeof(Scored)

    cdef tuple rows(self):
        self.sweep()
        rows = self.kept.array(numpy.dtype([("rowid", numpy.int64), ("score", numpy.float64)]))
        return rows["rowid"].copy(), rows["score"].copy()


cdef enum:
    TEXTS = 2   # id and title


@cython.final
cdef class Rows:
    """Rows of nodes that were visited once: their scores, and ids and titles that become ``str`` when asked for.

    Attributes:
        scores: (n,) float64, NaN where there is no such row or no vector in it.
    """
    cdef readonly object scores
    cdef Arena bytes
    cdef Arena sizes        # int: of the id and the title of each row, -1 for NULL

    cdef Py_ssize_t begin(self, int64_t* starts) noexcept nogil:
        """Where the texts of each row begin in `bytes`. Returns how many rows there are."""
        cdef const int* sizes = <const int*> self.sizes.data
        cdef Py_ssize_t row, count = self.sizes.size // (TEXTS * <Py_ssize_t> sizeof(int))
        cdef int64_t start = 0
        for row in range(count):
            starts[row] = start
            start += max(sizes[TEXTS * row], 0) + max(sizes[TEXTS * row + 1], 0)
        return count

    cdef object text(self, Py_ssize_t start, int size):
        if size < 0:
            return None
        try:
            return PyUnicode_DecodeUTF8(self.bytes.data + start, size, "strict")
        except UnicodeDecodeError as error:
            raise CorruptRowError(f"the text {self.bytes.data[start:start + size]!r} of a node is not UTF-8") from error

    cdef int keep(self, sqlite3_stmt* stmt) noexcept nogil:
        """The texts of the current row, or of none; 0, or -1 without memory."""
        cdef const char* text
        cdef int column, size, failed = 0
        for column in range(1, TEXTS + 1):
            text = <const char*> sqlite3_column_text(stmt, column) if stmt != NULL else NULL
            size = sqlite3_column_bytes(stmt, column) if text != NULL else -1
            failed |= self.sizes.append(&size, sizeof(int))
            failed |= self.bytes.append(text, max(size, 0))
        return failed


def visit_rows(Connection connection not None, str sql not None, const int64_t[::1] rowids not None,
               const double[::1] query):
    """Score and name the rows that a query of (embedding, id, title), with the rowid as its parameter, finds.

    Args:
        query: (width,) float64, of unit norm for scores that are cosines; None for no scores.

    Returns:
        :class:`Rows`, one for each rowid.

    Raises:
        CorruptRowError: a blob has another width than the query, naming the row.
    """
    cdef Rows rows = Rows.__new__(Rows)
    cdef Handle handle = connection.entered("search")
    cdef Statement statement
    cdef sqlite3_stmt* stmt
    cdef const float* vector
    cdef Py_ssize_t width = 0 if query is None else query.shape[0], i = 0, count = rowids.shape[0]
    cdef int rc = SQLITE_DONE, size = 0, wanted = <int> (width * sizeof(float)), failed = 0
    rows.scores = numpy.full(count, numpy.nan)
    rows.bytes = Arena.__new__(Arena)
    rows.sizes = Arena.__new__(Arena)
    cdef double[::1] scores = rows.scores
    try:
        statement = connection.cached(sql)
        try:
            statement.bind((0,))
            stmt = statement.stmt
            with nogil:
                for i in range(count):
                    sqlite3_reset(stmt)
                    rc = sqlite3_bind_int64(stmt, 1, rowids[i])
                    if rc != SQLITE_OK:
                        break
                    rc = sqlite3_step(stmt)
                    if rc != SQLITE_ROW and rc != SQLITE_DONE:
                        break
                    if rc == SQLITE_ROW and width:
                        vector = <const float*> sqlite3_column_blob(stmt, 0)
                        size = sqlite3_column_bytes(stmt, 0)
                        if vector != NULL and size != wanted:
                            failed = 1
                            break
                        if vector != NULL:
                            scores[i] = dot(vector, &query[0], width)
                    if rows.keep(stmt if rc == SQLITE_ROW else NULL) < 0:
                        failed = 2
                        break
            if failed == 1:
                raise wrong_width(column_value(stmt, 1), size, width)
            if failed == 2:
                raise MemoryError()
            handle.check(rc, "search", sql)
        finally:
            statement.rewind()
    finally:
        handle.leave()
    return rows


def read_rowids(Connection connection not None, str sql not None, parameters):
    """Run a query of one whole number and return its rows: (n,) int64."""
    cdef Arena found = Arena.__new__(Arena)
    cdef Handle handle = connection.entered("search")
    cdef Statement statement
    cdef sqlite3_stmt* stmt
    cdef int64_t rowid
    cdef int rc, failed = 0
    try:
        statement = connection.cached(sql)
        try:
            statement.bind(parameters)
            stmt = statement.stmt
            with nogil:
                rc = sqlite3_step(stmt)
                while rc == SQLITE_ROW and not failed:
                    rowid = sqlite3_column_int64(stmt, 0)
                    failed = found.append(&rowid, sizeof(int64_t))
                    rc = sqlite3_step(stmt)
            if failed:
                raise MemoryError()
            handle.check(rc, "search", sql)
        finally:
            statement.rewind()
    finally:
        handle.leave()
    return found.array(numpy.int64)


def to_fafcas(array):
    """Rows scaled to unit length, as float32: the form in which vectors are stored.

    Args:
        array: (d,) or (n, d) numbers.

    Returns:
        a new float32 array of the same shape, C-contiguous, every row of norm 1 within 1e-6.

    Raises:
        EmbeddingError: a row is not finite, or is all zeros and so has no direction.
    """
    cdef const float[:, ::1] rows
    cdef float[:, ::1] out
    cdef double length
    cdef Py_ssize_t row, i
    if why_no_vector(array) is None:
        return to_fafcas(numpy.asarray(array)[None])[0]
    source = as_vectors(array)
    result = numpy.empty_like(source)
    if source.size == 0:
        return result
    rows, out = source, result
    for row in range(rows.shape[0]):
        length = norm(&rows[row, 0], rows.shape[1])
        if length == INFINITY:
            raise not_finite(f"row {row}", row)
        if length == 0:
            raise EmbeddingError(f"row {row}: all zeros, which has no direction", row=row, got=0.0,
                                 want="a norm above 0")
        for i in range(rows.shape[1]):
            out[row, i] = <float> (rows[row, i] / length)
    return result


def dot_product(a, b):
    """Dot product of two vectors of the same width, summed in float64: their cosine if both are unit.

    Raises:
        EmbeddingError: the widths differ, or one is not a vector of numbers.
    """
    try:
        left, right = numpy.asarray(a), numpy.asarray(b)
    except ValueError as error:
        raise EmbeddingError(f"not a vector of numbers: {error}", want="(d,)") from error
    for array in (left, right):
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            raise EmbeddingError(f"shape {array.shape} of {array.dtype}; give a vector of numbers",
                                 got=array.shape, want="(d,)")
    if left.shape != right.shape:
        raise EmbeddingError(f"{left.shape[0]} dimensions against {right.shape[0]}: vectors of "
                             f"different spaces are not compared", got=right.shape[0],
                             want=left.shape[0])
    return float(numpy.dot(left.astype(numpy.float64), right.astype(numpy.float64)))
