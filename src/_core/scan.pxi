# One pass over codes: which rows may be among the k best for some queries.

cdef struct Found:
    int64_t position
    float low
    float high


# Rows times queries; some tens of milliseconds.
cdef enum: ROWS_BETWEEN_SIGNAL_CHECKS = 8_000_000
cdef enum:
    FEW = 64       # rows more than were left the last time, before it pays to sweep
    MUCH = 1000    # for so many rows it pays to guess first how good they must be
    SAMPLE = 32    # one tile of so many, to guess by


@cython.final
cdef class Turns:
    """Which block is next, for several threads that share a pass."""
    cdef Py_ssize_t next
    cdef PyThread_type_lock lock

    def __cinit__(self):
        self.next = 0
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError()

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef Py_ssize_t take(self) noexcept nogil:
        cdef Py_ssize_t taken
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        taken = self.next
        self.next += 1
        PyThread_release_lock(self.lock)
        return taken


@cython.final
cdef class Scan:
    """One pass over codes for some queries: for each it keeps the rows that may be among the k best so far."""
    cdef Parts parts
    cdef Py_ssize_t number       # queries
    cdef Py_ssize_t width
    cdef Py_ssize_t k
    cdef size_t stride
    cdef int8_t* codes           # of the queries, `stride` bytes each, padded to a multiple of QUERIES
    cdef float* whole            # the queries themselves, `width` each
    cdef float* scale            # of each query
    cdef float* slack            # that its own codes cost, rounding included
    cdef int32_t* shift          # rows are stored plus 128
    cdef float* threshold        # a row below is not among the k best
    cdef float* guess            # where the threshold began, though no k rows had been seen yet
    cdef float floor             # where it begins without a guess
    cdef Py_ssize_t* crowded     # sweep out who cannot be among them any more beyond so many rows
    cdef void** kept             # for each query an Arena of Found: rows that passed
    cdef list arenas
    cdef Arena lows              # lower bounds, while a sweep looks for the k-th of them
    cdef const uint8_t* dead
    cdef float most              # a row above is not looked for
    cdef float surely            # a row that may lie above cannot vouch for what is among the k best
    cdef float rounding          # of sums with the whole query
    cdef Py_ssize_t since_signals
    cdef void* memory
    cdef Turns turns
    cdef list helpers            # other scans for the same queries, each for a thread of its own
    cdef object failure          # of a helper

    def __cinit__(self):
        self.helpers = []
        self.turns = Turns.__new__(Turns)
        self.memory = NULL
        self.codes = NULL
        self.since_signals = 0

    def __dealloc__(self):
        free(self.codes)
        PyMem_RawFree(self.memory)

    cdef int prepare(self, Codes rows, const double[:, ::1] queries, Py_ssize_t k, Py_ssize_t count, double least,
                     double most) except -1:
        cdef Py_ssize_t q, number = queries.shape[0]
        cdef Py_ssize_t padded = (number + QUERIES - 1) // QUERIES * QUERIES
        cdef void* memory = NULL
        self.parts = parts_of(rows, count)
        self.number, self.width, self.stride = number, rows.width, rows.stride
        self.k = min(k, max(count, 1))
        if posix_memalign(&memory, 64, padded * self.stride) != 0:
            raise MemoryError()
        self.codes = <int8_t*> memory
        memset(self.codes, 0, padded * self.stride)
        self.memory = PyMem_RawCalloc(number, sizeof(void*) + sizeof(Py_ssize_t) + 4 * sizeof(float)
                                      + sizeof(int32_t) + self.width * sizeof(float))
        if self.memory == NULL:
            raise MemoryError()
        self.kept = <void**> self.memory
        self.crowded = <Py_ssize_t*> (self.kept + number)
        self.scale = <float*> (self.crowded + number)
        self.slack = self.scale + number
        self.threshold = self.slack + number
        self.guess = self.threshold + number
        self.shift = <int32_t*> (self.guess + number)
        self.whole = <float*> (self.shift + number)
        self.most = <float> most + ROUNDING if most < INFINITY else INFINITY
        self.surely = <float> most - ROUNDING if most < INFINITY else INFINITY
        # Each of LANES float32 sums may be off by as many roundings as it has terms.
        self.rounding = rows.norm * (ROUNDING + 6e-8 * (self.width // LANES + 8))
        self.floor = <float> (least - ROUNDING) if least > -INFINITY else -INFINITY
        self.arenas = [Arena.__new__(Arena) for q in range(number)]
        self.lows = Arena.__new__(Arena)
        for q in range(number):
            self.kept[q] = <void*> self.arenas[q]
            self.begin(q, -INFINITY)
            self.encode(q, &queries[q, 0], rows.norm)
        return 0

    cdef int encode(self, Py_ssize_t q, const double* query, float norm) except -1:
        cdef double largest = 0, lost = 0, difference
        cdef Py_ssize_t i
        cdef int code
        cdef float s
        for i in range(self.width):
            largest = max(largest, fabs(query[i]))
            self.whole[q * self.width + i] = <float> query[i]
        if not largest <= 1.0001:
            raise EmbeddingError(f"query {q} is not of unit length", row=q)
        s = <float> (largest / 127)
        for i in range(self.width):
            code = <int> lrint(query[i] / s) if s > 0 else 0
            code = min(max(code, -127), 127)
            self.codes[q * self.stride + i] = <int8_t> code
            self.shift[q] += 128 * code
            difference = query[i] - <double> code * s
            lost += difference * difference
        self.scale[q] = s
        self.slack[q] = <float> (norm * (sqrt(lost) * 1.000001 + ROUNDING))
        return 0

    cdef void begin(self, Py_ssize_t q, float guess) noexcept nogil:
        self.guess[q] = guess
        self.threshold[q] = max(self.floor, guess)
        self.crowded[q] = 2 * self.k + FEW
        (<Arena> self.kept[q]).size = 0

    cdef int look_through(self) except -1:
        """All rows; those of the first thousands would all be kept, if nobody had guessed what will be too little."""
        cdef Py_ssize_t q, k = self.k, rows = 0
        cdef const Part* part
        if k >= MUCH and self.parts.count:
            part = &self.parts.parts[self.parts.count - 1]
            rows = part.start + part.count
        if rows > max(8 * k, 4 * SAMPLE * TILE):
            # A quarter more than its share, as it has to be right mostly; and if it is not, nothing is lost but time.
            self.k = (k + k // 4) // SAMPLE + 16
            for q in range(self.number):
                self.crowded[q] = 2 * self.k + FEW
            self.some_tiles(SAMPLE)
            self.settle()
            self.k = k
            for q in range(self.number):
                self.begin(q, self.threshold[q])
        self.all_tiles()
        if not self.settle():
            for q in range(self.number):
                self.begin(q, -INFINITY)
            self.all_tiles()
            self.settle()
        return 0

    cdef int all_tiles(self) except -1:
        """Each block by whoever comes to it first; what the others have found is here afterwards."""
        cdef Scan helper
        cdef Py_ssize_t q
        self.turns.next = 0
        threads = []
        for helper in self.helpers:
            helper.turns = self.turns
            helper.failure = None
            for q in range(self.number):
                helper.begin(q, self.guess[q])
            threads.append(threading.Thread(target=helper.help, daemon=True))
        try:
            for thread in threads:
                thread.start()
            self.some_blocks()
        finally:
            # They look at rows that the caller holds.
            self.turns.next = self.parts.count
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        for helper in self.helpers:
            if helper.failure is not None:
                raise helper.failure
            for q in range(self.number):
                if merge_found(<Arena> self.kept[q], <Arena> helper.kept[q], self.lows) < 0:
                    raise MemoryError()
                self.threshold[q] = max(self.threshold[q], helper.threshold[q])
        return 0

    def help(self):
        """What a helper's thread does."""
        try:
            self.some_blocks()
        except BaseException as error:
            self.failure = error

    cdef int some_blocks(self) except -1:
        cdef Py_ssize_t i
        cdef int failed = 0
        with nogil:
            while not failed:
                i = self.turns.take()
                if i >= self.parts.count:
                    break
                failed = self.block(&self.parts.parts[i])
                if not failed and self.is_time_for_signals(self.parts.parts[i].count):
                    with gil:
                        PyErr_CheckSignals()
        if failed:
            raise MemoryError()
        return 0

    cdef int block(self, const Part* part) noexcept nogil:
        """0, or -1 without memory."""
        cdef Py_ssize_t start = 0
        cdef int failed = 0
        while start < part.count and not failed:
            failed = self.tile(part.codes + start * self.stride, part.scale + start, part.error + start, NULL,
                               part.start + start, min(<Py_ssize_t> TILE, part.count - start))
            start += TILE
        return failed

    cdef int some_tiles(self, Py_ssize_t every) except -1:
        cdef const Part* part
        cdef Py_ssize_t i, start = 0, rows
        cdef int failed = 0
        with nogil:
            for i in range(self.parts.count):
                part = &self.parts.parts[i]
                # The next part goes on counting.
                start = max(start - self.parts.parts[i - 1].count, 0) if i else 0
                while start < part.count and not failed:
                    rows = min(<Py_ssize_t> TILE, part.count - start)
                    failed = self.tile(part.codes + start * self.stride, part.scale + start, part.error + start,
                                       NULL, part.start + start, rows)
                    start += every * TILE
                if not failed and self.is_time_for_signals(part.count // every):
                    with gil:
                        PyErr_CheckSignals()
        if failed:
            raise MemoryError()
        return 0

    cdef int some_rows(self, const int64_t* positions, Py_ssize_t total) except -1:
        """The rows wanted are gathered into tiles; gathering costs little beside waiting for them."""
        cdef const Part* part = NULL
        cdef const Part* later
        cdef Py_ssize_t i = 0, n, at
        cdef void* memory = NULL
        cdef float scale[256]   # TILE
        cdef float error[256]
        cdef uint8_t* gathered
        cdef int failed = 0
        if posix_memalign(&memory, 64, TILE * self.stride) != 0:
            raise MemoryError()
        gathered = <uint8_t*> memory
        try:
            with nogil:
                while i < total and not failed:
                    n = 0
                    while n < TILE and i + n < total:
                        if i + n + AHEAD < total:
                            later = self.parts.holding(positions[i + n + AHEAD], part)
                            ask_for(later, positions[i + n + AHEAD] - later.start, self.stride)
                        part = self.parts.holding(positions[i + n], part)
                        at = positions[i + n] - part.start
                        memcpy(gathered + n * self.stride, part.codes + at * self.stride, self.stride)
                        scale[n] = part.scale[at]
                        error[n] = part.error[at]
                        n += 1
                    failed = self.tile(gathered, scale, error, positions + i, 0, n)
                    i += n
                    if not failed and self.is_time_for_signals(n):
                        with gil:
                            PyErr_CheckSignals()
        finally:
            free(memory)
        if failed:
            raise MemoryError()
        return 0

    cdef bint is_time_for_signals(self, Py_ssize_t rows) noexcept nogil:
        """Looking for them takes the GIL, for which another thread may let this one wait."""
        self.since_signals += rows * self.number
        if self.since_signals < ROWS_BETWEEN_SIGNAL_CHECKS:
            return False
        self.since_signals = 0
        return True

    cdef int tile(self, const uint8_t* codes, const float* scale, const float* error,
                  const int64_t* positions, Py_ssize_t start, Py_ssize_t rows) noexcept nogil:
        cdef int32_t sums[4 * 256]      # QUERIES * TILE
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
                if n and self.keep(each, n, passed, middle, codes, scale, error, positions, start) < 0:
                    return -1
            q += together
        return 0

    cdef int keep(self, Py_ssize_t q, size_t n, const uint32_t* passed, const float* middle, const uint8_t* codes,
                  const float* scale, const float* error, const int64_t* positions, Py_ssize_t start) noexcept nogil:
        """Of the rows that passed those that still do by the whole query, whose codes do not widen the bounds then.

        Returns:
            0, or -1 without memory.
        """
        cdef Found row
        cdef float narrow, reach
        cdef size_t i, at
        for i in range(n):
            at = passed[i]
            row.position = positions[at] if positions != NULL else <int64_t> (start + at)
            if self.dead != NULL and self.dead[row.position]:
                continue
            narrow = <float> (precise_sum(codes + at * self.stride, self.whole + q * self.width, self.width) * scale[at])
            reach = error[at] + self.rounding
            row.low = max(middle[at] - error[at] - self.slack[q], narrow - reach)
            row.high = min(middle[at] + error[at] + self.slack[q], narrow + reach)
            if row.high < self.threshold[q] or row.low > self.most:
                continue
            if (<Arena> self.kept[q]).append(&row, sizeof(Found)) < 0:
                return -1
        if (<Arena> self.kept[q]).size > self.crowded[q] * <Py_ssize_t> sizeof(Found):
            return -1 if self.sweep(q) < 0 else 0
        return 0

    cdef int sweep(self, Py_ssize_t q) noexcept nogil:
        """Raise the threshold to the k-th best lower bound, and drop the rows below.

        Returns:
            whether k rows are known that reach the guess; -1 without memory.
        """
        cdef Found* rows = <Found*> (<Arena> self.kept[q]).data
        cdef Py_ssize_t count = (<Arena> self.kept[q]).size // <Py_ssize_t> sizeof(Found), i, n = 0
        cdef float sure = -INFINITY
        self.lows.size = 0
        for i in range(count):
            if rows[i].high <= self.surely and self.lows.append(&rows[i].low, sizeof(float)) < 0:
                return -1
        n = self.lows.size // <Py_ssize_t> sizeof(float)
        if n >= self.k:
            sure = kth_largest(<float*> self.lows.data, n, self.k)
            self.threshold[q] = max(self.threshold[q], sure)
        n = 0
        for i in range(count):
            if rows[i].high >= self.threshold[q]:
                rows[n] = rows[i]
                n += 1
        (<Arena> self.kept[q]).size = n * sizeof(Found)
        self.crowded[q] = 2 * n + FEW
        return sure >= self.guess[q]

    cdef bint settle(self) except -1:
        """Leave what is above the thresholds now that they are final. False if a guess was too high."""
        cdef Py_ssize_t q
        cdef int right = 1, each
        with nogil:
            for q in range(self.number):
                each = self.sweep(q)
                if each < 0:
                    with gil:
                        raise MemoryError()
                # A guess below the floor has kept nothing out.
                if each == 0 and self.guess[q] > self.floor:
                    right = 0
        return right

    cdef tuple found(self, Py_ssize_t q):
        cdef Arena kept = self.arenas[q]
        rows = kept.array(numpy.dtype([("position", numpy.int64), ("low", numpy.float32), ("high", numpy.float32)]))
        return tuple(numpy.ascontiguousarray(rows[name]) for name in ("position", "low", "high"))


cdef int merge_found(Arena these, Arena those, Arena space) noexcept nogil:
    """Rows of both, in the order of their positions, in which each has its own. 0, or -1 without memory."""
    cdef const Found* a
    cdef const Found* a_end
    cdef const Found* b = <const Found*> those.data
    cdef const Found* b_end = b + those.size // <Py_ssize_t> sizeof(Found)
    cdef Found* merged
    cdef Py_ssize_t size = these.size + those.size
    if those.size == 0:
        return 0
    if space.reserve(size) < 0 or these.reserve(size) < 0:
        return -1
    a = <const Found*> these.data
    a_end = a + these.size // <Py_ssize_t> sizeof(Found)
    merged = <Found*> space.data
    while a < a_end or b < b_end:
        if b == b_end or (a < a_end and a.position < b.position):
            merged[0] = a[0]
            a += 1
        else:
            merged[0] = b[0]
            b += 1
        merged += 1
    memcpy(these.data, space.data, size)
    these.size = size
    return 0


cdef float kth_largest(float* values, Py_ssize_t count, Py_ssize_t k) noexcept nogil:
    """The k-th largest of them, which change places."""
    cdef Py_ssize_t low = 0, high = count - 1, i, j
    cdef uint32_t chance = 1
    cdef float pivot, value
    while low < high:
        # A place that no order of the values can foresee.
        chance = chance * 1664525 + 1013904223
        pivot = values[low + <Py_ssize_t> ((<uint64_t> chance * <uint64_t> (high - low + 1)) >> 32)]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                value = values[i]
                values[i] = values[j]
                values[j] = value
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    return values[k - 1]


cdef inline void ask_for(const Part* part, Py_ssize_t row, size_t stride) noexcept nogil:
    """Have the memory of a row on its way."""
    cdef size_t i = 0
    while i < stride:
        fetch_early(part.codes + row * stride + i)
        i += LINE
    fetch_early(&part.scale[row])
    fetch_early(&part.error[row])
