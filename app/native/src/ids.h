/* The ids of a request, as they stand in its JSON. */

enum { MAX_ID = 256, MAX_DIGITS = 18 };

static inline int is_space(uint8_t c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

/* The end of the string that begins behind a quote, or -1. `escaped` is set where what stands there is not the id itself. */
static int64_t string_end(const uint8_t *text, int64_t size, int64_t place, int *escaped) {
    for (; place < size; place++) {
        if (text[place] == '"') return place;
        if (text[place] == '\\') *escaped = 1, place++;
    }
    return -1;
}

/* The same of printable ASCII without escapes. */
static inline int64_t plain_end(const uint8_t *text, int64_t size, int64_t place) {
    while (place < size && (uint8_t)(text[place] - 0x20) < 0x5f && text[place] != '"' && text[place] != '\\') place++;
    return place < size && text[place] == '"' ? place : -1;
}

/* An integer that str() would write as it stands: no fraction, no exponent, no -0, and it fits 64 bits. */
static int64_t integer_end(const uint8_t *text, int64_t size, int64_t place) {
    int64_t begin = place + (text[place] == '-'), end = begin;
    while (end < size && text[end] >= '0' && text[end] <= '9') end++;
    if (end == begin || end - begin > MAX_DIGITS || (text[begin] == '0' && (end - begin > 1 || begin > place))) return -1;
    return end < size && (text[end] == ',' || text[end] == ']' || is_space(text[end])) ? end : -1;
}

/* Where each id of a JSON array begins and ends, and its hash; returns how many there are.

   plain: only strings of printable ASCII without escapes, of 1 to MAX_ID characters, and integers, all that is usual:
          -1 for anything else and for more than `limit`, which a real parser then reads.
   Otherwise the array is one that was written by us, of strings; those with escapes have no hash, 0. */
EXPORT int64_t ctr_scan_ids(const uint8_t *text, int64_t size, int64_t limit, int64_t plain, const uint64_t *key_2,
                            uint64_t *hash_N, int32_t *begin_N, int32_t *end_N) {
    int64_t count = 0, place = 0;
    if (size < 2 || size > INT32_MAX || text[0] != '[') return -1;
    for (place = 1;;) {
        while (place < size && is_space(text[place])) place++;
        if (place >= size || count == limit) return -1;
        int escaped = 0, quoted = text[place] == '"';
        int64_t begin = place + quoted, end;
        if (!quoted) end = integer_end(text, size, begin);
        else if (plain) end = plain_end(text, size, begin);
        else end = string_end(text, size, begin, &escaped);
        if (end < 0 || (plain && (end == begin || end - begin > MAX_ID))) return -1;
        begin_N[count] = (int32_t)begin;
        end_N[count] = (int32_t)end;
        hash_N[count++] = escaped ? 0 : hashed(text + begin, (uint64_t)(end - begin), (uint64_t)(size - begin), key_2);
        place = end + quoted;
        while (place < size && is_space(text[place])) place++;
        if (place >= size) return -1;
        if (text[place] == ']') return place == size - 1 ? count : -1;
        if (text[place++] != ',') return -1;
    }
}

EXPORT uint64_t ctr_hash(const uint8_t *text, int64_t size, const uint64_t *key_2) {
    return hashed(text, (uint64_t)size, (uint64_t)size, key_2);
}
