/* The lengths of values in RESP, the protocol of Redis, found before anything is parsed. */

enum { MAX_VALUE_BYTES = 65536 };

/* Return the length that a line such as "$12\r\n" announces, or -1 for any other line. `end` is the line's last character. */
static int64_t announced_length(const uint8_t *line, const uint8_t *end) {
    if (*line != '$' && *line != '=' && *line != '!') return -1;
    int64_t length = 0, digits = 0;
    for (line++; line < end && *line >= '0' && *line <= '9' && digits <= 15; line++, digits++)
        length = length * 10 + (*line - '0');
    return digits && digits <= 15 && line < end && *line == '\r' ? length : -1;
}

/* Find the first value of more than MAX_VALUE_BYTES. Return the offset of the line that announces it, or -1.

   `data` begins with `unfinished` bytes of a value whose length was read before, or with a line. If a value was found,
   found_2[0] is the offset at which it begins and found_2[1] its size with the line end behind it. If not, found_2[0] is
   the offset of a line that is not whole, or `size`, and found_2[1] the number of bytes that the last value lacks. */
EXPORT int64_t ctr_find_oversized(const uint8_t *data, int64_t size, int64_t unfinished, int64_t *found_2) {
    int64_t i = unfinished;
    while (i < size) {
        const uint8_t *end = memchr(data + i, '\n', (size_t)(size - i));
        if (end == NULL) {
            found_2[0] = i, found_2[1] = 0;
            return -1;
        }
        int64_t length = announced_length(data + i, end), begin = end - data + 1;
        if (length > MAX_VALUE_BYTES) {
            found_2[0] = begin, found_2[1] = length + 2;
            return i;
        }
        i = length < 0 ? begin : begin + length + 2;
    }
    found_2[0] = size, found_2[1] = i - size;
    return -1;
}
