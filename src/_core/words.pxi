# Texts as the index of words is given them: what would be no word is written out, or apart.

ctypedef fused Unit:
    uint8_t
    uint16_t
    uint32_t


cdef inline Py_ssize_t put(Unit* out, Py_ssize_t at, const char* word, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    if out != NULL:
        for i in range(size):
            out[at + i] = <uint8_t> word[i]
    return at + size


cdef inline Py_ssize_t plain_until(const Unit* text, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """Where, from `at` on, the next sign that may be a word stands; `size`: nowhere."""
    while at < size and text[at] != c"+" and text[at] != c"#":
        at += 1
    return at


cdef Py_ssize_t write_signs(const Unit* text, Py_ssize_t size, Unit* out) noexcept nogil:
    """Fill `out`, unless it is NULL; how many units it takes."""
    cdef Py_ssize_t i = 0, length = 0, sign
    cdef Unit before
    while i < size:
        sign = plain_until(text, i, size)
        if out != NULL:
            memcpy(out + length, text + i, (sign - i) * sizeof(Unit))
        length += sign - i
        i = sign + 1
        if sign == size:
            break
        before = text[sign - 1] if sign else 0
        if text[sign] == c"+" and i < size and text[i] == c"+":
            length = put(out, length, b" plusplus ", 10)
            i += 1
        elif text[sign] == c"#" and (before == c"C" or before == c"c" or before == c"F" or before == c"f"):
            length = put(out, length, b" sharp ", 7)
        else:
            if out != NULL:
                out[length] = text[sign]
            length += 1
    return length


cdef inline bint is_upper(Unit unit) noexcept nogil:
    return c"A" <= unit <= c"Z"


cdef inline bint is_lower(Unit unit) noexcept nogil:
    return c"a" <= unit <= c"z"


cdef Py_ssize_t write_humps(const Unit* text, Py_ssize_t size, Unit* out) noexcept nogil:
    """As `write_signs`."""
    cdef Py_ssize_t i, length = 0
    cdef Unit here, before = 0
    for i in range(size):
        here = text[i]
        if is_upper(here) and (
            is_lower(before) or c"0" <= before <= c"9"
            or (is_upper(before) and i + 1 < size and is_lower(text[i + 1]))
        ):
            length = put(out, length, b" ", 1)
        if out != NULL:
            out[length] = here
        length += 1
        before = here
    return length


ctypedef enum Rewriting:
    SIGNS
    HUMPS


cdef Py_ssize_t rewrite(const Unit* text, Py_ssize_t size, Unit* out, Rewriting how) noexcept nogil:
    return write_signs(text, size, out) if how == SIGNS else write_humps(text, size, out)


cdef int require_text(text) except -1:
    if not isinstance(text, str):
        raise TypeError(f"a text must be a str, not {type(text).__name__}")
    return 0


cdef rewritten(text, Rewriting how):
    cdef Py_ssize_t size, length
    cdef const void* data
    cdef void* out
    cdef int kind
    require_text(text)
    size, kind, data = PyUnicode_GET_LENGTH(text), PyUnicode_KIND(text), PyUnicode_DATA(text)
    if kind == 1:
        length = rewrite(<const uint8_t*> data, size, <uint8_t*> NULL, how)
    elif kind == 2:
        length = rewrite(<const uint16_t*> data, size, <uint16_t*> NULL, how)
    else:
        length = rewrite(<const uint32_t*> data, size, <uint32_t*> NULL, how)
    if length == size:  # what is written otherwise is longer
        return text
    result = PyUnicode_New(length, PyUnicode_MAX_CHAR_VALUE(text))
    out = PyUnicode_DATA(result)
    if kind == 1:
        rewrite(<const uint8_t*> data, size, <uint8_t*> out, how)
    elif kind == 2:
        rewrite(<const uint16_t*> data, size, <uint16_t*> out, how)
    else:
        rewrite(<const uint32_t*> data, size, <uint32_t*> out, how)
    return result


def signs_as_words(text):
    """A text with ``++`` as `` plusplus ``, and ``#`` behind one of ``CcFf`` as `` sharp ``."""
    return rewritten(text, SIGNS)


def humps_apart(text):
    """A text with a space in ``camelCase``, and before the last capital of an ``HTTPServer``'s; ASCII only."""
    return rewritten(text, HUMPS)


cdef enum:
    NEAR = 64  # runs that near each other are one: to go on costs less than to begin again


cdef Py_ssize_t next_run(const Unit* text, Py_ssize_t size, Py_ssize_t at, Py_ssize_t* end) noexcept nogil:
    """Where the next run of units beyond ASCII starts, with the one before it, and ends; `size`: nowhere."""
    cdef Py_ssize_t start, i
    while at < size and text[at] < 0x80:
        at += 1
    start = at - 1 if 0 < at < size else at
    end[0] = i = at
    while i < size and i - end[0] < NEAR:
        if text[i] >= 0x80:
            end[0] = i + 1
        i += 1
    return start


def foreign_runs(text):
    """Where characters beyond ASCII stand, with those between near ones and the one before: [(start, end)]."""
    cdef Py_ssize_t size, start, end = 0
    cdef list runs = []
    cdef const void* data
    cdef int kind
    require_text(text)
    size, kind, data = PyUnicode_GET_LENGTH(text), PyUnicode_KIND(text), PyUnicode_DATA(text)
    while end < size:
        if kind == 1:
            start = next_run(<const uint8_t*> data, size, end, &end)
        elif kind == 2:
            start = next_run(<const uint16_t*> data, size, end, &end)
        else:
            start = next_run(<const uint32_t*> data, size, end, &end)
        if start < end:
            runs.append((start, end))
    return runs
