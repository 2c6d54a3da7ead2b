# Texts that many rows share: what filters compare is a number.

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
