/* From hashes of ids to row numbers: open addressing with linear probing, at most half full. A dictionary follows three
   pointers for an id, and with a million items each leaves the processor's caches; here it is one, asked for in advance. */

typedef struct {
    uint64_t hash; /* 0: nobody's */
    int64_t row;   /* AMBIGUOUS: several ids have this hash, now or once */
} Entry;

enum { ABSENT = -1, AMBIGUOUS = -2, AHEAD = 12 };

/* The slot of a hash, or the empty one where it belongs. */
static inline uint64_t slot_of(const Entry *table, uint64_t mask, uint64_t hash) {
    uint64_t slot = hash & mask;
    while (table[slot].hash && table[slot].hash != hash) slot = (slot + 1) & mask;
    return slot;
}

/* Rows of N hashes, ABSENT where there is none and AMBIGUOUS where only the id itself can tell; returns how many are. */
EXPORT int64_t ctr_index_find(const Entry *table, uint64_t mask, const uint64_t *hash_N, int64_t n, int64_t *row_N) {
    int64_t unclear = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i + AHEAD < n) __builtin_prefetch(table + (hash_N[i + AHEAD] & mask));
        if (!hash_N[i]) {
            row_N[i] = AMBIGUOUS;
        } else {
            const Entry *entry = table + slot_of(table, mask, hash_N[i]);
            row_N[i] = entry->hash ? entry->row : ABSENT;
        }
        unclear += row_N[i] == AMBIGUOUS;
    }
    return unclear;
}

/* Adds a hash with its row. One that is there is AMBIGUOUS from now on. Returns how many slots came into use, 0 or 1. */
EXPORT int64_t ctr_index_insert(Entry *table, uint64_t mask, uint64_t hash, int64_t row) {
    Entry *entry = table + slot_of(table, mask, hash);
    int64_t used = !entry->hash;
    *entry = (Entry){hash, used ? row : AMBIGUOUS};
    return used;
}

/* Takes a hash out, unless it is AMBIGUOUS. Returns how many slots became free, 0 or 1. */
EXPORT int64_t ctr_index_remove(Entry *table, uint64_t mask, uint64_t hash) {
    uint64_t hole = slot_of(table, mask, hash);
    if (!table[hole].hash || table[hole].row == AMBIGUOUS) return 0;
    for (uint64_t slot = (hole + 1) & mask; table[slot].hash; slot = (slot + 1) & mask) {
        /* Moved up where the hole lies between its own place and where it is. */
        if (((slot - table[slot].hash) & mask) >= ((slot - hole) & mask)) table[hole] = table[slot], hole = slot;
    }
    table[hole] = (Entry){0, 0};
    return 1;
}

/* Counts N rows as used, by numbers that follow `clock`. Returns the flags that all have; bit 8 says that no row is twice.
   `nobody` is the row that stands for ABSENT. */
EXPORT int64_t ctr_touch(const int64_t *row_N, int64_t n, const uint8_t *flags_C, int64_t *used_C, int64_t nobody,
                         int64_t clock) {
    int64_t common = 0xff, distinct = 1;
#define ROW(i) (row_N[i] < 0 ? nobody : row_N[i])
    for (int64_t i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            __builtin_prefetch(used_C + ROW(i + AHEAD), 1);
            __builtin_prefetch(flags_C + ROW(i + AHEAD));
        }
        used_C[ROW(i)] = clock + 1 + i;
        common &= flags_C[ROW(i)];
    }
    for (int64_t i = 0; i < n; i++) distinct &= used_C[ROW(i)] == clock + 1 + i;
#undef ROW
    return common | distinct << 8;
}

/* Moves all entries to an empty table. */
EXPORT void ctr_index_move(const Entry *from, uint64_t from_mask, Entry *to, uint64_t to_mask) {
    for (uint64_t slot = 0; slot <= from_mask; slot++)
        if (from[slot].hash) to[slot_of(to, to_mask, from[slot].hash)] = from[slot];
}
