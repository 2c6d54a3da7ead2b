# Vectors in a quarter of the bytes: int8 codes that stay in memory, and a scan that loses nothing by them.
#
# A row x is kept as x8, its scale s and e = |x - s x8|. For a unit query q, kept as q8 with scale t and
# error f, Cauchy and Schwarz give |q.x - t s q8.x8| <= e + |s x8| f. So a row whose upper bound does not
# reach the k-th best lower bound is not among the k best, and the few that remain are scored exactly.

cdef extern from "kernels.h" nogil:
    const int QUERIES  # 4
    const int TILE     # 256
    const int LANES    # 16
    void score_one(const uint8_t* rows, size_t stride, size_t count, const int8_t* query, int32_t* out)
    void score_many(const uint8_t* rows, size_t stride, size_t count, const int8_t* queries,
                    int32_t* out, size_t out_stride)
    size_t rows_that_pass(const int32_t* sums, const float* scale, const float* error, size_t count,
                          float query_scale, int32_t shift, float slack, float least, float* middle,
                          uint32_t* passed)
    int encode_row(const float* vector, size_t width, size_t stride, uint8_t* codes, float* scale,
                   float* error, float* norm)
    size_t rows_that_match(const uint32_t** labels, const uint32_t* wanted, size_t start, size_t count,
                           uint32_t* matched)
    double precise_sum(const uint8_t* row, const float* query, size_t width)
    const char* kernels_choose(const char* wanted)

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)
    void free(void* memory)

cdef extern from *:
    """
    #if defined(__linux__)
    #include <sys/mman.h>
    #define resonance_huge_pages(memory, size) madvise(memory, size, MADV_HUGEPAGE)
    #else
    #define resonance_huge_pages(memory, size) ((void) 0)
    #endif
    """
    void resonance_huge_pages(void* memory, size_t size) nogil

kernels_choose(NULL)

cdef enum:
    BLOCK = 4 << 20 # bytes of codes whose memory is asked for at once
    HUGE = 2 << 20  # bytes of a huge page
    AHEAD = 8       # rows whose memory is asked for before they are needed
    LABELS = 3      # columns a filter can ask for without a look at the database

# Float32 arithmetic on numbers near 1 that are added and multiplied a few times.
cdef float ROUNDING = 2e-6


def choose_kernel(name=None):
    """Use the kernels called ``name``: ``"vnni"``, ``"avx2"``, ``"plain"``; default: the best for this machine.

    Returns:
        the name of those in use; None if this machine cannot run those wanted.
    """
    cdef bytes wanted = None if name is None else name.encode()
    cdef const char* chosen = kernels_choose(NULL if wanted is None else <const char*> wanted)
    return None if chosen == NULL else chosen.decode()


@cython.final
cdef class Block:
    """Room for some rows. What is written is never changed, so it may be read while rows are added."""
    cdef uint8_t* codes
    cdef float* scale
    cdef float* error
    cdef int64_t* rowid
    cdef uint32_t* label[LABELS]
    cdef Py_ssize_t start    # position of the first row
    cdef Py_ssize_t count
    cdef Py_ssize_t room
    cdef bint ascending      # in rowids

    def __cinit__(self):
        self.codes = NULL
        self.scale = self.error = NULL
        self.rowid = NULL
        self.label[0] = self.label[1] = self.label[2] = NULL
        self.ascending = True

    def __dealloc__(self):
        free(self.codes)
        PyMem_RawFree(self.scale)

    cdef int make(self, size_t stride, Py_ssize_t room) noexcept nogil:
        """0, or -1 without memory."""
        cdef size_t size = (room * stride + HUGE - 1) // HUGE * HUGE
        cdef void* memory = NULL
        cdef size_t each = 2 * sizeof(float) + sizeof(int64_t) + LABELS * sizeof(uint32_t)
        # Huge pages need their alignment; the scan then seldom waits for the page tables.
        if posix_memalign(&memory, HUGE, size) != 0:
            return -1
        self.codes = <uint8_t*> memory
        resonance_huge_pages(memory, size)
        memory = PyMem_RawMalloc(room * each)
        if memory == NULL:
            return -1
        self.scale = <float*> memory
        self.error = self.scale + room
        self.rowid = <int64_t*> (self.error + room)
        self.label[0] = <uint32_t*> (self.rowid + room)
        self.label[1] = self.label[0] + room
        self.label[2] = self.label[1] + room
        self.room = room
        return 0


@cython.final
cdef class Codes:
    """Rows of codes, to which rows can be added while others scan those that were there before.

    Attributes:
        width: dimensions of the vectors.
        count: rows added so far; their positions are 0, 1, ...
        norm: a bound on the length of every row's decoded vector.
    """
    cdef list blocks
    cdef list texts
    cdef readonly Py_ssize_t width
    cdef readonly Py_ssize_t count
    cdef readonly float norm
    cdef size_t stride
    cdef Py_ssize_t room     # rows of each block

    def __cinit__(self, Py_ssize_t width):
        if width < 1 or width > 65536:
            raise EmbeddingError(f"{width} dimensions; 1 to 65,536 can be searched", got=width)
        self.width = width
        self.stride = (width + 63) // 64 * 64
        self.room = max(BLOCK // <Py_ssize_t> self.stride // TILE, 1) * TILE
        self.blocks = []
        self.count = 0
        self.norm = 1
        self.texts = [Texts.__new__(Texts) for label in range(LABELS)]

    @property
    def nbytes(self):
        """Bytes of memory that the rows take."""
        cdef size_t each = self.stride + 2 * sizeof(float) + sizeof(int64_t) + LABELS * sizeof(uint32_t)
        return len(self.blocks) * self.room * each

    cdef Block open_block(self):
        cdef Block block
        if self.blocks:
            block = self.blocks[len(self.blocks) - 1]
            if block.count < block.room:
                return block
        block = Block.__new__(Block)
        block.start = self.count
        if block.make(self.stride, self.room) < 0:
            raise MemoryError()
        self.blocks.append(block)
        return block

    def append(self, Connection connection not None, str sql not None, parameters):
        """Run a query of (rowid, embedding, and three labels) and add its rows.

        Returns:
            how many.

        Raises:
            CorruptRowError: a vector has another width, or is not of unit norm, naming the row.
        """
        cdef Handle handle = connection.entered("load vectors")
        cdef Statement statement
        cdef sqlite3_stmt* stmt
        cdef Block block
        cdef const float* vector
        cdef const char* text
        cdef int64_t rowid = 0
        cdef int rc, size = 0, label, failed = 0, wanted = <int> (self.width * sizeof(float))
        cdef Py_ssize_t before = self.count, row
        cdef float norm = self.norm
        cdef void* texts[LABELS]
        cdef uint32_t number[LABELS]
        for label in range(LABELS):
            texts[label] = <void*> self.texts[label]
            number[label] = 0
        try:
            statement = connection.cached(sql)
            try:
                statement.bind(parameters)
                stmt = statement.stmt
                block = self.open_block()
                with nogil:
                    rc = sqlite3_step(stmt)
                    while rc == SQLITE_ROW:
                        if block.count == block.room:
                            with gil:
                                block = self.open_block()
                        row = block.count
                        rowid = sqlite3_column_int64(stmt, 0)
                        vector = <const float*> sqlite3_column_blob(stmt, 1)
                        size = sqlite3_column_bytes(stmt, 1)
                        if size != wanted or vector == NULL:
                            failed = 1
                            break
                        if not is_unit(vector, self.width) \
                                or encode_row(vector, self.width, self.stride, block.codes + row * self.stride,
                                              &block.scale[row], &block.error[row], &norm) < 0:
                            failed = 2
                            break
                        for label in range(LABELS):
                            text = <const char*> sqlite3_column_text(stmt, 2 + label)
                            size = sqlite3_column_bytes(stmt, 2 + label)
                            if text == NULL:
                                block.label[label][row] = 0
                                continue
                            # Rows mostly have what the row before them has.
                            if number[label] == 0 \
                                    or not (<Texts> texts[label]).is_text(number[label], text, size):
                                number[label] = (<Texts> texts[label]).number(text, size)
                                if number[label] == 0:
                                    failed = 3
                                    break
                            block.label[label][row] = number[label]
                        if failed:
                            break
                        if row and rowid < block.rowid[row - 1]:
                            block.ascending = False
                        block.rowid[row] = rowid
                        block.count += 1
                        self.count += 1
                        rc = sqlite3_step(stmt)
                self.norm = norm
                if failed == 1:
                    raise wrong_width(f"rowid {rowid}", size, self.width)
                if failed == 2:
                    raise not_unit_row(f"rowid {rowid}")
                if failed == 3:
                    raise MemoryError()
                handle.check(rc, "load vectors", sql)
            finally:
                statement.rewind()
        finally:
            handle.leave()
        return self.count - before

    def absorb(self, list others not None):
        """Take over the rows of others of the same width, which are empty afterwards; own rows may move.

        Whole blocks are taken as they are. The rows of those that are not full come behind them, together.
        """
        cdef Codes other
        cdef Block block
        cdef list blocks = self.blocks, parts = []
        for other in others:
            if other.width != self.width:
                raise EmbeddingError(f"codes of {other.width} dimensions to codes of {self.width}", got=other.width)
            self.share_texts(other)
            blocks = blocks + other.blocks
            self.norm = max(self.norm, other.norm)
            other.blocks = []
            other.count = 0
        self.blocks = []
        self.count = 0
        for block in blocks:
            if block.count == block.room:
                block.start = self.count
                self.blocks.append(block)
                self.count += block.count
            else:
                parts.append(block)
        for block in parts:
            self.add_rows(block)

    cdef int share_texts(self, Codes other) except -1:
        """Give the labels of another one's rows the numbers that their texts have here."""
        cdef Block block
        cdef Py_ssize_t row
        cdef int label
        cdef Texts here, there
        cdef uint32_t number
        cdef Py_ssize_t size
        cdef const char* text
        cdef uint32_t[::1] numbers
        for label in range(LABELS):
            here, there = self.texts[label], other.texts[label]
            numbers = numpy.zeros(there.count + 1, numpy.uint32)
            for number in range(1, there.count + 1):
                text = there.text(number, &size)
                numbers[number] = here.number(text, size)
                if numbers[number] == 0:
                    raise MemoryError()
            for block in other.blocks:
                for row in range(block.count):
                    block.label[label][row] = numbers[block.label[label][row]]
        return 0

    cdef int add_rows(self, Block rows) except -1:
        cdef Block block
        cdef Py_ssize_t start = 0, n
        cdef int label
        while start < rows.count:
            block = self.open_block()
            n = min(block.room - block.count, rows.count - start)
            memcpy(block.codes + block.count * self.stride, rows.codes + start * self.stride, n * self.stride)
            memcpy(block.scale + block.count, rows.scale + start, n * sizeof(float))
            memcpy(block.error + block.count, rows.error + start, n * sizeof(float))
            memcpy(block.rowid + block.count, rows.rowid + start, n * sizeof(int64_t))
            for label in range(LABELS):
                memcpy(block.label[label] + block.count, rows.label[label] + start, n * sizeof(uint32_t))
            if not rows.ascending or (block.count and rows.rowid[start] < block.rowid[block.count - 1]):
                block.ascending = False
            block.count += n
            self.count += n
            start += n
        return 0

    def rowids(self, const int64_t[::1] positions not None):
        """(n,) int64: the rowids at these positions."""
        cdef Py_ssize_t i
        cdef Parts parts = parts_of(self, self.count)
        cdef const Part* part = NULL
        result = numpy.empty(positions.shape[0], numpy.int64)
        cdef int64_t[::1] out = result
        for i in range(positions.shape[0]):
            part = parts.holding(positions[i], part)
            out[i] = part.rowid[positions[i] - part.start]
        return result

    def locate(self, const int64_t[::1] lows not None, const int64_t[::1] highs not None, Py_ssize_t count):
        """Positions below ``count`` whose rowid lies in one of the ranges low..high, both included.

        Args:
            lows, highs: ascending, ranges that do not overlap.

        Returns:
            (n,) int64, ascending.
        """
        cdef Arena found = Arena.__new__(Arena)
        cdef Parts parts = parts_of(self, count)
        cdef Py_ssize_t i
        cdef int failed = 0
        if lows.shape[0]:
            with nogil:
                for i in range(parts.count):
                    failed |= rows_in_ranges(&parts.parts[i], &lows[0], &highs[0], lows.shape[0], found)
        if failed:
            raise MemoryError()
        return found.array(numpy.int64)

    def labelled(self, wanted, Py_ssize_t count):
        """Positions below ``count`` whose labels are as wanted: text for text, None for whatever it be.

        Returns:
            (n,) int64, ascending.
        """
        cdef Arena found = Arena.__new__(Arena)
        cdef Parts parts = parts_of(self, count)
        cdef uint32_t numbers[LABELS]
        cdef bytes text
        cdef Py_ssize_t i
        cdef int label, failed = 0
        for label in range(LABELS):
            numbers[label] = 0
            if wanted[label] is not None:
                text = wanted[label].encode()
                numbers[label] = (<Texts> self.texts[label]).find(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
                if numbers[label] == 0:
                    return numpy.empty(0, numpy.int64)
        with nogil:
            for i in range(parts.count):
                failed |= rows_with_labels(&parts.parts[i], numbers, found)
        if failed:
            raise MemoryError()
        return found.array(numpy.int64)

    def candidates(self, const double[:, ::1] queries not None, Py_ssize_t k, Py_ssize_t count,
                   const uint8_t[::1] dead, const int64_t[::1] positions, double least, double most, int threads=1):
        """The rows that may be among the k best, for each query: all that are, and few others.

        Args:
            queries: (q, width) float64, unit rows.
            k: 1 or more.
            count: look at the rows before this position.
            dead: (count,) 1 for rows to leave out; or None.
            positions: look at these only, ascending; or None.
            least, most: scores to look for; a row is left out when its bounds say it is beyond.
            threads: how many share the work, this one among them; where ``positions`` are given, it does all.

        Returns:
            for each query positions (n,) int64, and bounds low (n,) and high (n,) float32 of their scores.
        """
        cdef Scan scan = Scan.__new__(Scan), helper
        cdef Py_ssize_t q, number = queries.shape[0]
        if queries.shape[1] != self.width:
            raise EmbeddingError(f"queries of {queries.shape[1]} dimensions, not {self.width}", got=queries.shape[1])
        if k < 1 or count > self.count or (dead is not None and dead.shape[0] < count):
            raise ColumnError(f"k={k}, {count} rows of {self.count}")
        if positions is not None and positions.shape[0] \
                and (positions[0] < 0 or positions[positions.shape[0] - 1] >= count):
            raise ColumnError(f"positions up to {positions[positions.shape[0] - 1]} of {count} rows")
        if number == 0:
            return []
        scan.prepare(self, queries, k, count, least, most)
        scan.dead = NULL if dead is None or dead.shape[0] == 0 else &dead[0]
        if positions is None:
            for _ in range(1, threads):
                helper = Scan.__new__(Scan)
                helper.prepare(self, queries, k, count, least, most)
                helper.dead = scan.dead
                scan.helpers.append(helper)
            scan.look_through()
        elif positions.shape[0]:
            scan.some_rows(&positions[0], positions.shape[0])
            scan.settle()
        return [scan.found(q) for q in range(number)]


cdef struct Part:
    const uint8_t* codes
    const float* scale
    const float* error
    const int64_t* rowid
    const uint32_t* label[LABELS]
    Py_ssize_t start
    Py_ssize_t count
    bint ascending


@cython.final
cdef class Parts:
    """The blocks up to a position as plain structs: a whole job is done on them without the GIL."""
    cdef list blocks         # kept alive
    cdef Part* parts
    cdef Py_ssize_t count

    def __cinit__(self):
        self.parts = NULL

    def __dealloc__(self):
        PyMem_RawFree(self.parts)

    cdef const Part* holding(self, Py_ssize_t position, const Part* near) noexcept nogil:
        """The part that holds a position; `near` is looked at first, unless it is NULL."""
        cdef Py_ssize_t low = 0, high = self.count, middle
        if near != NULL and near.start <= position < near.start + near.count:
            return near
        while high - low > 1:
            middle = (low + high) // 2
            if self.parts[middle].start <= position:
                low = middle
            else:
                high = middle
        return &self.parts[low]


cdef Parts parts_of(Codes codes, Py_ssize_t count):
    cdef Parts made = Parts.__new__(Parts)
    cdef Block block
    cdef Part* part
    cdef int label
    made.blocks = list(codes.blocks)
    made.parts = <Part*> PyMem_RawCalloc(max(len(made.blocks), 1), sizeof(Part))
    if made.parts == NULL:
        raise MemoryError()
    for block in made.blocks:
        part = &made.parts[made.count]
        part.start = block.start
        part.count = min(block.count, count - block.start)
        if part.count <= 0:
            break
        part.codes, part.scale, part.error, part.rowid = block.codes, block.scale, block.error, block.rowid
        for label in range(LABELS):
            part.label[label] = block.label[label]
        part.ascending = block.ascending
        made.count += 1
    return made


cdef int rows_in_ranges(const Part* part, const int64_t* lows, const int64_t* highs, Py_ssize_t ranges,
                        Arena found) noexcept nogil:
    """0, or -1 without memory."""
    cdef Py_ssize_t row = 0, i, near
    cdef int failed = 0
    if not part.ascending:
        for row in range(part.count):
            near = last_at_most(lows, ranges, part.rowid[row])
            if near >= 0 and part.rowid[row] <= highs[near]:
                failed |= add_position(found, part.start + row)
        return failed
    i = max(last_at_most(lows, ranges, part.rowid[0]), 0)
    while i < ranges and row < part.count:
        row = first_at_least(part.rowid, part.count, lows[i])
        while row < part.count and part.rowid[row] <= highs[i]:
            failed |= add_position(found, part.start + row)
            row += 1
        i += 1
    return failed


cdef int rows_with_labels(const Part* part, const uint32_t* numbers, Arena found) noexcept nogil:
    """0, or -1 without memory."""
    cdef uint32_t matched[256]  # TILE
    cdef Py_ssize_t start = 0
    cdef size_t n, i
    cdef int failed = 0
    while start < part.count:
        n = rows_that_match(<const uint32_t**> part.label, numbers, start, min(<Py_ssize_t> TILE, part.count - start),
                            matched)
        for i in range(n):
            failed |= add_position(found, part.start + start + matched[i])
        start += TILE
    return failed


cdef inline int add_position(Arena found, int64_t position) noexcept nogil:
    return found.append(&position, sizeof(int64_t))


cdef Py_ssize_t last_at_most(const int64_t* values, Py_ssize_t count, int64_t wanted) noexcept nogil:
    """Index of the last of these ascending values that is not above; -1 if all are."""
    cdef Py_ssize_t low = 0, high = count, middle
    while low < high:
        middle = (low + high) // 2
        if values[middle] <= wanted:
            low = middle + 1
        else:
            high = middle
    return low - 1


cdef Py_ssize_t first_at_least(const int64_t* values, Py_ssize_t count, int64_t wanted) noexcept nogil:
    cdef Py_ssize_t low = 0, high = count, middle
    while low < high:
        middle = (low + high) // 2
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low
