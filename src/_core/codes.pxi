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
    BLOCK = 32768   # rows whose memory is asked for at once
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
    """Room for up to BLOCK rows. What is written is never changed, so it may be read while rows are added."""
    cdef uint8_t* codes
    cdef float* scale
    cdef float* error
    cdef int64_t* rowid
    cdef uint32_t* label[LABELS]
    cdef Py_ssize_t start    # position of the first row
    cdef Py_ssize_t count
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

    cdef int make(self, size_t stride) noexcept nogil:
        """0, or -1 without memory."""
        cdef size_t size = BLOCK * stride
        cdef void* memory = NULL
        cdef size_t each = 2 * sizeof(float) + sizeof(int64_t) + LABELS * sizeof(uint32_t)
        # Huge pages need their alignment; the scan then seldom waits for the page tables.
        if posix_memalign(&memory, 1 << 21, size) != 0:
            return -1
        self.codes = <uint8_t*> memory
        resonance_huge_pages(memory, size)
        memory = PyMem_RawMalloc(BLOCK * each)
        if memory == NULL:
            return -1
        self.scale = <float*> memory
        self.error = self.scale + BLOCK
        self.rowid = <int64_t*> (self.error + BLOCK)
        self.label[0] = <uint32_t*> (self.rowid + BLOCK)
        self.label[1] = self.label[0] + BLOCK
        self.label[2] = self.label[1] + BLOCK
        return 0


@cython.final
cdef class Texts:
    """Texts by number, from 1 on in the order they came. One thread adds, any may look."""
    cdef Arena bytes
    cdef Arena ends          # Py_ssize_t: where each text ends in `bytes`
    cdef uint32_t* slots     # numbers by the hash of their text; 0 where there is none
    cdef size_t room         # slots, a power of two
    cdef readonly uint32_t count
    cdef PyThread_type_lock lock

    def __cinit__(self):
        self.bytes = Arena.__new__(Arena)
        self.ends = Arena.__new__(Arena)
        self.room = 64
        self.slots = <uint32_t*> PyMem_RawCalloc(self.room, sizeof(uint32_t))
        self.lock = PyThread_allocate_lock()
        if self.slots == NULL or self.lock == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_RawFree(self.slots)
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef const char* text(self, uint32_t number, Py_ssize_t* size) noexcept nogil:
        cdef const Py_ssize_t* ends = <const Py_ssize_t*> self.ends.data
        cdef Py_ssize_t start = ends[number - 2] if number > 1 else 0
        size[0] = ends[number - 1] - start
        return self.bytes.data + start

    cdef bint is_text(self, uint32_t number, const char* text, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t own_size
        cdef const char* own = self.text(number, &own_size)
        return own_size == size and (size == 0 or memcmp(own, text, size) == 0)

    cdef size_t slot_of(self, const char* text, Py_ssize_t size) noexcept nogil:
        """Where the number of a text is, or would be."""
        cdef uint64_t hash = 14695981039346656037U  # FNV-1a
        cdef Py_ssize_t i
        cdef size_t slot
        for i in range(size):
            hash = (hash ^ <uint8_t> text[i]) * 1099511628211U
        slot = hash & (self.room - 1)
        while self.slots[slot] and not self.is_text(self.slots[slot], text, size):
            slot = (slot + 1) & (self.room - 1)
        return slot

    cdef uint32_t find(self, const char* text, Py_ssize_t size) noexcept nogil:
        """Its number, or 0."""
        cdef uint32_t found
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        found = self.slots[self.slot_of(text, size)]
        PyThread_release_lock(self.lock)
        return found

    cdef uint32_t number(self, const char* text, Py_ssize_t size) noexcept nogil:
        """Its number, a new one if need be; 0 without memory."""
        cdef uint32_t found = self.slots[self.slot_of(text, size)]
        if found:
            return found
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        found = self.add(text, size)
        PyThread_release_lock(self.lock)
        return found

    cdef uint32_t add(self, const char* text, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t end = self.bytes.size + size
        if 2 * (self.count + 1) > self.room and self.grow() < 0:
            return 0
        if self.bytes.append(text, size) < 0:
            return 0
        if self.ends.append(&end, sizeof(Py_ssize_t)) < 0:
            self.bytes.size -= size
            return 0
        self.count += 1
        self.slots[self.slot_of(text, size)] = self.count
        return self.count

    cdef int grow(self) noexcept nogil:
        cdef uint32_t* before = self.slots
        cdef uint32_t* slots = <uint32_t*> PyMem_RawCalloc(2 * self.room, sizeof(uint32_t))
        cdef uint32_t number
        cdef Py_ssize_t size
        cdef const char* text
        if slots == NULL:
            return -1
        self.slots = slots
        self.room *= 2
        for number in range(1, self.count + 1):
            text = self.text(number, &size)
            slots[self.slot_of(text, size)] = number
        PyMem_RawFree(before)
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

    def __cinit__(self, Py_ssize_t width):
        if width < 1 or width > 65536:
            raise EmbeddingError(f"{width} dimensions; 1 to 65,536 can be searched", got=width)
        self.width = width
        self.stride = (width + 63) // 64 * 64
        self.blocks = []
        self.count = 0
        self.norm = 1
        self.texts = [Texts.__new__(Texts) for label in range(LABELS)]

    @property
    def nbytes(self):
        """Bytes of memory that the rows take."""
        cdef size_t each = self.stride + 2 * sizeof(float) + sizeof(int64_t) + LABELS * sizeof(uint32_t)
        return len(self.blocks) * BLOCK * each

    cdef Block open_block(self):
        cdef Block block
        if self.blocks:
            block = self.blocks[len(self.blocks) - 1]
            if block.count < BLOCK:
                return block
        block = Block.__new__(Block)
        block.start = self.count
        if block.make(self.stride) < 0:
            raise MemoryError()
        self.blocks.append(block)
        return block

    def append(self, Connection connection not None, str sql not None, parameters):
        """Run a query of (rowid, embedding, and three labels) and add its rows.

        Returns:
            how many.

        Raises:
            CorruptRowError: a vector has another width, or is not finite, naming the row.
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
                        if block.count == BLOCK:
                            with gil:
                                block = self.open_block()
                        row = block.count
                        rowid = sqlite3_column_int64(stmt, 0)
                        vector = <const float*> sqlite3_column_blob(stmt, 1)
                        size = sqlite3_column_bytes(stmt, 1)
                        if size != wanted or vector == NULL:
                            failed = 1
                            break
                        if encode_row(vector, self.width, self.stride, block.codes + row * self.stride,
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
                    raise not_finite_row(rowid)
                if failed == 3:
                    raise MemoryError()
                handle.check(rc, "load vectors", sql)
            finally:
                statement.rewind()
        finally:
            handle.leave()
        return self.count - before

    def absorb(self, Codes other not None):
        """Take over the rows of another one of the same width, which is empty afterwards."""
        cdef Block block
        cdef Py_ssize_t row
        cdef int label
        cdef Texts here, there
        cdef uint32_t number
        cdef Py_ssize_t size
        cdef const char* text
        cdef uint32_t[::1] numbers
        if other.width != self.width:
            raise EmbeddingError(f"codes of {other.width} dimensions to codes of {self.width}", got=other.width)
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
        for block in other.blocks:
            if block.count:
                block.start = self.count
                self.blocks.append(block)
                self.count += block.count
        self.norm = max(self.norm, other.norm)
        other.blocks = []
        other.count = 0

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
                   const uint8_t[::1] dead, const int64_t[::1] positions, double least, double most):
        """The rows that may be among the k best, for each query: all that are, and few others.

        Args:
            queries: (q, width) float64, unit rows.
            k: 1 or more.
            count: look at the rows before this position.
            dead: (count,) 1 for rows to leave out; or None.
            positions: look at these only, ascending; or None.
            least, most: scores to look for; a row is left out when its bounds say it is beyond.

        Returns:
            for each query positions (n,) int64, and bounds low (n,) and high (n,) float32 of their scores.
        """
        cdef Scan scan = Scan.__new__(Scan)
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
            scan.all_rows()
        elif positions.shape[0]:
            scan.some_rows(&positions[0], positions.shape[0])
        scan.look_again()
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


cdef object not_finite_row(int64_t rowid):
    return CorruptRowError(f"the node with rowid {rowid}: its embedding is not finite; embed it again, or "
                           f"rebuild with `resonance init`")
