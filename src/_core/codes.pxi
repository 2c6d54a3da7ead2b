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

    cdef inline void ask_for(self, Py_ssize_t row, size_t stride) noexcept nogil:
        """Have the memory of a row on its way, if it is one of these."""
        cdef size_t i = 0
        if 0 <= row < self.count:
            while i < stride:
                fetch_early(self.codes + row * stride + i)
                i += LINE
            fetch_early(&self.scale[row])
            fetch_early(&self.error[row])

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
    """Texts by number, from 1 on in the order they came; 0 is NULL."""
    cdef dict numbers
    cdef bytes last  # of which the number was asked

    def __cinit__(self):
        self.numbers = {}
        self.last = b""

    cdef uint32_t number(self, const char* text, Py_ssize_t size) except? 0:
        cdef bytes key = PyBytes_FromStringAndSize(text, size)
        found = self.numbers.setdefault(key, len(self.numbers) + 1)
        self.last = key
        return found


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
        cdef list last = [None] * LABELS  # keeps alive what last_text points to
        cdef Texts texts
        cdef const char* last_text[LABELS]
        cdef Py_ssize_t last_size[LABELS]
        cdef uint32_t last_number[LABELS]
        for label in range(LABELS):
            last_text[label] = NULL
            last_size[label] = last_number[label] = 0
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
                            if last_text[label] == NULL or size != last_size[label] \
                                    or memcmp(text, last_text[label], size) != 0:
                                with gil:
                                    texts = self.texts[label]
                                    last_number[label] = texts.number(text, size)
                                    last[label] = texts.last
                                    last_text[label] = PyBytes_AS_STRING(texts.last)
                                    last_size[label] = size
                            block.label[label][row] = last_number[label]
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
        cdef const uint32_t[::1] numbers
        if other.width != self.width:
            raise EmbeddingError(f"codes of {other.width} dimensions to codes of {self.width}", got=other.width)
        for label in range(LABELS):
            here, there = (<Texts> self.texts[label]).numbers, (<Texts> other.texts[label]).numbers
            table = numpy.zeros(len(there) + 1, numpy.uint32)
            for text, number in there.items():
                table[number] = here.setdefault(text, len(here) + 1)
            numbers = table
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
        cdef Block block = None
        result = numpy.empty(positions.shape[0], numpy.int64)
        cdef int64_t[::1] out = result
        for i in range(positions.shape[0]):
            if block is None or not block.start <= positions[i] < block.start + block.count:
                block = self.block_of(positions[i])
            out[i] = block.rowid[positions[i] - block.start]
        return result

    cdef Block block_of(self, Py_ssize_t position):
        cdef Py_ssize_t low = 0, high = len(self.blocks), middle
        cdef Block block
        while high - low > 1:
            middle = (low + high) // 2
            block = self.blocks[middle]
            if block.start <= position:
                low = middle
            else:
                high = middle
        return self.blocks[low]

    def locate(self, const int64_t[::1] lows not None, const int64_t[::1] highs not None, Py_ssize_t count):
        """Positions below ``count`` whose rowid lies in one of the ranges low..high, both included.

        Args:
            lows, highs: ascending, ranges that do not overlap.

        Returns:
            (n,) int64, ascending.
        """
        cdef Arena found = Arena.__new__(Arena)
        cdef Block block
        cdef Py_ssize_t row, visible, ranges = lows.shape[0], near = 0, i, first
        cdef int64_t position
        cdef int failed = 0
        for block in self.blocks:
            visible = min(block.count, count - block.start)
            if visible <= 0 or ranges == 0:
                continue
            with nogil:
                if block.ascending:
                    i = last_at_most(&lows[0], ranges, block.rowid[0])
                    i = max(i, 0)
                    row = 0
                    while i < ranges and row < visible:
                        first = first_at_least(block.rowid, visible, lows[i])
                        row = first
                        while row < visible and block.rowid[row] <= highs[i]:
                            position = block.start + row
                            failed |= found.append(&position, sizeof(int64_t))
                            row += 1
                        i += 1
                else:
                    for row in range(visible):
                        near = last_at_most(&lows[0], ranges, block.rowid[row])
                        if near >= 0 and block.rowid[row] <= highs[near]:
                            position = block.start + row
                            failed |= found.append(&position, sizeof(int64_t))
        if failed:
            raise MemoryError()
        return found.array(numpy.int64)

    def labelled(self, wanted, Py_ssize_t count):
        """Positions below ``count`` whose labels are as wanted: text for text, None for whatever it be.

        Returns:
            (n,) int64, ascending.
        """
        cdef Arena found = Arena.__new__(Arena)
        cdef Block block
        cdef uint32_t numbers[LABELS]
        cdef int64_t buffer[256]
        cdef uint32_t matched[256]
        cdef Py_ssize_t row, n, start, visible
        cdef int label, failed = 0
        for label in range(LABELS):
            if wanted[label] is None:
                numbers[label] = 0
                continue
            number = (<Texts> self.texts[label]).numbers.get(wanted[label].encode())
            if number is None:
                return numpy.empty(0, numpy.int64)
            numbers[label] = number
        for block in self.blocks:
            visible = min(block.count, count - block.start)
            with nogil:
                start = 0
                while start < visible:
                    n = rows_that_match(block.label, numbers, start, min(<Py_ssize_t> TILE, visible - start), matched)
                    for row in range(n):
                        buffer[row] = block.start + start + matched[row]
                    if n:
                        failed |= found.append(buffer, n * sizeof(int64_t))
                    start += TILE
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
        cdef Py_ssize_t q, number = queries.shape[0], padded = (number + QUERIES - 1) // QUERIES * QUERIES
        cdef Scan scan = Scan.__new__(Scan)
        if queries.shape[1] != self.width:
            raise EmbeddingError(f"queries of {queries.shape[1]} dimensions, not {self.width}", got=queries.shape[1])
        if k < 1 or count > self.count or (dead is not None and dead.shape[0] < count):
            raise ColumnError(f"k={k}, {count} rows of {self.count}")
        if number == 0:
            return []
        scan.prepare(self, queries, k, least, most)
        scan.dead = NULL if dead is None or dead.shape[0] == 0 else &dead[0]
        blocks = list(self.blocks)
        if positions is None:
            scan.all_rows(blocks, count)
        else:
            scan.some_rows(self, blocks, positions, count)
        return [scan.found(self, queries[q], q) for q in range(number)]


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


cdef struct Found:
    int64_t position
    float low
    float high


cdef struct Kept:
    Found* rows
    Py_ssize_t count
    Py_ssize_t capacity


cdef int keep_row(Kept* kept, Found row) noexcept nogil:
    """0, or -1 without memory."""
    cdef Py_ssize_t capacity
    cdef void* grown
    if kept.count == kept.capacity:
        capacity = max(2 * kept.capacity, 256)
        grown = PyMem_RawRealloc(kept.rows, capacity * sizeof(Found))
        if grown == NULL:
            return -1
        kept.rows = <Found*> grown
        kept.capacity = capacity
    kept.rows[kept.count] = row
    kept.count += 1
    return 0


@cython.final
cdef class Scan:
    """One pass over codes for some queries: for each a heap of the k best lower bounds, and what may beat it."""
    cdef Py_ssize_t number       # queries
    cdef Py_ssize_t k
    cdef size_t stride
    cdef int8_t* codes           # of the queries, `stride` bytes each, padded to a multiple of QUERIES
    cdef float* scale            # of each query
    cdef float* slack            # that its own codes cost, rounding included
    cdef int32_t* shift          # rows are stored plus 128
    cdef float* threshold        # a row below is not among the k best
    cdef float* heaps            # the smallest of the k best lower bounds on top
    cdef Py_ssize_t* sizes
    cdef const uint8_t* dead
    cdef float most              # a row above is not looked for
    cdef float surely            # a row that may lie above cannot vouch for what is among the k best
    cdef Kept* kept              # rows that passed, for each query
    cdef void* memory

    def __cinit__(self):
        self.memory = NULL
        self.codes = NULL
        self.heaps = NULL
        self.kept = NULL
        self.number = 0

    def __dealloc__(self):
        cdef Py_ssize_t q
        if self.kept != NULL:
            for q in range(self.number):
                PyMem_RawFree(self.kept[q].rows)
        free(self.codes)
        PyMem_RawFree(self.heaps)
        PyMem_RawFree(self.memory)

    cdef int prepare(self, Codes rows, const double[:, ::1] queries, Py_ssize_t k, double least,
                     double most) except -1:
        cdef Py_ssize_t q, i, number = queries.shape[0], width = rows.width
        cdef Py_ssize_t padded = (number + QUERIES - 1) // QUERIES * QUERIES
        cdef double largest, lost, difference, floor
        cdef int code
        cdef float s
        cdef void* memory = NULL
        self.number, self.k, self.stride = number, k, rows.stride
        if posix_memalign(&memory, 64, padded * self.stride) != 0:
            raise MemoryError()
        self.codes = <int8_t*> memory
        memset(self.codes, 0, padded * self.stride)
        self.heaps = <float*> PyMem_RawMalloc(number * min(k, max(rows.count, 1)) * sizeof(float))
        self.memory = PyMem_RawCalloc(number, 3 * sizeof(float) + sizeof(int32_t) + sizeof(Py_ssize_t)
                                      + sizeof(Kept))
        if self.heaps == NULL or self.memory == NULL:
            raise MemoryError()
        self.k = min(k, max(rows.count, 1))
        self.kept = <Kept*> self.memory
        self.sizes = <Py_ssize_t*> (self.kept + number)
        self.scale = <float*> (self.sizes + number)
        self.slack = self.scale + number
        self.threshold = self.slack + number
        self.shift = <int32_t*> (self.threshold + number)
        self.most = <float> most + ROUNDING if most < INFINITY else INFINITY
        self.surely = <float> most - ROUNDING if most < INFINITY else INFINITY
        floor = least - ROUNDING if least > -INFINITY else -INFINITY
        for q in range(number):
            largest = 0
            for i in range(width):
                largest = max(largest, fabs(queries[q, i]))
            if not largest <= 1.0001:
                raise EmbeddingError(f"query {q} is not of unit length", row=q)
            s = <float> (largest / 127)
            lost = 0
            for i in range(width):
                code = <int> lrint(queries[q, i] / s) if s > 0 else 0
                code = min(max(code, -127), 127)
                self.codes[q * self.stride + i] = <int8_t> code
                self.shift[q] += 128 * code
                difference = queries[q, i] - <double> code * s
                lost += difference * difference
            self.scale[q] = s
            self.slack[q] = <float> (rows.norm * (sqrt(lost) * 1.000001 + ROUNDING))
            self.threshold[q] = <float> floor
        return 0

    cdef int all_rows(self, list blocks, Py_ssize_t count) except -1:
        cdef Block block
        cdef Py_ssize_t start, rows, visible
        cdef int failed = 0
        for block in blocks:
            visible = min(block.count, count - block.start)
            with nogil:
                start = 0
                while start < visible and not failed:
                    rows = min(<Py_ssize_t> TILE, visible - start)
                    failed = self.tile(block.codes + start * self.stride, block.scale + start,
                                       block.error + start, NULL, block.start + start, rows)
                    start += rows
            if failed:
                raise MemoryError()
            PyErr_CheckSignals()
        return 0

    cdef int some_rows(self, Codes rows, list blocks, const int64_t[::1] positions, Py_ssize_t count) except -1:
        """The rows wanted are gathered into tiles; gathering costs little beside waiting for them."""
        cdef Py_ssize_t i = 0, n, total = positions.shape[0], at
        cdef Block block = None
        cdef void* memory = NULL
        cdef float scale[256]
        cdef float error[256]
        cdef uint8_t* gathered
        cdef int failed = 0
        if total and (positions[0] < 0 or positions[total - 1] >= count):
            raise ColumnError(f"positions up to {positions[total - 1]} of {count} rows")
        if posix_memalign(&memory, 64, TILE * self.stride) != 0:
            raise MemoryError()
        gathered = <uint8_t*> memory
        try:
            while i < total:
                n = 0
                while n < TILE and i + n < total:
                    if block is None or not block.start <= positions[i + n] < block.start + block.count:
                        block = rows.block_of(positions[i + n])
                    with nogil:
                        while n < TILE and i + n < total:
                            at = positions[i + n] - block.start
                            if at >= block.count:
                                break
                            if i + n + AHEAD < total:
                                block.ask_for(positions[i + n + AHEAD] - block.start, self.stride)
                            memcpy(gathered + n * self.stride, block.codes + at * self.stride, self.stride)
                            scale[n] = block.scale[at]
                            error[n] = block.error[at]
                            n += 1
                with nogil:
                    failed = self.tile(gathered, scale, error, &positions[i], 0, n)
                if failed:
                    raise MemoryError()
                i += n
        finally:
            free(memory)
        return 0

    cdef int tile(self, const uint8_t* codes, const float* scale, const float* error,
                  const int64_t* positions, Py_ssize_t start, Py_ssize_t rows) noexcept nogil:
        cdef int32_t sums[4 * 256]
        cdef float middle[256]
        cdef uint32_t passed[256]
        cdef Py_ssize_t q = 0, each, together
        cdef size_t n
        while q < self.number:
            together = min(<Py_ssize_t> QUERIES, self.number - q)
            if together == 1:
                score_one(codes, self.stride, rows, self.codes + q * self.stride, sums)
            else:
                score_many(codes, self.stride, rows, self.codes + q * self.stride, sums, TILE)
            for each in range(q, q + together):
                n = rows_that_pass(sums + (each - q) * TILE, scale, error, rows, self.scale[each],
                                   self.shift[each], self.slack[each], self.threshold[each], middle, passed)
                if n and self.keep(each, n, passed, middle, error, positions, start) < 0:
                    return -1
            q += together
        return 0

    cdef int keep(self, Py_ssize_t q, size_t n, const uint32_t* passed, const float* middle, const float* error,
                  const int64_t* positions, Py_ssize_t start) noexcept nogil:
        cdef Found row
        cdef float reach
        cdef size_t i
        cdef float* heap = self.heaps + q * self.k
        for i in range(n):
            reach = error[passed[i]] + self.slack[q]
            row.position = positions[passed[i]] if positions != NULL else <int64_t> (start + passed[i])
            row.low = middle[passed[i]] - reach
            row.high = middle[passed[i]] + reach
            if row.high < self.threshold[q] or row.low > self.most \
                    or (self.dead != NULL and self.dead[row.position]):
                continue
            if keep_row(&self.kept[q], row) < 0:
                return -1
            if row.high <= self.surely:
                heap_offer(heap, &self.sizes[q], self.k, row.low)
                if self.sizes[q] == self.k and heap[0] > self.threshold[q]:
                    self.threshold[q] = heap[0]
        return 0

    cdef tuple found(self, Codes codes, const double[::1] query, Py_ssize_t q):
        """What is still above the threshold when it is final, by bounds that the query's codes do not widen."""
        cdef Kept* kept = &self.kept[q]
        cdef Py_ssize_t i, n = 0, width = codes.width, at
        cdef float middle, reach, threshold = self.threshold[q]
        cdef Block block = None
        cdef float[::1] whole = numpy.asarray(query, numpy.float32)
        # Each of LANES float32 sums may be off by as many roundings as it has terms.
        cdef float rounding = codes.norm * (ROUNDING + 6e-8 * (width // LANES + 8))
        self.sizes[q] = 0
        for i in range(kept.count):
            if kept.rows[i].high < self.threshold[q]:
                continue
            if block is None or not block.start <= kept.rows[i].position < block.start + block.count:
                block = codes.block_of(kept.rows[i].position)
            at = kept.rows[i].position - block.start
            middle = <float> (precise_sum(block.codes + at * self.stride, &whole[0], width) * block.scale[at])
            reach = block.error[at] + rounding
            kept.rows[n].position = kept.rows[i].position
            kept.rows[n].low = max(kept.rows[i].low, middle - reach)
            kept.rows[n].high = min(kept.rows[i].high, middle + reach)
            if kept.rows[n].high <= self.surely:
                heap_offer(self.heaps + q * self.k, &self.sizes[q], self.k, kept.rows[n].low)
            n += 1
        if self.sizes[q] == self.k:
            threshold = max(threshold, self.heaps[q * self.k])
        kept.count, n = n, 0
        for i in range(kept.count):
            n += kept.rows[i].high >= threshold
        positions = numpy.empty(n, numpy.int64)
        bounds = numpy.empty((2, n), numpy.float32)
        cdef int64_t[::1] out = positions
        cdef float[:, ::1] edges = bounds
        n = 0
        for i in range(kept.count):
            if kept.rows[i].high >= threshold:
                out[n] = kept.rows[i].position
                edges[0, n] = kept.rows[i].low
                edges[1, n] = kept.rows[i].high
                n += 1
        return positions, bounds[0], bounds[1]
