# What the events of a markdown parser tell of a note, without a line of Python for each of them.

def outline(events, *, bint keep_runs=False):
    """Where things stand in a text, by the events of pyromark's ``events_with_range``.

    Args:
        events: an iterable of (event, ``{"start": int, "end": int}``): bytes of the text in UTF-8.
        keep_runs: also tell where mere text is, outside code and links; the events must not be of
            merged text then.

    Returns:
        (blocks, headings, links, runs, html, code). ``blocks``: where the blocks begin that no other one
        encloses. ``headings``: (start, level, text, is such a block). ``links``: (is an image, what the
        event says of it, start, end). ``runs`` and ``html``: (start, end), neighbours joined; ``code``:
        those of its blocks.

    Raises:
        TypeError, ValueError, KeyError: something else than such an event; and whatever ``events`` raises.
    """
    cdef list blocks = [], headings = [], links = [], runs = [], html = [], code = [], words = []
    cdef Py_ssize_t start = 0, end = 0, outermost = 0, run_end = -1, html_end = -1, at
    cdef int in_link = 0, in_code = 0
    cdef bint in_heading = False, is_outer = False, starts_block
    cdef PyObject* key
    cdef PyObject* told
    cdef dict event, span
    cdef str kind, tag
    for what, span in events:
        if type(what) is str:  # a break, which nothing else is said of
            if in_heading:
                words.append(" ")
            continue
        event = what
        at = 0
        if event is None or not PyDict_Next(event, &at, &key, &told):
            raise ValueError("an event says nothing")
        kind, value = <object> key, <object> told
        if kind == "Text":
            if in_heading:
                words.append(value)
            if keep_runs and not in_code and not in_link:
                start, end = span["start"], span["end"]
                if start == run_end:
                    start = runs.pop()[0]
                runs.append((start, end))
                run_end = end
        elif kind == "Start":
            start = span["start"]
            starts_block = start >= outermost
            if starts_block:
                blocks.append(start)
                outermost = span["end"]
            if type(value) is str:
                continue
            ((tag, detail),) = (<dict?> value).items()
            if tag == "Link" or tag == "Image":
                in_link += 1
                links.append((tag == "Image", detail, start, span["end"]))
            elif tag == "CodeBlock":
                in_code += 1
                code.append((start, span["end"]))
            elif tag == "Heading":
                in_heading, is_outer = True, starts_block
                words.clear()
        elif kind == "End":
            if type(value) is str:
                if in_link and (value == "Link" or value == "Image"):
                    in_link -= 1
                elif in_code and value == "CodeBlock":
                    in_code -= 1
            elif in_heading and "Heading" in value:
                in_heading = False
                text = " ".join("".join(words).split())
                headings.append((span["start"], int(value["Heading"][1:]), text, is_outer))
        elif kind == "Code":
            if in_heading:
                words.append(value)
        elif kind == "Html" or kind == "InlineHtml":
            start, end = span["start"], span["end"]
            if start == html_end:
                start = html.pop()[0]
            html.append((start, end))
            html_end = end
    return blocks, headings, links, runs, html, code
