/* The ids of a request, found and hashed in its JSON. */

enum { MAX_ID = 256, MAX_DIGITS = 18 };

static inline int is_space(uint8_t c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* Return the end of the string whose first character is at `i`, or -1. Set `escaped` if its characters are not the id. */
static int64_t string_end(const uint8_t *text, int64_t size, int64_t i, int *escaped) {
    for (; i < size; i++) {
        if (text[i] == '"') return i;
        if (text[i] == '\\') *escaped = 1, i++;
    }
    return -1;
}

/* Return the end of a string of printable ASCII without escapes whose first character is at `i`, or -1. */
static inline int64_t plain_string_end(const uint8_t *text, int64_t size, int64_t i) {
    while (i < size && (uint8_t)(text[i] - 0x20) < 0x5f && text[i] != '"' && text[i] != '\\') i++;
    return i < size && text[i] == '"' ? i : -1;
}

/* Return the end of the integer at `i`, or -1 unless str() would write it alike: it fits 64 bits and is not -0. */
static int64_t integer_end(const uint8_t *text, int64_t size, int64_t i) {
    int64_t begin = i + (text[i] == '-'), end = begin;
    while (end < size && text[end] >= '0' && text[end] <= '9') end++;
    if (end == begin || end - begin > MAX_DIGITS || (text[begin] == '0' && (end - begin > 1 || begin > i))) return -1;
    return end < size && (text[end] == ',' || text[end] == ']' || is_space(text[end])) ? end : -1;
}

/* Write where each id of a JSON array begins and ends, and its hash. Return their number, or -1.

   With `plain` only the usual is accepted: strings of 1 to MAX_ID printable ASCII characters without escapes, and integers.
   For anything else, and for more than `limit` ids, the result is -1 and the caller uses a full parser.
   Without `plain` the array is one that this service wrote, of strings; those with escapes get the hash 0. */
EXPORT int64_t ctr_scan_ids(const uint8_t *text, int64_t size, int64_t limit, int64_t plain, const uint64_t *key_2,
                            uint64_t *hash_N, int32_t *begin_N, int32_t *end_N) {
    int64_t count = 0, i = 0;
    if (size < 2 || size > INT32_MAX || text[0] != '[') return -1;
    for (i = 1;;) {
        while (i < size && is_space(text[i])) i++;
        if (i >= size || count == limit) return -1;
        int escaped = 0, quoted = text[i] == '"';
        int64_t begin = i + quoted, end;
        if (!quoted) end = integer_end(text, size, begin);
        else if (plain) end = plain_string_end(text, size, begin);
        else end = string_end(text, size, begin, &escaped);
        if (end < 0 || (plain && (end == begin || end - begin > MAX_ID))) return -1;
        begin_N[count] = (int32_t)begin;
        end_N[count] = (int32_t)end;
        hash_N[count++] = escaped ? 0 : siphash(text + begin, (uint64_t)(end - begin), (uint64_t)(size - begin), key_2);
        i = end + quoted;
        while (i < size && is_space(text[i])) i++;
        if (i >= size) return -1;
        if (text[i] == ']') return i == size - 1 ? count : -1;
        if (text[i++] != ',') return -1;
    }
}
