/* The index from hashes of ids to row numbers: open addressing with linear probing, at most half full. A dictionary follows
   three pointers for an id, and with a million items each of them leaves the processor's caches; here it is one, and it is
   prefetched. */

typedef struct {
    uint64_t hash; /* 0 in an empty entry */
    int64_t row;   /* AMBIGUOUS if several ids have or had this hash */
} IndexEntry;

enum { ABSENT = -1, AMBIGUOUS = -2, PREFETCH_DISTANCE = 12 };
enum { ALL_DISTINCT = 1 << 8 }; /* in the result of ctr_mark_used, above its eight flags */

/* Return the position of a hash, or the empty one where it belongs. */
static inline uint64_t entry_of(const IndexEntry *table, uint64_t mask, uint64_t hash) {
    uint64_t i = hash & mask;
    while (table[i].hash && table[i].hash != hash) i = (i + 1) & mask;
    return i;
}

/* Write the rows of N hashes: ABSENT for an unknown hash, AMBIGUOUS where the id itself must decide. Return how many are
   AMBIGUOUS. */
EXPORT int64_t ctr_index_find(const IndexEntry *table, uint64_t mask, const uint64_t *hash_N, int64_t n, int64_t *row_N) {
    int64_t ambiguous = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i + PREFETCH_DISTANCE < n) __builtin_prefetch(table + (hash_N[i + PREFETCH_DISTANCE] & mask));
        if (!hash_N[i]) {
            row_N[i] = AMBIGUOUS;
        } else {
            const IndexEntry *entry = table + entry_of(table, mask, hash_N[i]);
            row_N[i] = entry->hash ? entry->row : ABSENT;
        }
        ambiguous += row_N[i] == AMBIGUOUS;
    }
    return ambiguous;
}

/* Add a hash with its row, or make its entry AMBIGUOUS if it has one. Return the number of entries added, 0 or 1. */
EXPORT int64_t ctr_index_insert(IndexEntry *table, uint64_t mask, uint64_t hash, int64_t row) {
    IndexEntry *entry = table + entry_of(table, mask, hash);
    int64_t added = !entry->hash;
    *entry = (IndexEntry){hash, added ? row : AMBIGUOUS};
    return added;
}

/* Remove a hash, unless it is AMBIGUOUS. Return the number of entries removed, 0 or 1. */
EXPORT int64_t ctr_index_remove(IndexEntry *table, uint64_t mask, uint64_t hash) {
    uint64_t hole = entry_of(table, mask, hash);
    if (!table[hole].hash || table[hole].row == AMBIGUOUS) return 0;
    for (uint64_t i = (hole + 1) & mask; table[i].hash; i = (i + 1) & mask) {
        /* An entry moves up if the hole lies between its preferred position and the one it has. */
        if (((i - table[i].hash) & mask) >= ((i - hole) & mask)) table[hole] = table[i], hole = i;
    }
    table[hole] = (IndexEntry){0, 0};
    return 1;
}

/* Copy all entries to an empty table. */
EXPORT void ctr_index_copy(const IndexEntry *from, uint64_t from_mask, IndexEntry *to, uint64_t to_mask) {
    for (uint64_t i = 0; i <= from_mask; i++)
        if (from[i].hash) to[entry_of(to, to_mask, from[i].hash)] = from[i];
}

/* Mark N rows as used at the times that follow `clock`. Return the flags that all of them have, and ALL_DISTINCT if no row
   occurs twice. `absent_row` stands in for ABSENT. */
EXPORT int64_t ctr_mark_used(const int64_t *row_N, int64_t n, const uint8_t *flags_C, int64_t *used_C, int64_t absent_row,
                             int64_t clock) {
    int64_t flags_all = 0xff, distinct = 1;
#define ROW(i) (row_N[i] < 0 ? absent_row : row_N[i])
    for (int64_t i = 0; i < n; i++) {
        if (i + PREFETCH_DISTANCE < n) {
            __builtin_prefetch(used_C + ROW(i + PREFETCH_DISTANCE), 1);
            __builtin_prefetch(flags_C + ROW(i + PREFETCH_DISTANCE));
        }
        used_C[ROW(i)] = clock + 1 + i;
        flags_all &= flags_C[ROW(i)];
    }
    for (int64_t i = 0; i < n; i++) distinct &= used_C[ROW(i)] == clock + 1 + i;
#undef ROW
    return flags_all | (distinct ? ALL_DISTINCT : 0);
}
