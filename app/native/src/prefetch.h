/* Fetching the next candidates' states while this tile is computed, one cache line at a time. Requested all at once they
   would wait for one another, and the tile for them: a processor has some twenty reads of memory under way, and a tile's
   states are 140 lines. */

enum { CACHE_LINE = 64, PREFETCH_EVERY = 8 };

typedef struct {
    const char *states;
    const int64_t *row, *end; /* the rows that are left */
    int64_t bytes, offset;    /* size of a state, and how far the current one was fetched */
} Prefetch;

/* Plan to fetch the rows [begin, end) of N, as far as there are so many. */
static inline Prefetch prefetch_rows(const void *states, int64_t bytes, const int64_t *row_N, int64_t begin, int64_t end,
                                     int64_t n) {
    begin = begin < n ? begin : n;
    return (Prefetch){states, row_N + begin, row_N + (end < n ? end : n), bytes, 0};
}

static inline void prefetch_line(Prefetch *prefetch) {
    if (prefetch->row == prefetch->end) return;
    __builtin_prefetch(prefetch->states + *prefetch->row * prefetch->bytes + prefetch->offset);
    prefetch->offset += CACHE_LINE;
    if (prefetch->offset >= prefetch->bytes + CACHE_LINE) prefetch->offset = 0, prefetch->row++; /* may begin in mid-line */
}

/* Fetch the lines that small layers left no time for. */
static inline void prefetch_rest(Prefetch *prefetch) {
    while (prefetch->row != prefetch->end) prefetch_line(prefetch);
}
