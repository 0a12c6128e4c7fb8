/* Fetching the next candidates' states while this tile's are at work. Asked for all at once they would wait for one another,
   and the tile with them: a processor has some twenty requests to memory under way, and a tile's states are 140 lines. */

enum { LINE = 64, AHEAD_EVERY = 8 };

typedef struct {
    const char *states;
    const int64_t *row, *end; /* rows to fetch */
    int64_t bytes, offset;    /* of a state */
} Ahead;

static inline Ahead looking_ahead(const void *states, int64_t bytes, const int64_t *row_N, int64_t begin, int64_t end,
                                  int64_t n) {
    begin = begin < n ? begin : n;
    return (Ahead){states, row_N + begin, row_N + (end < n ? end : n), bytes, 0};
}

static inline void fetch_one(Ahead *ahead) {
    if (ahead->row == ahead->end) return;
    __builtin_prefetch(ahead->states + *ahead->row * ahead->bytes + ahead->offset);
    ahead->offset += LINE;
    if (ahead->offset >= ahead->bytes + LINE) ahead->offset = 0, ahead->row++; /* a state may begin within a line */
}

/* What small layers left no time for. */
static inline void fetch_rest(Ahead *ahead) {
    while (ahead->row != ahead->end) fetch_one(ahead);
}
